"""A generator of one domain learns another from few pictures."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transfergen.losses.alignment import coral, cross_domain_consistency, gradient_reversal, mmd
from transfergen.networks.acceleration.folding import fold_batchnorm
from transfergen.networks.backbones.base import Backbone
from transfergen.networks.discriminators.base import Discriminator
from transfergen.networks.generators.base import Generator
from transfergen.transfer.ewc import consolidation, fisher_information
from transfergen.transfer.initialisation import load_source_generator
from transfergen.transfer.strategy import Pairs, Strategy


class DomainAdaptation(Strategy):
    """The generator starts as a copy of a source generator, and is trained on the pictures of a target domain.

    To the adversarial loss on the target are added, each with its weight, terms on the features that a frozen trunk
    has of the images, averaged over positions and scaled to a root mean square of 1 in each layer:

    - `mmd` and `coral` bring the distribution of the fakes' features to that of the target's pictures
      (Long 2015, arXiv:1502.02791; Sun and Saenko 2016, arXiv:1607.01719);
    - `reversal` does so by a head that learns to tell the two apart, behind a gradient reversal (Ganin 2016,
      arXiv:1505.07818). The trunk is frozen, so what the reversed gradient trains is the generator;
    - `consistency` keeps the distances between the fakes of a batch as they are between the source's fakes of the same
      latents, and with them the source's diversity (Ojha 2021, arXiv:2104.06820, which takes the generator's own
      activations instead of a trunk's);
    - `ewc` holds weights that matter for the source's images (Li 2020, arXiv:2012.02780), and needs no trunk.

    Args:
        source: a run directory, or a name on the hub.
        backbone: the trunk of those terms; not trained, whatever the discriminator does with its own.
        mmd, coral, reversal, consistency, ewc: weights; 0 leaves a term out.
        trunk: see Strategy.

    Raises:
        ValueError: a weight below 0, or one that needs a trunk where there is none.
    """

    def __init__(
        self,
        *,
        source: str,
        backbone: Backbone | None = None,
        mmd: float = 0.0,
        coral: float = 0.0,
        reversal: float = 0.0,
        consistency: float = 1.0,
        ewc: float = 0.0,
        **trunk: Any,
    ) -> None:
        super().__init__(**trunk)
        of_features = {"mmd": mmd, "coral": coral, "reversal": reversal, "consistency": consistency}
        for name, weight in (of_features | {"ewc": ewc}).items():
            if weight < 0:
                raise ValueError(f"transfer.{name}={weight}: a weight is 0 or more")
        used = [name for name, weight in of_features.items() if weight]
        if used and not isinstance(backbone, Backbone):  # the nothing that backbone=none leaves
            raise ValueError(
                f"transfer.{used[0]}={of_features[used[0]]}: there is no pretrained trunk to take features of; set "
                f"backbone=efficientnet_lite0, or transfer.{used[0]}=0"
            )
        self.where = source
        self.mmd, self.coral, self.reversal, self.consistency, self.ewc = mmd, coral, reversal, consistency, ewc
        hidden: tuple[Backbone, ...] = (self.add_frozen(backbone),) if backbone is not None and used else ()
        self._trunk = hidden  # in a tuple, which modules do not look into
        self.has_terms = bool(used or ewc)
        self.head = (
            nn.Sequential(nn.Linear(sum(backbone.channels), 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
            if backbone is not None and reversal
            else None
        )

    @property
    def source(self) -> Generator:
        """The source generator, once attached."""
        return self._source[0]

    def attach(self, generator: Generator, discriminator: Discriminator) -> None:
        """Read the source, and let the generator start as it is.

        Raises:
            ValueError: it cannot be read, or is another network than the generator.
        """
        source = load_source_generator(self.where, "transfer.source")
        its, ours = (
            {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
            for network in (source, generator)
        )
        if its != ours:
            differing = next(name for name in its | ours if its.get(name) != ours.get(name))
            raise ValueError(
                f"transfer.source={self.where}: a {type(source).__name__} of {source.resolution} px with {differing} "
                f"{its.get(differing, 'missing')}, expected {ours.get(differing, 'none')} as in this generator; set "
                f"generator and data.resolution={source.resolution} as in its config.yaml"
            )
        generator.load_state_dict(source.state_dict())
        self._source = (self.add_frozen(source),)
        for backbone in self._trunk:
            fold_batchnorm(backbone, generator.resolution)
        if self.ewc:
            for i, weight in enumerate(generator.parameters()):
                self.register_buffer(f"fisher_{i}", torch.zeros_like(weight))

    def start(self, generator: Generator, discriminator: Discriminator) -> None:
        """Find out which weights matter for the source's images."""
        if self.ewc:
            with torch.autocast(next(generator.parameters()).device.type, enabled=False):
                for ours, found in zip(self._fisher(), self._fisher_of_source(), strict=True):
                    ours.copy_(found)

    def discriminator_terms(self, discriminator: Discriminator, pairs: Pairs) -> dict[str, Tensor]:
        """The head's own loss: binary cross-entropy, pictures of the target 1 and fakes 0."""
        if self.head is None:
            return {}
        with torch.no_grad():
            fake, real = self._features(pairs.fake), self._features(pairs.real)
        loss = F.softplus(self.head(fake)).mean() + F.softplus(-self.head(real)).mean()
        return {"domain_head": loss}

    def generator_terms(self, generator: Generator, discriminator: Discriminator, pairs: Pairs) -> dict[str, Tensor]:
        """All the others."""
        terms: dict[str, Tensor] = {}
        if self._trunk:
            fake = self._features(pairs.fake)
            with torch.no_grad():
                real = self._features(pairs.real) if self.mmd or self.coral else None
                before = self._features(self.source(pairs.z, pairs.y)) if self.consistency else None
            if real is not None and self.mmd:
                terms["mmd"] = self.mmd * mmd(fake, real)
            if real is not None and self.coral:
                terms["coral"] = self.coral * coral(fake, real)
            if self.head is not None:
                terms["reversal"] = self.reversal * F.softplus(self.head(gradient_reversal(fake))).mean()
            if before is not None:
                terms["consistency"] = self.consistency * cross_domain_consistency(before, fake)
        if self.ewc:
            weights, anchors = list(generator.parameters()), list(self.source.parameters())
            terms["ewc"] = self.ewc * consolidation(weights, anchors, self._fisher())
        return terms

    def _features(self, images: Tensor) -> Tensor:
        """Images (B, 3, R, R) -> (B, D), float32: each layer's mean over positions, of root mean square 1."""
        means = [m.float().mean(dim=(2, 3)) for m in self._trunk[0](images)]
        return torch.cat([F.normalize(mean, dim=1) * mean.shape[1] ** 0.5 for mean in means], dim=1)

    def _fisher(self) -> list[Tensor]:
        return [self.get_buffer(f"fisher_{i}") for i, _ in enumerate(self.source.parameters())]

    def _fisher_of_source(self) -> list[Tensor]:
        self.source.requires_grad_(True)
        found = fisher_information(self.source)
        self.source.requires_grad_(False)
        return found
