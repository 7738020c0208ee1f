import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import get_model
from torchvision.models.vgg import cfgs, make_layers
from torchvision.transforms import Normalize

from transfergen.networks.backbones.vgg import VGG, layer_names

ARCHS = [f"vgg{depth}{norm}" for depth in (11, 13, 16, 19) for norm in ("", "_bn")]


def trunk_without_data(arch):
    """torchvision's layers on the meta device, which takes no time."""
    with torch.device("meta"):
        return get_model(arch, weights=None).features


def test_layers_of_vgg19_are_named_as_in_the_paper():
    assert " ".join(layer_names(trunk_without_data("vgg19"))) == (
        "conv1_1 relu1_1 conv1_2 relu1_2 pool1 "
        "conv2_1 relu2_1 conv2_2 relu2_2 pool2 "
        "conv3_1 relu3_1 conv3_2 relu3_2 conv3_3 relu3_3 conv3_4 relu3_4 pool3 "
        "conv4_1 relu4_1 conv4_2 relu4_2 conv4_3 relu4_3 conv4_4 relu4_4 pool4 "
        "conv5_1 relu5_1 conv5_2 relu5_2 conv5_3 relu5_3 conv5_4 relu5_4 pool5"
    )


@pytest.mark.parametrize("arch", ARCHS)
def test_names_tell_the_kind_of_torchvisions_layer_and_the_convolution_before_it(arch):
    kinds = {nn.Conv2d: "conv", nn.BatchNorm2d: "bn", nn.ReLU: "relu", nn.MaxPool2d: "pool"}
    features = trunk_without_data(arch)
    names = layer_names(features)
    assert [name.rstrip("_12345") for name in names] == [kinds[type(layer)] for layer in features]
    number = ""
    for name in names:
        if name.startswith("conv"):
            number = name.removeprefix("conv")
        assert name.endswith(number if "pool" not in name else number[0]), name


@pytest.mark.parametrize("arch", ["vgg11", "vgg11_bn", "vgg19"])
def test_channels_and_strides_are_those_of_the_real_output_at_every_cut(arch):
    for cut in layer_names(trunk_without_data(arch)):
        with torch.device("meta"):
            backbone = VGG(arch=arch, cut=cut, weights="random")
        side = 64 // backbone.strides[0]
        assert backbone.shapes(64) == [(backbone.channels[0], side, side)], cut


def test_the_reference_cut_gives_512x4x4_at_64_pixels():
    with torch.device("meta"):
        assert VGG(weights="random").shapes(64) == [(512, 4, 4)]


@pytest.fixture(scope="module")
def networks():
    """The layers of two VGGs of torchvision, with batch statistics that would reveal a forgotten buffer."""
    found = {f"vgg11{norm}": make_layers(cfgs["A"], batch_norm=bool(norm)).eval() for norm in ("", "_bn")}
    for layer in [*found["vgg11"], *found["vgg11_bn"]]:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)  # maps that do not fade with depth
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    return found


@pytest.fixture(scope="module")
def files(networks, tmp_path_factory):
    """Weights up to relu4_1 alone: .safetensors in torchvision's naming, .pth without the prefix."""
    folder = tmp_path_factory.mktemp("vgg")
    for arch, network in networks.items():
        state = network[: layer_names(network).index("relu4_1") + 1].state_dict()
        save_file({f"features.{name}": tensor for name, tensor in state.items()}, folder / f"{arch}.safetensors")
        torch.save(state, folder / f"{arch}.pth")
    return folder


@pytest.mark.parametrize("arch", ["vgg11", "vgg11_bn"])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_trunk_from_a_file_computes_what_torchvisions_does(arch, suffix, networks, files):
    backbone = VGG(arch=arch, cut="relu4_1", weights=str(files / f"{arch}.{suffix}")).eval()
    images = torch.rand(2, 3, 32, 32)
    normalised = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))(images)
    features = networks[arch]
    expected = features[: layer_names(features).index("relu4_1") + 1](normalised)
    torch.testing.assert_close(backbone(images * 2 - 1), [expected], rtol=1e-4, atol=1e-4)


TAPS = ("conv1_1", "relu2_1", "pool2", "conv3_2")


