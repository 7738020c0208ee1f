"""Self-attention over the positions of a feature map. Zhang 2019, arXiv:1805.08318 (SAGAN)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transfergen.networks.layers.initialization import glorot_init


class SelfAttention(nn.Module):
    """Maps (B, C, h, w), h and w even -> the same shape: each position adds what it gathers from all others.

    Queries and keys are 1x1 convolutions to C / 8 channels, compared by their dot product without a scale. Values have
    C / 2 channels; a fourth 1x1 convolution brings their weighted sum back to C, and a trained gain, which starts from
    0, multiplies it before it is added to the maps (equations 1 to 3). Keys and values are max-pooled 2x2 first, as in
    the authors' code and BigGAN's, though not in the paper's text. No convolution has a bias, as in BigGAN.
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
            glorot_init(convolution)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, h, w) -> the same shape."""
        query = _positions(self.query(maps))
        key, value = (_positions(F.max_pool2d(layer(maps), 2)) for layer in (self.key, self.value))
        attended = _attend(query, key, value)
        gathered: Tensor = self.out(attended.transpose(2, 3).reshape(maps.shape[0], -1, *maps.shape[2:]))
        return maps + self.gain * gathered


def _positions(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, 1, h w, C): one head, the layout in memory that torch's fused attention kernels take."""
    return maps.flatten(2).transpose(1, 2).unsqueeze(1).contiguous()


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Queries (B, 1, P, D), keys (B, 1, Q, D), values (B, 1, Q, E) -> (B, 1, P, E), D at most E.

    On a CPU, torch's fused kernel, which does without a matrix of all P x Q weights, takes queries and keys that are as
    wide as values. Zeros widen them and change no dot product. The kernel has no second derivatives, which
    discriminators need, so that it computes only where no gradient is asked for; and a graph for export has kernels of
    its own.
    """
    if query.device.type == "cpu" and not query.requires_grad and not torch.compiler.is_exporting():
        missing = value.shape[-1] - query.shape[-1]
        query, key = (F.pad(each, (0, missing)) for each in (query, key))
    return F.scaled_dot_product_attention(query, key, value, scale=1.0)


def check_attention(attention: int | None, sizes: Sequence[int]) -> None:
    """Check that a network has feature maps of the size that is to get self-attention.

    Args:
        attention: side of the maps, in pixels; None: no self-attention.
        sizes: sides of the network's maps.

    Raises:
        ValueError: no map is of that size.
    """
    if attention is not None and attention not in sizes:
        raise ValueError(f"attention={attention}: the maps are {', '.join(map(str, sizes))} px; choose one of these")
