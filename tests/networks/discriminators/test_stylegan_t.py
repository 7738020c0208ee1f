import pytest
import torch
from trunks import trunk

from transfergen.networks.backbones.vit import ViT
from transfergen.networks.discriminators.stylegan_t import StyleGANTDiscriminator


def test_the_heads_are_those_of_the_release():
    d = StyleGANTDiscriminator(ViT(taps=(0, 1), weights="random"))
    redundant = 2 * 384  # biases before normalisations
    narrow, wide, last, norms = 384**2 + 384, 9 * 384**2 + 384, 384 + 1, 4 * 384
    assert [sum(p.numel() for p in head.parameters()) for head in d.heads] == [
        narrow + wide + last + norms - redundant
    ] * 2
    assert d.num_logits == 2 * 14 * 14


def test_each_position_of_a_map_is_a_token_row_by_row():
    d = StyleGANTDiscriminator(trunk(), resolution=32, aspect=(2, 1)).eval()
    images = torch.rand(4, 3, 32, 64)
    maps = d.backbone(images)
    expected = [
        head(torch.stack([m[:, :, i, j] for i in range(m.shape[2]) for j in range(m.shape[3])], dim=2))
        for head, m in zip(d.heads, maps, strict=True)
    ]
    torch.testing.assert_close(d(images), torch.cat([logits[:, 0] for logits in expected], dim=1))


@pytest.mark.parametrize("frozen", [0, 2])
def test_a_transformer_is_frozen_block_by_block(frozen):
    d = StyleGANTDiscriminator(ViT(taps=(0, 2), weights="random", input_size=32), resolution=32)
    d.freeze(frozen)
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    d(images).square().sum().backward()
    assert images.grad.abs().sum() > 0
    trained = [any(p.grad is not None for p in block.parameters()) for block in d.backbone.blocks]
    assert trained == [False] * frozen + [True] * (3 - frozen)
