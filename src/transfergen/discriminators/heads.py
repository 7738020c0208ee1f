"""The head that judges one feature map. Sauer 2021, arXiv:2111.01007, and its release."""

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm


def scale_head(c_in: int, size: int, *, width: int) -> nn.Sequential:
    """Feature map (B, `c_in`, size, size) -> logits (B, 1, h, h), with spectral normalisation.

    [Convolution 4x4 of stride 2 to `width` channels, batch normalisation, LeakyReLU 0.2] until the map is no larger
    than 7x7; then a convolution 4x4, or over all that is there if that is less, to one channel.
    """
    layers: list[nn.Module] = []
    while size > 7:
        layers += [
            spectral_norm(nn.Conv2d(c_in, width, 4, 2, 1, bias=False)),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.2),
        ]
        c_in, size = width, size // 2
    return nn.Sequential(*layers, spectral_norm(nn.Conv2d(c_in, 1, min(4, size))))
