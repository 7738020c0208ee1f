"""Self-attention over the positions of a map. Zhang 2019, arXiv:1805.08318 (SAGAN)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SelfAttention(nn.Module):
    """Maps (B, C, h, w), h and w even -> the same shape: each position adds what it gathers from all others.

    A position is compared with another by the dot product of 1x1 convolutions to C / 8 channels, without a scale, and
    gathers C / 2 channels; a fourth 1x1 convolution brings them back to C, and a trained gain, which starts from 0,
    multiplies the sum (equations 1 to 3). As in the paper's code and BigGAN's, and not in its text, what a position is
    compared with and gathers from is max-pooled 2x2 first. None of the convolutions has a bias, as in BigGAN.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        compared, gathered = max(1, channels // 8), max(1, channels // 2)
        self.query = nn.Conv2d(channels, compared, 1, bias=False)
        self.key = nn.Conv2d(channels, compared, 1, bias=False)
        self.value = nn.Conv2d(channels, gathered, 1, bias=False)
        self.out = nn.Conv2d(gathered, channels, 1, bias=False)
        self.gain = nn.Parameter(torch.zeros(()))
        for convolution in (self.query, self.key, self.value, self.out):
            nn.init.xavier_uniform_(convolution.weight)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, h, w) -> the same shape."""
        query = _positions(self.query(maps))
        key, value = (_positions(F.max_pool2d(layer(maps), 2)) for layer in (self.key, self.value))
        seen = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        gathered: Tensor = self.out(seen.transpose(2, 3).reshape(maps.shape[0], -1, *maps.shape[2:]))
        return maps + self.gain * gathered


def _positions(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> one head of h w vectors, (B, 1, h w, C): what torch's fused kernels take."""
    return maps.flatten(2).transpose(1, 2).unsqueeze(1)


def check_attention(owner: str, attention: int | None, sizes: Sequence[int]) -> None:
    """Refuse self-attention at a size that no maps have.

    Args:
        owner: the network, as the command line has it.
        attention: the side of the maps, in pixels; None: no self-attention.
        sizes: of its maps.

    Raises:
        ValueError: none is of that size.
    """
    if attention is not None and attention not in sizes:
        raise ValueError(
            f"{owner}.attention={attention}: its maps are {', '.join(map(str, sizes))} px; "
            f"set {owner}.attention={sizes[len(sizes) // 2]}, or null for none"
        )
