"""Differentiable augmentation of the images that the discriminator sees, with a fixed or an adaptive probability.

The transforms are DiffAugment's (Zhao 2020, arXiv:2006.10738), the adaptive probability is ADA's (Karras 2020,
arXiv:2006.06676). While enough images pass a transform untouched, fakes match the reals after it only if they match
them before it, so that augmentation does not leak into samples (section 2.2 there).
"""

import torch
from torch import Tensor, nn

from transfergen.distributed import mean_over_ranks


class Augmentation(nn.Module):
    """Images (B, C, H, W) in [-1, 1] -> augmented images of the same shape and dtype; colours may leave [-1, 1].

    The transforms are, in this order: brightness, saturation, contrast; mirroring; translation by whole pixels; cutout.
    Pixels that move in from outside, and those that are cut out, become 0, a mid grey, or transparent where images have
    alpha. Each transform is applied to each image with probability `p`, independently of the others. A strength of 0,
    or False, turns a transform off.

    Args:
        colour: strength; at 1, brightness moves by up to 0.5, saturation is scaled by 0 to 2, contrast by 0.5 to 1.5.
        translation: the farthest move along each axis, as a fraction of the image's side.
        cutout: sides of the part that is cut out, as a fraction of the image's; its centre is anywhere in the image.
        flip: whether half of the images that mirroring is applied to swap left and right.
        p: probability.
    """

    p: Tensor

    def __init__(
        self,
        *,
        colour: float = 1.0,
        translation: float = 0.125,
        cutout: float = 0.5,
        flip: bool = False,
        p: float = 1.0,
    ) -> None:
        super().__init__()
        self.colour, self.translation, self.cutout, self.flip = colour, translation, cutout, flip
        self.register_buffer("p", torch.tensor(float(p)), persistent=False)  # a resumed run's config decides

    @property
    def is_identity(self) -> bool:
        """Whether no transform is on, so that the features of a real image never change."""
        return not (self.colour or self.translation or self.cutout or self.flip)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) -> augmented images. Draws from the global generator of their device."""
        if self.is_identity:
            return images
        images = images.contiguous()  # channels_last takes half as long again, on a CPU
        sides = images.shape[2:]
        gates, draws = torch.split(torch.rand(13, len(images), device=images.device), [6, 7])
        chosen = gates < self.p
        if self.colour:
            images = recolour(images, *(self.colour * (2 * draws[:3] - 1) * chosen[:3]))
        if images.shape[1] == 4:  # 0 shall be transparent
            images = torch.cat([images[:, :3], images[:, 3:] + 1], dim=1)
        if self.flip or self.translation:
            reaches = [int(self.translation * side + 0.5) for side in sides]
            shifts = [(draw * (2 * n + 1)).long() - n for draw, n in zip(draws[3:5], reaches, strict=True)]
            images = move(images, (gates[3] < self.p / 2) & self.flip, torch.stack(shifts) * chosen[4])
        if self.cutout:
            cuts = [int(self.cutout * side + 0.5) for side in sides]
            places = zip(draws[5:7], sides, cuts, strict=True)
            corners = [(draw * (side + 1 - cut % 2)).long() - cut // 2 for draw, side, cut in places]
            images = cut_out(images, torch.stack(corners), torch.stack([cut * chosen[5] for cut in cuts]))
        return torch.cat([images[:, :3], images[:, 3:] - 1], dim=1) if images.shape[1] == 4 else images

    def update(self, real_logits: Tensor, images: int) -> None:
        """Do nothing: `p` is fixed."""


class AdaptiveAugmentation(Augmentation):
    """Augmentation whose `p` follows how far the discriminator overfits. Karras 2020, arXiv:2006.06676, eq. 1.

    Overfitting is r_t = E[sign D(real)]: 0 where the discriminator cannot tell, 1 where it is sure of every real. `p`
    starts at 0, rises while r_t is above its target and falls while it is below. Two deviations: `p` is bounded above,
    and moves with every batch by an exponential average over about 4, where ADA moves it with every 4th by their mean.

    Args:
        colour, translation, cutout, flip: see Augmentation.
        target: r_t to steer for.
        adapt_images: real images in which `p` can go from 0 to 1.
        max_p: `p` never passes it; leaks are unlikely below 0.8 (section 2.2).
    """

    overfitting: Tensor

    def __init__(
        self,
        *,
        colour: float = 1.0,
        translation: float = 0.125,
        cutout: float = 0.5,
        flip: bool = False,
        target: float = 0.6,
        adapt_images: int = 500_000,
        max_p: float = 0.8,
    ) -> None:
        super().__init__(colour=colour, translation=translation, cutout=cutout, flip=flip, p=0.0)
        self.target, self.adapt_images, self.max_p = target, adapt_images, max_p
        self.register_buffer("p", torch.zeros(()))
        self.register_buffer("overfitting", torch.zeros(()))

    @torch.no_grad()
    def update(self, real_logits: Tensor, images: int) -> None:
        """Move `p` by the logits (B, N) of this rank's augmented reals, `images` over all ranks. Waits for no device.

        To be called on all ranks, whose `p` stays the same.
        """
        mean_sign = mean_over_ranks(real_logits.float().sign().mean())
        self.overfitting.lerp_(mean_sign, 1 / 4)
        self.p.add_((self.overfitting - self.target).sign() * (images / self.adapt_images)).clamp_(0, self.max_p)


def recolour(images: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Images (B, C, H, W) with their colours changed by amounts (B,) in [-1, 1]; 0 changes nothing. Alpha stays.

    Half of `brightness` is added; then the distance from the pixel's mean is scaled by 1 + `saturation`; then that from
    the image's mean by 1 + `contrast` / 2. The three, one after the other, are one affine map, which is computed here.
    """
    amounts = torch.stack([brightness / 2, 1 + saturation, 1 + contrast / 2]).to(images.dtype)
    added, saturation, contrast = amounts[..., None, None, None]
    images, alpha = images[:, :3], images[:, 3:]
    grey = images.mean(1, keepdim=True)
    mean = grey.mean((2, 3), keepdim=True)
    shift = contrast * (1 - saturation) * grey + ((1 - contrast) * mean + added)
    recoloured = torch.addcmul(shift, images, contrast * saturation)
    return torch.cat([recoloured, alpha], dim=1) if alpha.shape[1] else recoloured


