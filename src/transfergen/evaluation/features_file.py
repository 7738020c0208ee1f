"""Files of features: an `.npz` with their mean and covariance, as pytorch-fid and clean-fid have it, and themselves."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from transfergen.data.array_file import read_arrays
from transfergen.evaluation.distances import Gaussian, gaussian_of_moments
from transfergen.evaluation.extractors import Extractor
from transfergen.runs import artefacts

log = logging.getLogger(__name__)

MEAN, COVARIANCE, FEATURES = "mu", "sigma", "feats"
"""Arrays of the file: (D,) and (D, D), as pytorch-fid and clean-fid name them, and (N, D), as clean-fid does."""
EXTRACTOR, FINGERPRINT = "extractor", "fingerprint"
"""Texts that say what the features are, see `Extractor`; only in files of `save_features`."""


def save_features(path: Path, features: Tensor, extractor: Extractor) -> None:
    """Write features (N, D) of an extractor with their mean and covariance, whole or not at all."""
    arrays: dict[str, Any] = {
        MEAN: features.double().mean(dim=0).numpy(),
        COVARIANCE: features.double().T.cov().numpy(),
        FEATURES: features.numpy(),
        EXTRACTOR: np.array(extractor.name),
        FINGERPRINT: np.array(extractor.fingerprint),
    }
    with artefacts.partial(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)


def load_features(path: Path, extractor: Extractor) -> Tensor | Gaussian | None:
    """Features (N, D), float32, of a file; their Gaussian if it holds no more; None if it holds neither.

    Files of other programs do not say what made them, which is warned of.

    Raises:
        ValueError: they are not those of the `extractor`, or the file cannot be read.
    """
    arrays = read_arrays(path, (MEAN, COVARIANCE, FEATURES, EXTRACTOR, FINGERPRINT))
    kept = arrays.get(FEATURES)
    if kept is None and not {MEAN, COVARIANCE} <= arrays.keys():
        return None
    theirs = str(arrays.get(FINGERPRINT, ""))
    if theirs not in ("", extractor.fingerprint):
        raise ValueError(
            f"holds features of {arrays.get(EXTRACTOR, 'another extractor')} (SHA-256 {theirs[:8]}), which are not "
            f"comparable with those of {extractor.name} ({extractor.fingerprint[:8]}); choose the same extractor"
        )
    dimensions = extractor.dimensions
    numbers = [kept] if kept is not None else [arrays[MEAN], arrays[COVARIANCE]]
    fitting = [(len(numbers[0]), dimensions)] if kept is not None and kept.ndim else [(dimensions,), (dimensions,) * 2]
    if [each.shape for each in numbers] != fitting:
        found = " and ".join(str(each.shape) for each in numbers)
        raise ValueError(f"holds {found} numbers, and the features of {extractor.name} have {dimensions} dimensions")
    if not all(np.issubdtype(each.dtype, np.floating) and np.isfinite(each).all() for each in numbers):
        raise ValueError("holds features that are not finite numbers")
    if not theirs:
        log.warning(f"{path} does not say which network made it; it is compared with features of {extractor.name}")
    if kept is not None:
        return torch.from_numpy(kept).float()
    return gaussian_of_moments(*(torch.from_numpy(each) for each in numbers))
