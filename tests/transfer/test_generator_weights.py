import re
import shutil

import pytest
import torch
from runs import ANY_MODEL, SMALL_MODELS, train
from torch import nn

from transfergen.networks.generators.biggan_deep import BigGANDeep
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.networks.generators.fastgan import FastGAN
from transfergen.networks.generators.resnet import ResNet
from transfergen.networks.layers.conditional_norm import ConditionalBatchNorm2d
from transfergen.runs.artefacts import LAST_CHECKPOINT
from transfergen.runs.generator_files import load_generator, save_generator
from transfergen.transfer.generator_weights import mix_classes, release_blocks, select_weights

SMALL = {"resolution": 64, "z_dim": 12, "width": 4}
BIGGAN = SMALL | {"num_classes": 3, "class_dim": 6, "hierarchical": True, "attention": 16, "spectral_norm": True}
GENERATORS = {
    "dcgan": lambda: DCGAN(**SMALL),
    "fastgan": lambda: FastGAN(**SMALL),
    "resnet": lambda: ResNet(**SMALL),
    "sagan": lambda: ResNet(**SMALL, num_classes=3, attention=32),
    "biggan": lambda: ResNet(**BIGGAN),
    "biggan_deep": lambda: BigGANDeep(z_dim=12, width=4, num_classes=3, class_dim=6),
}


def trained(generator):
    """Names of the parameters that train."""
    return {name for name, p in generator.named_parameters() if p.requires_grad}


def parameters_of(generator, *kinds):
    return {
        f"{name}.{own}"
        for name, module in generator.named_modules()
        if isinstance(module, kinds)
        for own, _ in module.named_parameters()
    }


@pytest.mark.parametrize("build", GENERATORS.values(), ids=GENERATORS)
def test_stages_lead_from_the_first_maps_to_the_pixels_and_leave_out_what_comes_before(build):
    generator = build()
    stages = generator.stages()
    expected = [8, 16, 32, 64]
    if isinstance(generator, BigGANDeep):  # two blocks a size
        expected = [4, 8, 8, 16, 16, 32, 32, 64, 64, 128]
    assert len(stages) == len(expected)
    inside = [id(p) for stage in stages for module in stage for p in module.parameters()]
    assert len(inside) == len(set(inside))
    before = {name.split(".")[0] for name, p in generator.named_parameters() if id(p) not in set(inside)}
    assert before <= {"linear", "start", "embedding", "layers"}
    sizes = []
    for stage in stages:
        stage[0].register_forward_hook(lambda module, args, maps: sizes.append(maps.shape[-1]))
    if not isinstance(generator, DCGAN):  # whose stages share its layers, and are called one by one
        generator.eval()(torch.randn(2, generator.z_dim), torch.tensor([0, 1]))
        assert sizes == expected


@pytest.mark.parametrize("build", GENERATORS.values(), ids=GENERATORS)
def test_norms_and_the_embeddings_of_classes_train_alone(build):
    generator = build()
    select_weights(generator, "norms", 1)
    assert trained(generator) == parameters_of(generator, nn.BatchNorm2d, ConditionalBatchNorm2d, nn.Embedding)
    assert trained(generator) < {name for name, _ in generator.named_parameters()}


@pytest.mark.parametrize("build", GENERATORS.values(), ids=GENERATORS)
def test_singular_values_train_alone_with_the_embeddings_of_classes(build):
    generator = build()
    weights = [name for name, p in generator.named_parameters() if p.ndim > 1]
    tables = parameters_of(generator, nn.Embedding)
    select_weights(generator, "singular_values", 1)
    assert len(trained(generator) - tables) == len(set(weights) - tables)
    assert all(p.ndim == 1 for name, p in generator.named_parameters() if p.requires_grad and name not in tables)
    assert tables <= trained(generator)


@pytest.mark.parametrize("build", GENERATORS.values(), ids=GENERATORS)
def test_the_last_blocks_train_with_what_makes_the_pixels(build):
    generator = build()
    select_weights(generator, "last_k", 2)
    last = {id(p) for stage in generator.stages()[-2:] for module in stage for p in module.parameters()}
    tables = parameters_of(generator, nn.Embedding)
    expected = {name for name, p in generator.named_parameters() if id(p) in last or name in tables}
    assert trained(generator) == expected
    pixels = [name for name, p in generator.named_parameters() if name.startswith("to_rgb") or 3 in p.shape[:2]]
    assert set(pixels[-1:]) <= expected


def test_all_of_a_generator_that_is_not_selected_from_trains():
    generator = GENERATORS["biggan"]()
    for selection in ("all", "gradual"):
        select_weights(generator, selection, 1)
        assert all(p.requires_grad for p in generator.parameters())


def test_blocks_are_released_from_the_pixels_on_and_at_last_everything():
    generator = GENERATORS["biggan"]()
    norms = parameters_of(generator, nn.BatchNorm2d, ConditionalBatchNorm2d, nn.Embedding)
    counts = []
    for blocks in range(6):
        release_blocks(generator, blocks)
        counts.append(len(trained(generator)))
        assert norms <= trained(generator)
    assert counts[0] == len(norms)
    assert counts == sorted(set(counts))
    assert counts[5] == len(list(generator.parameters()))
    assert "linear.parametrizations.weight.original" not in norms
    release_blocks(generator, 4)
    assert "linear.parametrizations.weight.original" not in trained(generator)


