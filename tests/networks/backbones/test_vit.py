import pytest
import timm
import torch
from torchvision.transforms import Normalize
from vits import DINO, DINOV2, DINOV2_LARGE, SIZES, layout, random_file, tokens

from transfergen.networks.backbones.base import IMAGENET_MEAN, IMAGENET_STD
from transfergen.networks.backbones.vit import ViT, build_vit


@pytest.mark.parametrize(("name", "size"), [(DINO, 224), (DINO, 48), (DINOV2, 56)])
def test_taps_are_the_networks_tokens_with_the_class_token_added(name, size, tmp_path):
    state = random_file(tmp_path / "published.pth", name, depth=3)
    taps = (0, 1, 2)  # so the file has a block too many
    backbone = ViT(name=name, taps=taps, weights=str(tmp_path / "published.pth"), input_size=size).eval()
    images = torch.rand(1, 3, size, size)
    seen = Normalize(IMAGENET_MEAN, IMAGENET_STD)(images)
    side = size // SIZES[name][3]
    maps = backbone(images * 2 - 1)
    assert backbone.shapes((32, 64)) == [(384, side, side)] * 3
    for found, x in zip(maps, tokens(state, seen, name), strict=False):
        expected = (x[:, 1:] + x[:, :1]).mT.unflatten(2, (side, side))
        assert expected.std() > 0.1
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for blocks in range(len(backbone.blocks) + 1):
        split = backbone.suffix(backbone.prefix(images * 2 - 1, blocks), blocks)
        assert all(torch.equal(a, b) for a, b in zip(split, maps, strict=True)), blocks


def test_another_transformer_of_timm_has_timms_tokens():
    """CLIP's has a normalisation before the blocks, and statistics of its own."""
    name = "vit_base_patch32_clip_224.openai"
    torch.manual_seed(1)
    backbone = ViT(name=name, taps=(1,), weights="random").eval()
    torch.manual_seed(1)
    net = timm.create_model(name, depth=1, num_classes=0, img_size=224).eval()
    published, images = timm.get_pretrained_cfg(name), torch.rand(1, 3, 224, 224)
    seen = Normalize(published.mean, published.std)(images)
    with torch.no_grad():
        ((patches, prefix),) = net.forward_intermediates(
            seen, indices=[0], return_prefix_tokens=True, intermediates_only=True
        )
        torch.testing.assert_close(backbone(images * 2 - 1), [patches + prefix.mT[..., None]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "size"), [(DINO, 224), (DINOV2, 518), (DINOV2_LARGE, 518)])
def test_the_whole_network_has_the_names_and_shapes_of_the_published_file(name, size):
    state = build_vit(name, size).state_dict()
    assert {key: tuple(t.shape) for key, t in state.items()} == {
        key: shape
        for key, shape in layout(name).items()
        if key != "mask_token"  # of the pretraining only
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "vit_small_patch16_512"}, r"^name=vit_small_patch16_512: timm has no such"),
        ({"name": "resnet18"}, r"^name=resnet18: timm has no such vision transformer for 224 px"),
        ({"name": "vit_small_patch14_reg4_dinov2.lvd142m"}, r"^name=.*: choose .* without registers"),
        ({"input_size": 100}, r"^input_size=100: choose a multiple of 16, such as 96 or 112"),
        ({"taps": (0, 13)}, r"^taps=\[0, 13\]: vit_small_patch16_224.dino has 12 transformer blocks"),
        ({"taps": (3, 3)}, r"^taps=\[3, 3\]: choose one or more, ascending, from 0"),
        ({"taps": ()}, r"^taps=\[\]: choose one or more"),
        ({"weights": "nowhere.pth"}, r"^weights=nowhere\.pth: there is no such file"),
    ],
)
def test_what_does_not_fit_is_refused_by_the_name_of_the_argument(settings, message):
    with pytest.raises(ValueError, match=message):
        ViT(**{"weights": "random"} | settings)


def test_a_file_of_another_network_is_refused(tmp_path):
    random_file(tmp_path / "small.pth", DINO, depth=1)
    with pytest.raises(ValueError, match=r"^weights=.*another architecture: 12 of .* missing, blocks\.1\.norm1"):
        ViT(taps=(0, 2), weights=str(tmp_path / "small.pth"))
    with pytest.raises(
        ValueError, match=r"^weights=.*another architecture: .* is \(1, 1, 384\), expected \(1, 1, 192\)"
    ):
        ViT(name="vit_tiny_patch16_224", taps=(0, 1), weights=str(tmp_path / "small.pth"))
