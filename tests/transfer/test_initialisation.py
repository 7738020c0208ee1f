import pickle
import re
import shutil
from inspect import signature
from itertools import pairwise

import pytest
import torch
from hydra import compose, initialize_config_dir
from runs import ANY_MODEL, SMALL_MODELS, train
from safetensors.torch import save_file
from torch import nn

from transfergen.config import CONF_DIR, instantiate
from transfergen.networks.backbones.vgg import VGG
from transfergen.networks.discriminators.dcgan import DCGANDiscriminator
from transfergen.networks.discriminators.vgg import VGGDiscriminator
from transfergen.networks.discriminators.vision_aided import VisionAidedDiscriminator
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.networks.generators.resnet import ResNet
from transfergen.runs import artefacts
from transfergen.runs.checkpoint import SafeCheckpointIO
from transfergen.runs.generator_files import load_pretrained, save_generator, unseen_settings
from transfergen.runs.resume import leave_out
from transfergen.targets import get_target
from transfergen.transfer.initialisation import initialise, rename

SMALL_DCGAN = {"resolution": 32, "z_dim": 8, "width": 4}
DCGAN_CONFIG = {"_target_": "transfergen.networks.generators.dcgan.DCGAN"}


def init_from(generator=None, discriminator=None, keys=()):
    """The config node, with nothing set by default."""
    return {"generator": generator, "discriminator": discriminator, "keys": list(keys)}


def equal(a, b):
    """Whether two networks have the same tensors."""
    b = b.state_dict()
    return all(torch.equal(value, b[name]) for name, value in a.state_dict().items() if isinstance(value, torch.Tensor))


def save_run(folder, *, generator=None, discriminator=None, left_out=(), config=DCGAN_CONFIG):
    """Write what `initialise` reads of a run directory, with a checkpoint without the tensors named in `left_out`."""
    if generator is not None:
        save_generator(folder, generator, config, ema=True, images_seen=1)
    if discriminator is not None:
        state = {f"discriminator.{name}": value for name, value in discriminator.state_dict().items()}
        names = [f"discriminator.{name}" for name in left_out]
        checkpoint = {"state_dict": state, "transfergen": {"config": {"discriminator": config}}}
        leave_out(checkpoint, names)
        SafeCheckpointIO().save_checkpoint(checkpoint, folder / artefacts.LAST_CHECKPOINT)
    return str(folder)


def saved_weights(run):
    """The weights and biases in the last checkpoint of a run."""
    state = torch.load(run / artefacts.LAST_CHECKPOINT, weights_only=True)["state_dict"]
    return {name: tensor for name, tensor in state.items() if name.endswith(("weight", "bias"))}


def test_both_networks_start_from_a_run(tmp_path, caplog):
    old = DCGAN(**SMALL_DCGAN), DCGANDiscriminator(resolution=32, width=4)
    new = DCGAN(**SMALL_DCGAN), DCGANDiscriminator(resolution=32, width=4)
    run = save_run(tmp_path, generator=old[0], discriminator=old[1])
    initialise(*new, init_from(run, run))
    assert all(map(equal, old, new))
    assert not caplog.records


@pytest.mark.parametrize("kind", ["generator", "discriminator"])
def test_a_source_of_other_channels_is_refused_and_one_of_another_aspect_is_not(tmp_path, kind, caplog):
    run = save_run(tmp_path, generator=DCGAN(**SMALL_DCGAN), discriminator=DCGANDiscriminator(resolution=32, width=4))
    given = init_from(**{"generator": None, "discriminator": None, kind: run})

    def networks(**shape):
        return DCGAN(**SMALL_DCGAN, **shape), DCGANDiscriminator(resolution=32, width=4, **shape)

    message = rf"^init_from\.{kind}=.* images of 3 channels, and this run's have 1; set data\.channels=3"
    with pytest.raises(ValueError, match=message):
        initialise(*networks(image_channels=1), given)
    initialise(*networks(aspect=(2, 1)), given)
    assert len(caplog.text.splitlines()) == 2  # a line for the layer whose maps have another shape


