"""Whether a training and an extractor have pretrained weights in common."""

from typing import Any

import timm

from transfergen.evaluation.extractors import Extractor
from transfergen.networks.backbones.timm import weights_id


def pretrained_weight_ids(config: Any) -> set[str]:
    """Ids of the pretrained weights that a network's config names, wherever they are in it; no network is built."""
    found: set[str] = set()
    if isinstance(config, list):
        return found.union(*map(pretrained_weight_ids, config))
    if isinstance(config, dict):
        architecture = str(config.get("arch", config.get("name")))
        if "weights" in config and timm.get_pretrained_cfg(architecture):  # no extractor has what timm lacks
            found |= {weights_id(architecture, config["weights"]) or ""} - {""}
        return found.union(*map(pretrained_weight_ids, config.values()))
    return found


def shared_weights(extractor: Extractor, config: dict[str, Any]) -> str | None:
    """Pretrained weights of the extractor that a training, given by its config, uses as well; None for none.

    In the discriminator, in the features that a transfer strategy compares, or in a perceptual loss.
    """
    uses = [config.get("discriminator"), config.get("transfer")]
    if (config.get("objective") or {}).get("perceptual"):
        uses.append(config["backbone"])
    return extractor.weights_id if extractor.weights_id in pretrained_weight_ids(uses) else None


def shared_weights_warning(extractor: Extractor, weights: str) -> str:
    """What to say of an extractor whose `weights` the discriminator, or another loss, has too."""
    return (
        f"the generator's losses and the extractor {extractor.name} share the weights {weights}, so its distances "
        "flatter this generator (arXiv:2203.06026); give those of another extractor too, such as metrics=pixels"
    )
