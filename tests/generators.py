"""Generators whose images differ, without a training."""

import torch
from torch import nn

from transfergen.networks.generators.base import latents


def varied(network, *classes):
    """The network, frozen, with weights that make its images differ, and batch norms whose statistics fit them."""
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
        elif name.endswith("weight"):
            nn.init.ones_(parameter)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(latents(range(256), network.z_dim), *classes)
    return network.eval().requires_grad_(False)
