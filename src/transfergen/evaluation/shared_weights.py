"""Finds pretrained weights that a training and an extractor share, since they bias the metrics."""

from typing import Any

import timm

from transfergen.evaluation.extractors import Extractor
from transfergen.networks.backbones.timm import weights_id


def pretrained_weight_ids(config: Any) -> set[str]:
    """Ids of all pretrained weights that are named anywhere in a config, without building a network."""
    found: set[str] = set()
    if isinstance(config, list):
        return found.union(*map(pretrained_weight_ids, config))
    if isinstance(config, dict):
        architecture = str(config.get("arch", config.get("name")))
        if "weights" in config and timm.get_pretrained_cfg(architecture):  # extractors have no others
            found |= {weights_id(architecture, config["weights"]) or ""} - {""}
        return found.union(*map(pretrained_weight_ids, config.values()))
    return found


def shared_weights(extractor: Extractor, config: dict[str, Any]) -> str | None:
    """The extractor's pretrained weights if a training, given by its config, uses them too; None otherwise.

    It may use them in the discriminator, in a transfer strategy or in a perceptual loss.
    """
    networks = [config.get("discriminator"), config.get("transfer")]
    if (config.get("objective") or {}).get("perceptual"):
        networks.append(config["backbone"])
    return extractor.weights_id if extractor.weights_id in pretrained_weight_ids(networks) else None


def shared_weights_warning(extractor: Extractor, weights: str) -> str:
    """The warning that metrics of this extractor are biased, since the training uses its `weights`."""
    return (
        f"the generator's losses and the extractor {extractor.name} share the weights {weights}, so its distances "
        "flatter this generator (arXiv:2203.06026); give those of another extractor too, such as metrics=pixels"
    )