def move(images: Tensor, mirrored: Tensor, shifts: Tensor) -> Tensor:
    """Images (B, C, H, W), the `mirrored` (B,) ones with left and right swapped, then moved; 0 comes in from outside.

    `shifts` (2, B) are whole pixels, downwards and to the right.
    """
    sides, width = images.shape[2:], images.shape[3]
    sources = [torch.arange(n, device=images.device) - shift[:, None] for n, shift in zip(sides, shifts, strict=True)]
    inside = [(source >= 0) & (source < n) for n, source in zip(sides, sources, strict=True)]
    rows, columns = (source.clamp(0, n - 1) for n, source in zip(sides, sources, strict=True))
    columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    pixels = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)[:, None].expand(-1, images.shape[1], -1)
    moved = images.flatten(2).gather(2, pixels).view_as(images)
    return moved * _product(*inside).to(images.dtype)


def cut_out(images: Tensor, corners: Tensor, sides: Tensor) -> Tensor:
    """Images (B, C, H, W), each with a rectangle of 0, whose first pixel is at `corners` (2, B), of `sides` (2, B)."""
    inside = []
    for n, corner, side in zip(images.shape[2:], corners, sides, strict=True):
        from_corner = torch.arange(n, device=images.device) - corner[:, None]
        inside.append((from_corner >= 0) & (from_corner < side[:, None]))
    return images * (~_product(*inside)).to(images.dtype)


def _product(rows: Tensor, columns: Tensor) -> Tensor:
    """Truth of rows (B, H) and of columns (B, W) -> truth of pixels (B, 1, H, W)."""
    return rows[:, None, :, None] & columns[:, None, None, :]
