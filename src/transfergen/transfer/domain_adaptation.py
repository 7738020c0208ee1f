"""Domain adaptation: a generator of a source domain learns a target domain from few pictures."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transfergen.devices import full_float32
from transfergen.distributed import gather_rows
from transfergen.images import to_rgb
from transfergen.losses.alignment import coral, cross_domain_consistency, gradient_reversal, mmd
from transfergen.networks.backbones.base import Backbone
from transfergen.networks.discriminators.base import Discriminator
from transfergen.networks.generators.base import Generator
from transfergen.runs.generator_files import load_pretrained
from transfergen.transfer.copying import network_overrides
from transfergen.transfer.ewc import ewc_penalty, fisher_information
from transfergen.transfer.initialisation import check_same_images
from transfergen.transfer.strategy import Pairs, Strategy


class DomainAdaptation(Strategy):
    """Starts the generator as a copy of a source generator, and trains it on the pictures of a target domain.

    The following terms, each with its weight, are added to the adversarial loss on the target's pictures. All but
    `ewc` use the features of a frozen trunk, averaged over positions and scaled to a root mean square of 1 per layer:

    - `mmd` and `coral` align the distribution of the fakes' features with that of the target's pictures (Long 2015,
      arXiv:1502.02791; Sun and Saenko 2016, arXiv:1607.01719);
    - `reversal` aligns them by a domain classifier that learns to tell the two apart, behind a gradient reversal (Ganin
      2016, arXiv:1505.07818). As the trunk is frozen, the reversed gradient trains the generator;
    - `consistency` keeps the distances between the fakes of a batch as they are between the source's fakes of the same
      latents, and so the source's diversity (Ojha 2021, arXiv:2104.06820, on the trunk's features instead of the
      generator's activations). The authors' code has 1,000 times the mean over rows and over the 3 entries of each,
      to which the default of 333 is equal. Its divergence is the reverse of the paper's, which is taken here;
    - `ewc` keeps the weights that matter for the source's images (Li 2020, arXiv:2012.02780).

    Args:
        source: a run directory, or what else `load_pretrained` finds.
        backbone: the trunk of these terms; it stays frozen, even if the discriminator's own trunk trains.
        mmd, coral, reversal, consistency, ewc: weights; a term of weight 0 is not computed.
        settings: those of `Strategy`.

    Raises:
        ValueError: a weight below 0, or a term that needs a backbone where there is none.
    """

    source: Generator
    """`attach` reads it."""

    def __init__(
        self,
        *,
        source: str,
        backbone: Backbone | None = None,
        mmd: float = 0.0,
        coral: float = 0.0,
        reversal: float = 0.0,
        consistency: float = 333.0,
        ewc: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        if ewc and self.generator == "singular_values":
            raise ValueError(
                f"ewc={ewc}: it holds weights, and transfer.generator=singular_values trains none; set transfer.ewc=0, "
                "or another transfer.generator"
            )
        if self.new_classes == "mixture":
            raise ValueError("new_classes=mixture: the classes here are the source's; set transfer.new_classes=mean")
        on_features = {"mmd": mmd, "coral": coral, "reversal": reversal, "consistency": consistency}
        self._take_trunk(backbone, on_features)
        self.path = source
        self.mmd, self.coral, self.reversal, self.consistency, self.ewc = mmd, coral, reversal, consistency, ewc
        self.has_terms = self._trunk is not None or ewc > 0
        self.min_images = 3 if consistency else 2 if mmd or coral else 1
        self.domain_head = None
        if reversal and self._trunk is not None:
            width = sum(self._trunk.channels)
            self.domain_head = nn.Sequential(nn.Linear(width, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))

    def attach(self, generator: Generator, discriminator: Discriminator) -> None:
        """Read the source, and copy its weights to the generator.

        Raises:
            ValueError: it cannot be read, or is another network than the generator.
        """
        source, metadata, _ = load_pretrained(self.path, "transfer.source")
        check_same_images(source, generator, f"transfer.source={self.path}")
        theirs, ours = (
            {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
            for network in (source, generator)
        )
        if theirs != ours:
            name = next(name for name in theirs | ours if theirs.get(name) != ours.get(name))
            mend = network_overrides(metadata["generator"], "generator") or "generator as in its config.yaml"
            if source.num_classes > 1:
                mend += f", and give pictures of {source.num_classes} classes"
            raise ValueError(
                f"transfer.source={self.path}: a {type(source).__name__} of {source.resolution} px with {name} "
                f"{theirs.get(name, 'missing')}, expected {ours.get(name, 'none')} as in this generator; set {mend}"
            )
        generator.load_state_dict(source.state_dict())
        self.add_frozen("source", source)
        self._fold_trunk(generator)
        if self.ewc:
            for i, weight in enumerate(generator.parameters()):
                self.register_buffer(f"fisher_{i}", torch.zeros_like(weight))

    def start(self, generator: Generator, discriminator: Discriminator) -> None:
        """Compute the Fisher information of the source's weights, which checkpoints keep."""
        if self.ewc:
            self.source.requires_grad_(True)
            with torch.autocast(next(generator.parameters()).device.type, enabled=False):
                found = fisher_information(self.source)
            self.source.requires_grad_(False)
            for buffer, values in zip(self._fisher(), found, strict=True):
                buffer.copy_(values)

    def discriminator_terms(self, discriminator: Discriminator, pairs: Pairs) -> dict[str, Tensor]:
        """The loss of the domain classifier: binary cross-entropy, 1 for pictures of the target and 0 for fakes."""
        if self.domain_head is None:
            return {}
        with torch.no_grad():
            fake, real = self._features(pairs.fake), self._features(pairs.real)
        loss = F.softplus(self.domain_head(fake)).mean() + F.softplus(-self.domain_head(real)).mean()
        return {"domain_head": loss}

    def generator_terms(self, generator: Generator, discriminator: Discriminator, pairs: Pairs) -> dict[str, Tensor]:
        """The weighted terms `mmd`, `coral`, `reversal`, `consistency` and `ewc`."""
        terms: dict[str, Tensor] = {}
        if self._trunk is not None:
            fake = gather_rows(self._features(pairs.fake))
            with torch.no_grad():
                real = gather_rows(self._features(pairs.real)) if self.mmd or self.coral else None
                source = gather_rows(self._features(self.source(pairs.z, pairs.y))) if self.consistency else None
            with torch.autocast(fake.device.type, enabled=False), full_float32():  # differences of nearly equal numbers
                if real is not None and self.mmd:
                    terms["mmd"] = self.mmd * mmd(fake, real)
                if real is not None and self.coral:
                    terms["coral"] = self.coral * coral(fake, real)
                if self.domain_head is not None:
                    terms["reversal"] = self.reversal * F.softplus(self.domain_head(gradient_reversal(fake))).mean()
                if source is not None:
                    terms["consistency"] = self.consistency * cross_domain_consistency(source, fake)
        if self.ewc:
            weights, source_weights = list(generator.parameters()), list(self.source.parameters())
            terms["ewc"] = self.ewc * ewc_penalty(weights, source_weights, self._fisher())
        return terms

    def _features(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) -> (B, D), float32: means over positions, with a root mean square of 1 in each layer."""
        assert self._trunk is not None
        means = [maps.float().mean(dim=(2, 3)) for maps in self._trunk(to_rgb(images))]
        return torch.cat([F.normalize(mean, dim=1) * mean.shape[1] ** 0.5 for mean in means], dim=1)

    def _fisher(self) -> list[Tensor]:
        return [self.get_buffer(f"fisher_{i}") for i, _ in enumerate(self.source.parameters())]
