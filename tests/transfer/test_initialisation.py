import pickle
import re
import shutil
from itertools import pairwise

import pytest
import torch
from hydra import compose, initialize_config_dir
from runs import ANY_MODEL, SMALL_MODELS, train
from safetensors.torch import save_file
from torch import nn

from transfergen.config import CONF_DIR
from transfergen.networks.discriminators.dcgan import DCGANDiscriminator
from transfergen.networks.discriminators.resnet import ResNetDiscriminator
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.networks.generators.resnet import ResNet
from transfergen.runs import artefacts
from transfergen.runs.generator_files import save_generator
from transfergen.transfer.initialisation import copy_weights, initialise, load_source_generator, renamed

SMALL_DCGAN = {"resolution": 32, "z_dim": 8, "width": 4}


def start(generator=None, discriminator=None, keys=()):
    return {"generator": generator, "discriminator": discriminator, "keys": list(keys)}


def equal(a, b):
    b = b.state_dict()
    return all(torch.equal(value, b[name]) for name, value in a.state_dict().items())


@pytest.fixture
def source_run(tmp_path):
    """A run of eight images."""
    code, _, err = train(tmp_path / "source", *ANY_MODEL, *SMALL_MODELS["dcgan"], "max_images=8", small=False)
    assert code == 0, err
    return tmp_path / "source"


def test_a_run_starts_from_another_runs_average_and_discriminator(tmp_path, source_run, caplog):
    options = [*ANY_MODEL, *SMALL_MODELS["dcgan"], f"init_from.generator={source_run}", "max_images=8", "seed=1"]
    options += [f"init_from.discriminator={source_run}", "optimizer.generator.lr=0", "optimizer.discriminator.lr=0"]
    code, _, err = train(tmp_path / "run", *options, small=False)
    assert code == 0, err
    theirs = torch.load(source_run / artefacts.LAST_CHECKPOINT, weights_only=True)["state_dict"]
    ours = torch.load(tmp_path / "run" / artefacts.LAST_CHECKPOINT, weights_only=True)["state_dict"]
    weights = [name for name in ours if name.endswith(("weight", "bias"))]
    for name in weights:
        source = f"ema.network.{name.removeprefix('generator.')}" if name.startswith("generator.") else name
        torch.testing.assert_close(ours[name], theirs[source], msg=name)
    assert not caplog.records
    shutil.rmtree(source_run)
    code, _, err = train(tmp_path / "run", f"resume={tmp_path / 'run'}", "max_images=16", small=False)
    assert code == 0, err  # what it started from is no longer needed


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


def test_what_differs_is_reported_key_by_key_and_new_classes_start_between_the_old(caplog):
    old = ResNetDiscriminator(resolution=32, width=4, num_classes=3)
    new = ResNetDiscriminator(resolution=32, width=4, num_classes=5)
    fresh = new.embedding.weight.clone()
    report = copy_weights({**old.state_dict(), "extra": torch.zeros(2)}, new, "init_from.discriminator=x")
    assert any(re.match(r"embedding\S+: 3 classes there, 5 here", line) for line in report)
    assert "extra (2,): not used" in report
    original = new.embedding.parametrizations.weight.original
    expected = old.embedding.parametrizations.weight.original.mean(dim=0)
    assert all(torch.equal(row, expected) for row in original)
    assert not torch.equal(new.embedding.weight, fresh)
    message = caplog.records[-1].getMessage()
    assert message.startswith("init_from.discriminator=x: ")
    assert all(line in message for line in report)


def test_layers_of_another_shape_stay_fresh():
    old, new = ResNet(resolution=32, z_dim=8, width=4), ResNet(resolution=32, z_dim=16, width=4)
    linear = new.linear.weight.clone()
    report = copy_weights(old.state_dict(), new, "init_from.generator=x")
    assert report == [
        f"linear.weight: {tuple(old.linear.weight.shape)} there, {tuple(linear.shape)} here: starts fresh"
    ]
    assert torch.equal(new.linear.weight, linear)
    assert torch.equal(new.to_rgb[-2].weight, old.to_rgb[-2].weight)


def test_weights_of_which_nothing_fits_are_refused_with_what_is_there_and_what_was_expected(tmp_path):
    file = tmp_path / "public.safetensors"
    save_file(PublicGenerator(8, 4).state_dict(), file)
    expected = r"main\.0\.weight \(8, 32, 4, 4\), expected layers\.0\.weight \(8, 16, 4, 4\).*init_from\.keys"
    with pytest.raises(ValueError, match=expected):
        initialise(DCGAN(**SMALL_DCGAN), None, start(str(file)))


def test_damaged_weights_are_refused(tmp_path):
    generator = DCGAN(**SMALL_DCGAN)
    state = generator.state_dict()
    state["layers.0.weight"][0] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(ValueError, match=r"damaged: layers\.0\.weight holds NaN"):
        initialise(generator, None, start(str(tmp_path / "nan.safetensors")))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nowhere", "no such folder or file, and no model of the hub"),
        ("nowhere.pth", "there is no such file"),
        ("owner/model", "not to be had from the hub"),
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
        initialise(*networks, start(**{network: where}))
    assert str(error.value).startswith(f"init_from.{network}=")
    assert "\n" not in str(error.value)