def test_what_a_generator_does_not_have_is_refused_with_the_override():
    with pytest.raises(
        ValueError, match=r"^transfer\.generator_last_k=5: .* 4 block.*set transfer\.generator_last_k=4"
    ):
        select_weights(GENERATORS["dcgan"](), "last_k", 5)
    bare = GENERATORS["dcgan"]()
    bare.stages = tuple
    with pytest.raises(ValueError, match=r"^transfer\.generator_last_k=1: .* 0 block.*; set transfer\.generator=all$"):
        select_weights(bare, "last_k", 1)
    bare.layers = nn.Sequential(*(layer for layer in bare.layers if not isinstance(layer, nn.BatchNorm2d)))
    with pytest.raises(ValueError, match=r"^transfer\.generator=norms: this generator has none"):
        select_weights(bare, "norms", 1)


def test_classes_are_mixtures_of_the_sources_and_another_source_is_refused():
    source, generator = ResNet(**BIGGAN | {"num_classes": 7}), ResNet(**BIGGAN)
    mix_classes(generator, source.state_dict())
    torch.testing.assert_close(generator.embedding.weight, source.embedding.weight.mean(0).expand(3, -1))
    mixed = r"^transfer\.new_classes=mixture: "
    with pytest.raises(ValueError, match=mixed + "init_from.generator has no embedding.weight of 6 columns"):
        mix_classes(ResNet(**BIGGAN), ResNet(**BIGGAN | {"class_dim": 5}).state_dict())
    with pytest.raises(ValueError, match=mixed + "this generator has no classes"):
        mix_classes(DCGAN(**SMALL), source.state_dict())


BIGGAN_RUN = [*ANY_MODEL, *SMALL_MODELS["biggan"], "data.classes=[0,1,2]", "optimizer.d_steps=1"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A BigGAN of ten classes, saved as a run saves it."""
    settings = {"resolution": 32, "z_dim": 8, "width": 8, "num_classes": 10, "class_dim": 4, "hierarchical": True}
    settings |= {"attention": 16, "spectral_norm": True}
    folder = tmp_path_factory.mktemp("source")
    config = {"_target_": "transfergen.networks.generators.resnet.ResNet"} | settings
    save_generator(folder, ResNet(**settings), config, ema=True, images_seen=0)
    return folder


def run(folder, *overrides):
    code, _, err = train(folder, *BIGGAN_RUN, *overrides, small=False)
    assert code == 0, err
    return load_generator(folder)


def changed(before, after, *, but=("_u", "_v", "running_mean", "running_var", "num_batches_tracked")):
    """Names of the weights that differ by more than rounding."""
    after = after.state_dict()
    return {
        name
        for name, tensor in before.state_dict().items()
        if not name.endswith(but) and (tensor.shape != after[name].shape or (tensor - after[name]).abs().max() > 1e-5)
    }


SELECTED = {
    "norms": r"embedding\.weight|.*\.residual\.[03]\..*|to_rgb\.0\..*",
    "singular_values": r"embedding\.weight|.*(?<!bias)",
}


@pytest.mark.parametrize("selection", SELECTED)
def test_a_training_changes_what_is_selected_and_saves_plain_weights(tmp_path, source, selection):
    found = run(
        *(tmp_path, f"init_from.generator={source}", f"transfer.generator={selection}", "max_images=24"),
        *("ema.halflife_images=0", "optimizer.generator.lr=0.01"),
    )
    names = changed(load_generator(source), found)
    assert names
    assert all(re.fullmatch(SELECTED[selection], name) for name in names)


@pytest.mark.parametrize(
    "options",
    [
        ["transfer.generator=singular_values", "transfer.new_classes=mixture"],
        ["transfer.generator=gradual", "transfer.unfreeze_every_images=16", "transfer.generator_lr_scale=0.5"],
    ],
    ids=["mixture of singular values", "gradual"],
)
def test_a_resumed_run_goes_on_bit_for_bit_without_its_source(tmp_path, source, options):
    gone = shutil.copytree(source, tmp_path / "source")
    options = [f"init_from.generator={gone}", *options]
    run(tmp_path / "whole", *options, "max_images=48")
    run(tmp_path / "parts", *options, "max_images=24")
    shutil.rmtree(gone)
    code, _, err = train(None, f"resume={tmp_path / 'parts'}", "max_images=48", small=False)
    assert code == 0, err
    a, b = (
        torch.load(tmp_path / part / LAST_CHECKPOINT, weights_only=True)["state_dict"] for part in ("whole", "parts")
    )
    assert a.keys() == b.keys()
    assert all(torch.equal(tensor, b[name]) for name, tensor in a.items())
    whole, parts = (load_generator(tmp_path / part) for part in ("whole", "parts"))
    assert all(torch.equal(t, parts.state_dict()[name]) for name, t in whole.state_dict().items())
    assert changed(load_generator(source), whole)


def test_pictures_without_classes_train_one_class_of_a_conditional_generator(tmp_path, source):
    found = run(
        *(tmp_path, f"init_from.generator={source}", "data.num_classes=1", "max_images=8", "optimizer.generator.lr=0"),
        *("discriminator=dcgan", "discriminator.width=4"),
    )
    assert found.num_classes == 1
    table = load_generator(source).embedding.weight.mean(0, keepdim=True)
    torch.testing.assert_close(found.embedding.weight, table)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["transfer.generator_last_k=9", "transfer.generator=last_k"],
            "transfer.generator_last_k=9: this generator has 3",
        ),
        (["transfer.generator=some"], "transfer.generator=some: choose one of all, norms, singular_values, last_k"),
        (["transfer.new_classes=mixture"], "transfer.new_classes=mixture: there are no classes to mix; set init_from"),
        (["transfer.generator_lr_scale=0"], "transfer.generator_lr_scale=0: choose a number, above 0"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(tmp_path, overrides, line):
    code, _, err = train(tmp_path / "run", *BIGGAN_RUN, *overrides, small=False)
    assert code == 2
    assert line in err
    assert err.count("\n") == 1
