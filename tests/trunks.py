"""Trunks that cost nothing, for discriminators to stand on."""

from itertools import pairwise

from torch import nn

from transfergen.networks.backbones.base import Backbone


def trunk(widths=(4, 6, 8)):
    """A block a scale, each of which halves the image, with batch norm."""
    blocks = [nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.Tanh()) for a, b in pairwise((3, *widths))]
    return Backbone(
        blocks,
        taps=range(len(widths)),
        channels=widths,
        strides=[2 ** (i + 1) for i in range(len(widths))],
    )