@pytest.mark.parametrize("arch", ["vgg11", "vgg11_bn"])
def test_taps_are_what_torchvisions_layers_give_wherever_the_trunk_is_cut(arch, networks, files):
    backbone = VGG(arch=arch, cut="relu4_1", taps=TAPS, weights=str(files / f"{arch}.pth")).eval()
    names, x, expected = layer_names(networks[arch]), torch.rand(2, 3, 32, 32), []
    images = x * 2 - 1
    x = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))(x)
    for name, layer in zip(names[: names.index("relu4_1") + 1], networks[arch], strict=False):
        x = layer(x.clone())  # torchvision's activations write over what they are given
        if name in (*TAPS, "relu4_1"):
            expected.append(x)
    assert backbone.shapes(32) == [tuple(m.shape[1:]) for m in expected]
    assert list(backbone.channels) == [m.shape[1] for m in expected]
    assert [32 // stride for stride in backbone.strides] == [m.shape[2] for m in expected]
    for blocks in range(len(backbone.blocks) + 1):
        state = backbone.prefix(images, blocks)
        torch.testing.assert_close(backbone.suffix(state, blocks), expected, rtol=1e-4, atol=1e-4)


def test_a_block_ends_at_each_tap_and_at_each_pooling_but_for_one_behind_a_tap():
    with torch.device("meta"):
        plain = VGG(arch="vgg11", cut="relu3_2", weights="random")
        tapped = VGG(arch="vgg11", cut="relu3_2", taps=("relu1_1", "conv3_1"), weights="random")
    assert [len(block) for block in plain.blocks] == [3, 3, 4]
    assert [len(block) for block in tapped.blocks] == [2, 4, 1, 3]
    assert tapped.taps == (0, 2, 3)
    assert plain.taps == (2,)


def test_taps_may_come_in_any_order_and_those_after_the_cut_are_left_out():
    with torch.device("meta"):
        backbone = VGG(arch="vgg11", cut="relu2_1", taps=("relu3_2", "relu2_1", "pool1", "relu1_1"), weights="random")
    assert backbone.channels == (64, 64, 128)
    assert backbone.strides == (1, 2, 2)


def test_random_weights_begin_as_torchvisions_do():
    convolution, norm, _ = VGG(arch="vgg11_bn", cut="relu1_1", weights="random").blocks[0]
    assert convolution.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.1)
    assert not convolution.bias.any()
    torch.testing.assert_close(norm.state_dict(), nn.BatchNorm2d(64).state_dict(), rtol=0, atol=0)


def test_the_pretrained_layers_hold_the_files_tensors(vgg_weights):
    backbone = VGG(arch="vgg19", cut="relu3_4", weights=str(vgg_weights))
    published = load_file(vgg_weights)
    convolutions = [layer for block in backbone.blocks for layer in block if isinstance(layer, nn.Conv2d)]
    indices = sorted(int(name.split(".")[1]) for name in published if name.endswith("weight"))
    assert len(indices) == len(convolutions) == 8
    for index, layer in zip(indices, convolutions, strict=True):
        assert torch.equal(layer.weight, published[f"features.{index}.weight"].float())
        assert torch.equal(layer.bias, published[f"features.{index}.bias"].float())


def test_a_cut_deeper_than_the_file_goes_is_refused(vgg_weights):
    with (
        torch.device("meta"),
        pytest.raises(ValueError, match=r"^weights=.*conv3_4\.safetensors.* 4 of 20 .* missing, 19\.weight"),
    ):
        VGG(arch="vgg19", cut="conv4_2", weights=str(vgg_weights))


def test_a_file_of_another_architecture_is_refused(files):
    with torch.device("meta"), pytest.raises(ValueError, match=r"^weights=.*another architecture"):
        VGG(arch="vgg11_bn", cut="pool2", weights=str(files / "vgg11.safetensors"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cut": "relu3_4"}, r"^cut=relu3_4: vgg11 has no such layer; it has conv1_1, relu1_1, pool1"),
        ({"arch": "vgg12"}, r"^arch=vgg12: choose vgg11"),
        ({"arch": "resnet18"}, r"^arch=resnet18"),
        ({"taps": ("relu1_2",)}, r"^taps=\['relu1_2'\]: choose layers of vgg11; it has conv1_1"),
        ({"weights": "imagnet"}, r"^weights=imagnet: there is no such file"),
    ],
)
def test_what_does_not_exist_is_refused_by_the_name_of_the_argument(settings, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        VGG(**{"arch": "vgg11", "cut": "pool1", "weights": "random"} | settings)
