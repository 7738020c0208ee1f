"""A generator in use: it turns seeds and latents into images, and pictures into latents."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import product
from operator import index
from pathlib import Path
from typing import Any, Self, SupportsIndex

import torch
from PIL import Image
from torch import Tensor

from transfergen.data.pictures import to_shape
from transfergen.images import to_float, to_grid, to_pil, to_uint8
from transfergen.networks.class_mixtures import Label, to_labels, to_weights
from transfergen.networks.generators.base import Generator, latent_directions, offset_latent, sample, slerp
from transfergen.networks.generators.styles import mix_styles
from transfergen.sampling.inversion import invert, read_picture
from transfergen.sampling.latents import Latent, inputs_of, read_latent


class ImageGenerator:
    """Seeds in, images out. A seed gives the same image whatever the other seeds and the batch size are.

    Args:
        network: frozen and in eval mode.
        classes: names of its classes, in order; none: they have no names.

    Attributes:
        device: where the network is; images are given on the CPU.
        z_dim: dimensions of a latent.
        resolution: the shorter side of an image, in pixels.
        image_shape: channels, height and width of an image.
        num_classes: number of classes; 0 for an unconditional generator.
        classes: their names, in order; their numbers as text where they have no names.
        latent_blocks: number of blocks that take the latent or a part of it, of which `mix_styles` chooses one.
    """

    def __init__(self, network: Generator, classes: Sequence[str] = ()) -> None:
        self.network = network.to(memory_format=torch.channels_last)  # a quarter faster on a CPU
        self.device = torch.device("cpu")
        self.z_dim, self.resolution, self.num_classes = network.z_dim, network.resolution, network.num_classes
        self.image_shape, self.latent_blocks = network.image_shape, network.latent_blocks
        self.classes = tuple(classes or map(str, range(network.num_classes)))

    def to(self, device: str | torch.device) -> Self:
        """Move the network to a device, where all that follows is computed."""
        self.device = torch.device(device)
        self.network.to(self.device)
        return self

    def labels(self, classes: Iterable[Label]) -> Tensor:
        """Classes and mixtures of them -> what the network takes for them, see `to_labels`."""
        return to_labels(classes, self.num_classes, self.classes)

    def pixels(
        self,
        seeds: Iterable[SupportsIndex],
        *,
        classes: Iterable[Label] = (),
        truncation: float | None = None,
        batch_size: int = 64,
    ) -> Tensor:
        """Seeds (N) -> pixels (N, C, H, W) uint8, on the CPU.

        Args:
            seeds: of the latents, one for each image: integers of any kind, or a tensor or an array of them.
            classes: those of a conditional generator to make, by number or name, or mixtures of them, such as
                `{3: 0.7, 5: 0.3}`; seed s gets `classes[s % len(classes)]`. Empty: all that it has.
            truncation: draw latents from N(0, 1) truncated at this distance from 0, for better images of less variety;
                a BigGAN-deep has latents and statistics of its own for it, see `BigGANDeep`.
            batch_size: images computed at once.

        Raises:
            ValueError: there is no seed, the generator has no such class, or another option is out of range.
        """
        numbers = [index(seed) for seed in seeds]
        if not numbers:
            raise ValueError("seeds=[]: give at least one")
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size}: give at least 1")
        _check_truncation(truncation)
        labels = self.labels(classes)
        options: dict[str, Any] = {"batch_size": batch_size, "truncation": truncation, "classes": labels}
        return to_uint8(sample(self.network, numbers, self.device, **options)).cpu()

    def __call__(self, seeds: Iterable[SupportsIndex], **options: Any) -> list[Image.Image]:
        """Images of these seeds, grey, RGB or RGBA; the options are those of `pixels`."""
        return [to_pil(each) for each in self.pixels(seeds, **options)]

    def grid(self, seeds: Iterable[SupportsIndex], **options: Any) -> Image.Image:
        """The images of these seeds in one grid; the options are those of `pixels`."""
        return to_grid(self.pixels(seeds, **options))

    def interpolate(
        self,
        seeds: Iterable[SupportsIndex | Latent],
        *,
        frames: int | Sequence[float] = 30,
        classes: Iterable[Label] = (),
        truncation: float | None = None,
    ) -> Tensor:
        """Images between N latents -> pixels (S, C, H, W) uint8, on the CPU.

        The interpolation is spherical: Gaussian latents of many dimensions lie near a sphere, which a straight line
        between two of them leaves. White 2016, arXiv:1609.04468, section 2.1. That of classes is linear, in their
        embeddings.

        Args:
            seeds: of the latents, or latents, two or more. Twice the same keeps the latent while the class changes.
            frames: their number from one seed to the next, so that S = frames * (N - 1) + 1; or the places of S frames,
                where 0 is the first seed, 1 the second, and 0.5 halfway between the two.
            classes: of a conditional generator, or mixtures as in `pixels`: the first is that of the first seed, and so
                on, over again if the seeds are more. Empty: each seed has its own, as in `pixels`, and so has a latent.
            truncation: of the seeds' latents, see `pixels`.

        Raises:
            ValueError: there are fewer than two seeds or less than one frame, a latent does not fit, or an option is
                out of range.
        """
        points, given = [*seeds], [*classes]
        last = len(points) - 1
        places = [i / frames for i in range(frames * last + 1)] if isinstance(frames, int) and frames else frames
        if last < 1 or not places or not all(0 <= place <= last for place in places):
            what = "give at least two seeds, and at least one frame, none before the first seed or after the last"
            raise ValueError(f"interpolate={points}, frames={frames}: {what}")
        z, y = self._inputs(points, given, truncation, in_turn=True)
        y = to_weights(y, self.num_classes)
        place = torch.tensor(places, dtype=torch.float)
        start = place.long().clamp(max=last - 1)
        part = (place - start)[:, None]
        inputs = [slerp(z[start], z[start + 1], part), torch.lerp(y[start], y[start + 1], part)]
        return self._pixels_of(self.network, inputs, truncation)

    def directions(self, count: int) -> Tensor:
        """The unit vectors (count, Z) in the latent space that change the images most, see `latent_directions`."""
        return latent_directions(self.network, count)

    def vary(
        self,
        seed: SupportsIndex | Latent,
        offsets: Tensor,
        *,
        classes: Iterable[Label] = (),
        truncation: float | None = None,
    ) -> Tensor:
        """Images of one latent plus each of the offsets -> pixels (N, C, H, W) uint8, on the CPU.

        Args:
            seed: of the latent, or the latent.
            offsets: (N, Z) or (Z,), as multiples of `directions`. Along each, latents have a standard deviation of 1.
            classes: see `pixels`; of a latent, the first one, or if empty, that of the latent.
            truncation: of the seed's latent, see `pixels`.

        Raises:
            ValueError: the offsets have another shape, the latent does not fit, or an option is out of range.
        """
        z, y = self._inputs([seed], classes, truncation)
        z = offset_latent(z, offsets.cpu())
        return self._pixels_of(self.network, [z, y.expand(len(z), *y.shape[1:])], truncation)

    def mix_styles(
        self,
        coarse: Iterable[SupportsIndex],
        fine: Iterable[SupportsIndex],
        *,
        block: int,
        classes: Iterable[Label] = (),
        truncation: float | None = None,
    ) -> Tensor:
        """The coarse forms of M seeds, each with the details of N others -> pixels (M, N, C, H, W) uint8, on the CPU.

        Args:
            coarse: seeds, whose latents and classes all layers before the block get; see the function `mix_styles`.
            fine: seeds, whose latents and classes the block and all after it get.
            block: 1 to `latent_blocks`.
            classes: see `pixels`.
            truncation: see `pixels`.

        Raises:
            ValueError: no block takes the latent, or not this one; a seed is missing; another option is out of range.
        """
        rows, columns = [index(seed) for seed in coarse], [index(seed) for seed in fine]
        if not rows or not columns:
            raise ValueError(f"coarse={rows}, fine={columns}: give at least one seed of each")
        labels = list(classes)
        sides = zip(*product(rows, columns), strict=True)
        inputs = [each for seeds in sides for each in self._inputs(seeds, labels, truncation)]
        pixels = self._pixels_of(partial(mix_styles, self.network, block=block), inputs, truncation)
        return pixels.view(len(rows), len(columns), *pixels.shape[1:])

    def invert(
        self, picture: Image.Image | str | Path, *, label: Label | None = None, **options: Any
    ) -> tuple[Latent, float]:
        """The latent whose image is nearest to a picture, and the mean squared error over its pixels, in [-1, 1].

        Args:
            picture: it, or its file. It is cropped to its centre, and resized.
            label: the class, or mixture of classes, that a conditional generator searches in; None: class 0.
            options: those of the function `transfergen.sampling.inversion.invert`, such as `steps` and `seed`.

        Raises:
            ValueError: the picture cannot be read, or there is no such class.
        """
        from torchvision.transforms.functional import pil_to_tensor  # its import takes more than a second

        shape = self.image_shape
        fitted = to_shape(picture, shape, "crop") if isinstance(picture, Image.Image) else read_picture(picture, shape)
        images = to_float(pil_to_tensor(fitted)[None]).to(self.device)
        y = self.labels([] if label is None else [label])[:1]
        z, error = invert(self.network, images, labels=y.to(self.device) if self.num_classes else None, **options)
        return Latent(z.cpu(), y if self.num_classes else None), float(error)

    def read_latent(self, path: str | Path, override: str = "latent") -> Latent:
        """The latent in a file that `Latent.save` or `transfergen generate invert=PICTURE` wrote, see `read_latent`."""
        return read_latent(Path(path).expanduser(), self.network, override)

    def _inputs(
        self,
        seeds: Iterable[SupportsIndex | Latent],
        classes: Iterable[Label],
        truncation: float | None,
        *,
        in_turn: bool = False,
    ) -> list[Tensor]:
        _check_truncation(truncation)
        given = list(classes)
        labels = self.labels(given) if given else None
        return inputs_of(self.network, seeds, labels, truncation=truncation, in_turn=in_turn)

    @torch.inference_mode()
    def _pixels_of(self, network: Callable[..., Tensor], inputs: Iterable[Tensor], truncation: float | None) -> Tensor:
        """The network's images for its inputs, each (N, ...), of this truncation -> pixels (N, C, H, W), on the CPU."""
        self.network.truncate(truncation)
        try:
            parts = zip(*(torch.split(each.to(self.device), 64) for each in inputs), strict=True)
            images = torch.cat([network(*part) for part in parts])
        finally:
            self.network.truncate(None)
        return to_uint8(images).cpu()


def _check_truncation(truncation: float | None) -> None:
    if truncation is not None and not truncation > 0:
        raise ValueError(f"truncation={truncation}: give a number above 0, or None for none")
