"""Batch normalisation by the statistics of all ranks' batches, on any device, with derivatives of any order.

`nn.SyncBatchNorm` needs a GPU, and has no second derivatives, which gradient penalties take.
"""

from typing import cast

from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from transfergen.distributed import rank_and_world_size, sum_over_ranks


def synchronize(network: nn.Module) -> None:
    """Let a network's batch normalisations, in training mode, see the batches of all ranks, which are equally large."""
    synchronized = {nn.BatchNorm2d: SyncBatchNorm2d, BatchNormAct2d: SyncBatchNormAct2d}
    for module in network.modules():
        module.__class__ = synchronized.get(type(module), type(module))  # its tensors keep their names and places


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Maps (B, C, h, w) -> the same shape, normalised over the ranks' B * h * w positions together."""

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (B, C, h, w) -> (B, C, h, w)."""
        return _normalized(self, maps) if _sees_ranks(self) else super().forward(maps)


class SyncBatchNormAct2d(BatchNormAct2d):
    """timm's batch normalisation with an activation, over the ranks' positions together."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, h, w) -> (B, C, h, w)."""
        if not _sees_ranks(self):
            return cast(Tensor, super().forward(x))  # type: ignore[no-untyped-call]
        return cast(Tensor, self.act(self.drop(_normalized(self, x))))


def _sees_ranks(norm: nn.BatchNorm2d) -> bool:
    return norm.training and rank_and_world_size()[1] > 1


def _normalized(norm: nn.BatchNorm2d, maps: Tensor) -> Tensor:
    x = maps.float()
    count = x.numel() // x.shape[1] * rank_and_world_size()[1]
    mean = sum_over_ranks(x.sum((0, 2, 3))) / count
    x = x - mean[:, None, None]
    variance = sum_over_ranks(x.square().sum((0, 2, 3))) / count
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
        norm.running_mean.lerp_(mean.detach(), share)
        norm.running_var.lerp_(variance.detach() * (count / (count - 1)), share)
    scale = (variance + norm.eps).rsqrt()
    if norm.affine:
        return (x * (scale * norm.weight)[:, None, None] + norm.bias[:, None, None]).to(maps.dtype)
    return (x * scale[:, None, None]).to(maps.dtype)
