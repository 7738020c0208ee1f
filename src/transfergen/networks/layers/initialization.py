"""Distributions that the weights of new layers are drawn from."""

from torch import nn


def dcgan_init(module: nn.Module) -> None:
    """Draw a convolution's weights from N(0, 0.02), a batch normalisation's gains from N(1, 0.02).

    To be used with `network.apply`. Radford 2016, arXiv:1511.06434, section 4; the gains are from the authors' code.
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, std=0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, mean=1.0, std=0.02)


def glorot_init(module: nn.Module, gain: float = 1.0) -> None:
    """Draw all weights in a module from Glorot's uniform distribution, times `gain`; set all biases to 0.

    Glorot and Bengio 2010, AISTATS, equation 16. The residual GANs use it, as SNGAN's code does.
    """
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.xavier_uniform_(parameter, gain)
        else:
            nn.init.zeros_(parameter)