def test_a_model_of_the_hub_is_downloaded_by_name(tmp_path, monkeypatch):
    generator = DCGAN(**SMALL_DCGAN)
    config = {"_target_": "transfergen.networks.generators.dcgan.DCGAN", **SMALL_DCGAN}
    save_generator(tmp_path, generator, config, ema=True, images_seen=1)
    asked = []

    def download(name, file):
        asked.append((name, file))
        return str(tmp_path / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    other = DCGAN(**SMALL_DCGAN)
    initialise(other, None, start("owner/model"))
    assert equal(other, generator)
    loaded = load_source_generator("owner/model", "transfer.teacher")
    assert equal(loaded, generator)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert set(asked) == {("owner/model", "generator.safetensors"), ("owner/model", "generator.json")}


def test_a_source_generator_that_is_not_there_is_named_by_its_setting(tmp_path):
    with pytest.raises(ValueError, match=r"transfer\.teacher=.*no generator\.json in it"):
        load_source_generator(str(tmp_path), "transfer.teacher")


def test_the_first_rule_that_matches_a_whole_name_renames_it():
    state = {"a.weight": torch.zeros(1), "b.weight": torch.zeros(2)}
    rules = [{"theirs": r"a\.(.+)", "ours": r"c.\1"}, {"theirs": ".*", "ours": "never"}]
    assert list(renamed(state, rules[:1], "init_from.generator")) == ["c.weight", "b.weight"]
    with pytest.raises(ValueError, match=r"init_from\.keys.*theirs"):
        renamed(state, [{"theirs": "(", "ours": ""}], "init_from.generator")


def test_a_discriminator_for_a_model_without_one_is_refused():
    with pytest.raises(ValueError, match=r"this model has no discriminator; set init_from\.discriminator=null"):
        initialise(DCGAN(**SMALL_DCGAN), None, start(discriminator="x"))


def test_a_trunk_that_a_checkpoint_leaves_out_is_no_difference(tmp_path, vgg_weights):
    trunk = [f"backbone.weights={vgg_weights}", "backbone.cut=relu2_2", "discriminator.hidden=8"]
    assert train(tmp_path / "first", *ANY_MODEL, *trunk, "max_images=8", small=False)[0] == 0
    start = f"init_from.discriminator={tmp_path / 'first'}"
    code, _, err = train(tmp_path / "second", *ANY_MODEL, *trunk, start, "max_images=8", small=False)
    assert code == 0, err
    assert "tensors taken over" not in (tmp_path / "second" / "train.log").read_text()


def test_a_tuned_trunk_that_a_run_starts_from_is_in_all_its_checkpoints(tmp_path, vgg_weights):
    trunk = [f"backbone.weights={vgg_weights}", "backbone.cut=relu2_2", "discriminator.hidden=8"]
    tuned = [*ANY_MODEL, *trunk, "transfer=fine_tuning", "max_images=8"]
    assert train(tmp_path / "trainable", *tuned, small=False)[0] == 0
    start = [f"init_from.discriminator={tmp_path / 'trainable'}", "max_images=8"]
    code, _, err = train(tmp_path / "run", *ANY_MODEL, *trunk, *start, small=False)
    assert code == 0, err

    def trunk_of(run):
        state = torch.load(tmp_path / run / artefacts.LAST_CHECKPOINT, weights_only=True)["state_dict"]
        return {name: tensor for name, tensor in state.items() if ".backbone.blocks." in name}

    for images in (16, 24):
        code, _, err = train(tmp_path / "run", f"resume={tmp_path / 'run'}", f"max_images={images}", small=False)
        assert code == 0, err
        assert trunk_of("run").keys() == trunk_of("trainable").keys() != set()
        assert all(torch.equal(tensor, trunk_of("trainable")[name]) for name, tensor in trunk_of("run").items())


def test_a_vision_aided_discriminator_starts_from_another(tmp_path):
    small = [*ANY_MODEL, *SMALL_MODELS["vision_aided"], "max_images=8"]
    assert train(tmp_path / "first", *small, small=False)[0] == 0
    start = [f"init_from.discriminator={tmp_path / 'first'}", "optimizer.discriminator.lr=0"]
    code, _, err = train(tmp_path / "second", *small, *start, "seed=1", small=False)
    assert code == 0, err
    theirs, ours = (
        torch.load(tmp_path / run / artefacts.LAST_CHECKPOINT, weights_only=True)["state_dict"]
        for run in ("first", "second")
    )
    projections = [name for name in ours if ".mix_channels." in name]
    assert projections
    assert all(
        torch.equal(ours[name], theirs[name]) for name in projections
    )  # standardize_features there, and once only