def test_a_training_starts_from_a_run_and_does_not_need_it_when_resumed(tmp_path):
    generator, discriminator = DCGAN(resolution=32, width=8), DCGANDiscriminator(resolution=32, width=8)
    config = DCGAN_CONFIG | {"width": 8, "low_pass": True}
    source = save_run(tmp_path / "source", generator=generator, discriminator=discriminator, config=config)
    options = [*ANY_MODEL, *SMALL_MODELS["dcgan"], f"init_from.generator={source}", f"init_from.discriminator={source}"]
    options += ["optimizer.generator.lr=0", "optimizer.discriminator.lr=0", "max_images=8"]
    code, _, err = train(tmp_path / "run", *options, small=False)
    assert code == 0, err
    (line,) = [line for line in (tmp_path / "run" / "train.log").read_text().splitlines() if "init_from" in line]
    assert "generator.low_pass is true in the source and false here; set generator.low_pass=true" in line
    saved = saved_weights(tmp_path / "run")
    for name, network in (("generator", generator), ("discriminator", discriminator)):
        for key, tensor in network.named_parameters(name):
            torch.testing.assert_close(saved[key], tensor.detach(), msg=key)
    shutil.rmtree(source)
    code, _, err = train(tmp_path / "run", f"resume={tmp_path / 'run'}", "max_images=16", small=False)
    assert code == 0, err


def test_settings_are_unseen_if_all_tensors_have_the_shapes_that_they_would_have_otherwise():
    ours = DCGAN_CONFIG | {**SMALL_DCGAN, "aspect": [1, 1], "low_pass": False}
    theirs = DCGAN_CONFIG | {"resolution": 48, "width": 8, "aspect": [2, 1], "low_pass": True}  # 48 px are for 4:3
    assert unseen_settings(theirs, ours) == {"low_pass": True}
    older = DCGAN_CONFIG | SMALL_DCGAN  # than the settings `aspect` and `low_pass`, which then have their defaults
    assert unseen_settings(older, ours | {"low_pass": True}) == {"low_pass": False}
    assert unseen_settings(older, ours) == {}
    assert unseen_settings(ours, ours) == {}
    assert unseen_settings({"_target_": "transfergen.networks.generators.resnet.ResNet", "low_pass": True}, ours) == {}


def on_vgg(weights):
    """A small discriminator on a frozen, pretrained trunk."""
    network = VGGDiscriminator(VGG(cut="relu2_2", weights=str(weights)), resolution=32, hidden=8)
    network.freeze(network.blocks)
    return network


def test_a_trunk_that_a_checkpoint_leaves_out_is_no_difference(tmp_path, vgg_weights, caplog):
    old, new = on_vgg(vgg_weights), on_vgg(vgg_weights)
    run = save_run(tmp_path, discriminator=old, left_out=old.frozen_names(*old.backbones))
    initialise(DCGAN(**SMALL_DCGAN), new, init_from(discriminator=run))
    assert equal(old, new)
    assert new.backbones[0].pretrained
    assert not caplog.records


def test_another_trunk_than_the_one_that_a_checkpoint_leaves_out_is_warned_of(tmp_path, vgg_weights, caplog):
    old = on_vgg(vgg_weights)
    other = VGGDiscriminator(VGG(cut="relu2_2", weights="random"), resolution=32, hidden=8)
    run = save_run(tmp_path, discriminator=old, left_out=old.frozen_names(*old.backbones))
    initialise(DCGAN(**SMALL_DCGAN), other, init_from(discriminator=run))
    (record,) = caplog.records
    assert record.getMessage().startswith(f"init_from.discriminator={run}: the frozen trunk's weights are not those ")


def test_a_trunk_with_fewer_blocks_than_the_sources_cannot_be_compared(tmp_path, vgg_weights, caplog):
    old = on_vgg(vgg_weights)
    shallower = VGGDiscriminator(VGG(cut="relu1_2", weights=str(vgg_weights)), resolution=32, hidden=8)
    run = save_run(tmp_path, discriminator=old, left_out=old.frozen_names(*old.backbones))
    initialise(DCGAN(**SMALL_DCGAN), shallower, init_from(discriminator=run))
    assert "the frozen trunk" not in caplog.text


def test_a_trunk_that_has_trained_is_no_longer_the_pretrained_one(tmp_path, vgg_weights):
    old, new = on_vgg(vgg_weights), on_vgg(vgg_weights)
    with torch.no_grad():
        next(old.backbones[0].parameters()).add_(0.1)
    initialise(DCGAN(**SMALL_DCGAN), new, init_from(discriminator=save_run(tmp_path, discriminator=old)))
    assert equal(old, new)
    assert not new.backbones[0].pretrained


