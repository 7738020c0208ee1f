"""Batch normalisation by the statistics of all ranks' batches, on any device, with derivatives of any order.

`nn.SyncBatchNorm` needs a GPU, and has no second derivatives, which gradient penalties take.
"""

from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
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
    weight = norm.weight if norm.affine else maps.new_ones(norm.num_features, dtype=torch.float32)
    bias = norm.bias if norm.affine else torch.zeros_like(weight)
    normalized, mean, variance = cast(tuple[Tensor, Tensor, Tensor], _Normalize.apply(maps, weight, bias, norm.eps))
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
        count = _positions(maps)
        norm.running_mean.lerp_(mean, share)
        norm.running_var.lerp_(variance * (count / (count - 1)), share)
    return normalized


def _positions(maps: Tensor) -> int:
    """The number of values of a channel that its mean and variance are taken over, on all ranks together."""
    return maps.numel() // maps.shape[1] * rank_and_world_size()[1]


class _Normalize(torch.autograd.Function):
    """Maps, gains (C,) and biases (C,) -> normalised maps, and the mean (C,) and the variance (C,) of all ranks.

    torch's fused kernels, for which the statistics are given, do the work, and one message each way connects the ranks.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        ours = torch.stack(torch.batch_norm_update_stats(maps.float(), None, None, 0.0))  # (2, C): mean and variance
        of_ranks = [torch.empty_like(ours) for _ in range(dist.get_world_size())]
        dist.all_gather(of_ranks, ours)
        means, variances = torch.stack(of_ranks, dim=1)
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        ctx.save_for_backward(maps, weight, bias, mean, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(maps, mean, variance, weight, bias, eps=eps), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        maps, weight, bias, mean, variance = ctx.saved_tensors
        if torch.is_grad_enabled():  # this derivative has derivatives itself
            again = _composed(maps, weight, bias, ctx.eps)
            given = [t for t, needed in zip((maps, weight, bias), ctx.needs_input_grad[:3], strict=True) if needed]
            found = iter(torch.autograd.grad(again, given, gradients[0], create_graph=True))
            return *(next(found) if needed else None for needed in ctx.needs_input_grad[:3]), None
        inverse, wanted = (variance + ctx.eps).rsqrt(), [ctx.needs_input_grad[0], True, True]
        by_maps, by_weight, by_bias = torch.ops.aten.native_batch_norm_backward(
            gradients[0], maps, weight, mean, variance, mean, inverse, False, ctx.eps, wanted
        )
        if not ctx.needs_input_grad[0]:  # as after frozen layers, and so on all ranks
            return None, by_weight, by_bias, None
        # The mean and the variance depend on the maps, too.
        slope, shift = -sum_over_ranks(torch.stack((by_weight, by_bias))) / _positions(maps) * weight * inverse
        by_maps += F.batch_norm(maps, mean, variance, slope, shift, eps=ctx.eps)
        return by_maps, by_weight, by_bias, None


def _composed(maps: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Maps (B, C, h, w), gains (C,) and biases (C,) -> maps normalised over all ranks.

    It computes what `_Normalize` does, slower, from operations that autograd can differentiate any number of times.
    """
    x = maps.float()
    x = x - (sum_over_ranks(x.sum((0, 2, 3))) / _positions(maps))[:, None, None]
    variance = sum_over_ranks(x.square().sum((0, 2, 3))) / _positions(maps)
    scale = (variance + eps).rsqrt() * weight
    return (x * scale[:, None, None] + bias[:, None, None]).to(maps.dtype)