@pytest.mark.parametrize("transfer", [[], ["transfer=fine_tuning", "transfer.trunk=gradual"]])
def test_checkpoints_of_a_training_that_starts_from_a_trained_trunk_hold_it(tmp_path, vgg_weights, transfer):
    old = on_vgg(vgg_weights)
    with torch.no_grad():
        next(old.backbones[0].parameters()).add_(0.1)
    source = save_run(tmp_path / "source", discriminator=old)
    trunk = [f"backbone.weights={vgg_weights}", "backbone.cut=relu2_2", "discriminator.hidden=8"]
    options = [*ANY_MODEL, *trunk, f"init_from.discriminator={source}", "max_images=8"]
    code, _, err = train(tmp_path / "run", *options, *transfer, small=False)
    assert code == 0, err
    expected = {f"discriminator.{name}": p for name, p in old.named_parameters() if name.startswith("backbone.blocks.")}
    for images in (8, 16):
        saved = saved_weights(tmp_path / "run")
        assert all(torch.equal(saved[name], tensor) for name, tensor in expected.items()), images
        if images == 8:
            code, _, err = train(tmp_path / "run", f"resume={tmp_path / 'run'}", "max_images=16", small=False)
            assert code == 0, err


def vision_aided():
    trunk = VGG(arch="vgg11", cut="relu2_1", taps=["relu1_1"], weights="random")
    ordinary = DCGANDiscriminator(resolution=32, width=4)
    return VisionAidedDiscriminator(ordinary, {"vgg11": trunk}, resolution=32, channels=4, width=4)


def test_projections_that_come_from_another_run_are_not_standardised_again(tmp_path):
    old, new = vision_aided(), vision_aided()
    real, fake = torch.rand(2, 8, 3, 32, 32)
    old.calibrate(real)
    old.grow(real, fake)
    initialise(DCGAN(**SMALL_DCGAN), new, init_from(discriminator=save_run(tmp_path, discriminator=old)))
    new.calibrate(fake)
    assert equal(old, new)
    assert new.joined == []  # the networks join anew


def test_a_discriminator_that_no_network_has_joined_becomes_the_ordinary_part_of_one_that_they_join(tmp_path):
    old, new = DCGANDiscriminator(resolution=32, width=4), vision_aided()
    heads = {name: tensor.clone() for name, tensor in new.judges.state_dict().items()}
    initialise(DCGAN(**SMALL_DCGAN), new, init_from(discriminator=save_run(tmp_path, discriminator=old)))
    assert equal(old, new.ordinary)
    assert all(torch.equal(tensor, heads[name]) for name, tensor in new.judges.state_dict().items())


class PublicGenerator(nn.Module):
    """netG of PyTorch's examples, in its names."""

    def __init__(self, nz=100, ngf=64):
        super().__init__()
        widths = [nz, ngf * 8, ngf * 4, ngf * 2, ngf]
        layers = []
        for i, (c_in, c_out) in enumerate(pairwise(widths)):
            stride, padding = (2, 1) if i else (1, 0)
            layers += [
                nn.ConvTranspose2d(c_in, c_out, 4, stride, padding, bias=False),
                nn.BatchNorm2d(c_out),
                nn.ReLU(),
            ]
        self.main = nn.Sequential(*layers, nn.ConvTranspose2d(ngf, 3, 4, 2, 1, bias=False), nn.Tanh())


class PublicDiscriminator(nn.Module):
    """netD of PyTorch's examples, in its names."""

    def __init__(self, ndf=64):
        super().__init__()
        layers = [nn.Conv2d(3, ndf, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
        for factor in (1, 2, 4):
            c_in, c_out = ndf * factor, ndf * factor * 2
            layers += [nn.Conv2d(c_in, c_out, 4, 2, 1, bias=False), nn.BatchNorm2d(c_out), nn.LeakyReLU(0.2)]
        self.main = nn.Sequential(*layers, nn.Conv2d(ndf * 8, 1, 4, 1, 0, bias=False), nn.Sigmoid())


@pytest.mark.parametrize("parallel", [False, True])
def test_weights_of_the_public_dcgan_make_the_same_images_and_logits_here(tmp_path, parallel):
    public = PublicGenerator().eval(), PublicDiscriminator().eval()
    files = []
    for network in public:
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.uniform_(part.running_mean)
        files.append(str(tmp_path / f"{type(network).__name__}.pth"))
        torch.save((nn.DataParallel(network) if parallel else network).state_dict(), files[-1])
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = compose("train", overrides=["init_from=pytorch_dcgan"]).init_from
    generator, discriminator = DCGAN().eval(), DCGANDiscriminator().eval()
    nn.init.zeros_(discriminator.layers[0].bias)  # which theirs does not have
    nn.init.zeros_(discriminator.layers[-1].bias)
    initialise(generator, discriminator, {**config, "generator": files[0], "discriminator": files[1]})
    z = torch.randn(2, 100)
    images = public[0].main(z[:, :, None, None])
    torch.testing.assert_close(generator(z), images)
    probability = public[1].main(images).flatten(1)
    torch.testing.assert_close(discriminator(images).sigmoid(), probability)


def test_classes_to_start_from_may_be_given_by_their_names(tmp_path):
    settings = {"resolution": 32, "z_dim": 8, "width": 4, "class_dim": 4}
    config = {"_target_": "transfergen.networks.generators.resnet.ResNet", **settings, "num_classes": 3}
    source, names = ResNet(**settings, num_classes=3), ["cat", "dog", "eel"]
    save_generator(tmp_path, source, config, ema=True, images_seen=1, classes=names)
    network = ResNet(**settings, num_classes=2)
    initialise(network, None, init_from(str(tmp_path)) | {"classes": ["eel", {"cat": 1, "dog": 3}]})
    cat, dog, eel = source.embedding.weight.detach()
    torch.testing.assert_close(network.embedding.weight.detach(), torch.stack([eel, cat / 4 + 3 * dog / 4]))
    with pytest.raises(
        ValueError, match=r"^init_from\.classes=\[cow\]: the source has no class cow, but cat, dog, eel$"
    ):
        initialise(network, None, init_from(str(tmp_path)) | {"classes": ["cow"]})


def test_classes_to_start_from_need_a_source_that_has_some(tmp_path):
    save_file(DCGAN(**SMALL_DCGAN).state_dict(), tmp_path / "g.safetensors")
    with pytest.raises(ValueError, match=r"^init_from\.classes=\[0\]: .*set init_from\.generator$"):
        initialise(DCGAN(**SMALL_DCGAN), None, init_from() | {"classes": [0]})
    chosen = init_from(str(tmp_path / "g.safetensors")) | {"classes": [0]}
    with pytest.raises(ValueError, match=r"^init_from\.classes=\[0\]: this generator has no classes; leave it out"):
        initialise(DCGAN(**SMALL_DCGAN), None, chosen)
    with pytest.raises(ValueError, match=r"^init_from\.classes=\[0\]: init_from\.generator=.* has no classes; leave"):
        initialise(ResNet(resolution=32, z_dim=8, width=4, num_classes=2), None, chosen)


def test_weights_of_which_no_tensor_fits_are_refused_with_what_was_found_and_expected(tmp_path):
    file = tmp_path / "public.safetensors"
    save_file(PublicGenerator(8, 4).state_dict(), file)
    expected = r"main\.0\.weight \(8, 32, 4, 4\), expected layers\.0\.weight \(8, 16, 4, 4\).*init_from\.keys"
    with pytest.raises(ValueError, match=expected):
        initialise(DCGAN(**SMALL_DCGAN), None, init_from(str(file)))


def test_damaged_weights_are_refused(tmp_path):
    generator = DCGAN(**SMALL_DCGAN)
    state = generator.state_dict()
    state["layers.0.weight"][0] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(ValueError, match=r"damaged: layers\.0\.weight holds NaN"):
        initialise(generator, None, init_from(str(tmp_path / "nan.safetensors")))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nowhere", "no such folder or file, and this is no name of a model"),
        ("nowhere.pth", "there is no such file"),
        ("owner/model", "cannot download https://huggingface.co/owner/model/"),
        ("https://host/file.pth", "download the file yourself"),
        ("pickle.pt", "refused, it holds more than tensors"),
        ("empty", "there is no "),
    ],
)
@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_a_source_that_cannot_be_read_is_one_line_with_its_setting(tmp_path, monkeypatch, where, message, network):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps({"a": re.compile("x")}))
    (tmp_path / "empty").mkdir()
    networks = DCGAN(**SMALL_DCGAN), DCGANDiscriminator(resolution=32, width=4)
    with pytest.raises(ValueError, match=message) as error:
        initialise(*networks, init_from(**{network: where}))
    assert str(error.value).startswith(f"init_from.{network}=")
    assert "\n" not in str(error.value)


def test_a_model_of_the_hub_is_downloaded_by_name(tmp_path, monkeypatch):
    generator = DCGAN(**SMALL_DCGAN)
    save_generator(tmp_path, generator, DCGAN_CONFIG | SMALL_DCGAN, ema=True, images_seen=1)
    asked = []

    def download(name, file):
        asked.append((name, file))
        return str(tmp_path / file)

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda url, **options: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    other = DCGAN(**SMALL_DCGAN)
    initialise(other, None, init_from("owner/model"))
    assert equal(other, generator)
    loaded, *_ = load_pretrained("owner/model", "transfer.teacher")
    assert equal(loaded, generator)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert set(asked) == {("owner/model", "generator.safetensors"), ("owner/model", "generator.json")}


def test_a_model_of_the_hub_names_its_classes_and_settings_if_it_has_them(tmp_path, monkeypatch, caplog):
    settings = {"resolution": 32, "width": 2, "z_dim": 8, "num_classes": 3, "class_dim": 4}
    config = {"_target_": "transfergen.networks.generators.resnet.ResNet", **settings, "eps": 1e-4}
    source = ResNet(**settings)
    save_generator(tmp_path, source, config, ema=True, images_seen=1, classes=["cat", "dog", "eel"])
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda url, **options: None)
    monkeypatch.setattr(
        "huggingface_hub.hf_hub_download", lambda name, file: str((tmp_path / file).resolve(strict=True))
    )
    one = ResNet(**settings | {"num_classes": 1})
    ours = config | {"num_classes": 1, "eps": 1e-5}
    initialise(one, None, init_from("owner/model") | {"classes": ["dog"]}, settings=ours)
    assert torch.equal(one.embedding.weight[0], source.embedding.weight[1])
    assert "generator.eps is 0.0001 in the source and 1e-05 here" in caplog.text
    (tmp_path / artefacts.GENERATOR_METADATA).unlink()  # as of a model of others
    initialise(one, None, init_from("owner/model") | {"classes": [2]})
    assert torch.equal(one.embedding.weight[0], source.embedding.weight[2])


NARROW = {
    "resolution": 32,
    "z_dim": 8,
    "width": 4,
    "spectral_norm": True,
    "class_dim": 4,
    "num_classes": 3,
    "eps": 1e-4,
}
RESIDUAL = {"generator": "generators.resnet.ResNet", "discriminator": "discriminators.resnet.ResNetDiscriminator"}


@pytest.mark.parametrize(
    ("name", "listed"),
    [
        (
            "generator",
            "generator=resnet data.resolution=32 generator.z_dim=8 generator.width=4 generator.num_classes=null "
            "generator.spectral_norm=true generator.class_dim=4 generator.eps=0.0001",
        ),
        (
            "discriminator",
            "discriminator=resnet data.resolution=32 discriminator.width=4 discriminator.num_classes=null",
        ),
    ],
)
def test_a_run_of_which_nothing_fits_is_refused_with_the_settings_that_build_its_network(tmp_path, name, listed):
    kind = get_target(f"transfergen.networks.{RESIDUAL[name]}")
    settings = {key: value for key, value in NARROW.items() if key in signature(kind).parameters}
    config = {"_target_": f"transfergen.networks.{RESIDUAL[name]}", **settings}
    run = save_run(tmp_path, **{name: kind(**settings), "config": config})
    networks = DCGAN(**SMALL_DCGAN), DCGANDiscriminator(resolution=32, width=4)
    with pytest.raises(ValueError, match=rf"^init_from\.{name}=.*: none of its tensors fits: ") as error:
        initialise(*networks, init_from(**{name: run}))
    assert str(error.value).partition("; set ")[2] == listed
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        composed = compose("train", overrides=["model=dcgan", *listed.split()])
    composed[name].num_classes = 3
    built = instantiate(composed[name])
    built.load_state_dict(kind(**settings).state_dict())  # strict


def test_a_source_generator_that_does_not_exist_is_refused_with_its_setting(tmp_path):
    with pytest.raises(ValueError, match=r"transfer\.teacher=.*it holds no generator\.json"):
        load_pretrained(str(tmp_path), "transfer.teacher")


def test_the_first_rule_that_matches_a_whole_name_renames_it():
    state = {"a.weight": torch.zeros(1), "b.weight": torch.zeros(2)}
    rules = [{"theirs": r"a\.(.+)", "ours": r"c.\1"}, {"theirs": ".*", "ours": "never"}]
    assert list(rename(state, rules[:1], "init_from.generator")) == ["c.weight", "b.weight"]
    with pytest.raises(ValueError, match=r"init_from\.keys.*theirs"):
        rename(state, [{"theirs": "(", "ours": ""}], "init_from.generator")


def test_a_discriminator_for_a_model_without_one_is_refused():
    with pytest.raises(ValueError, match=r"this model has no discriminator; set init_from\.discriminator=null"):
        initialise(DCGAN(**SMALL_DCGAN), None, init_from(discriminator="x"))


def test_a_folder_without_a_discriminator_is_refused_by_its_name():
    line = r"^init_from\.discriminator=builtin:cifar10: there is no checkpoints/last\.ckpt in it, .*; give the folder"
    with pytest.raises(ValueError, match=line):
        initialise(DCGAN(**SMALL_DCGAN), DCGANDiscriminator(), init_from(discriminator="builtin:cifar10"))
