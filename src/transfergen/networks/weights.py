"""Weights from outside: found, downloaded, verified, and read without ever running code from the file."""

import hashlib
import os
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import torch
from filelock import FileLock
from rich.progress import wrap_file
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

CONNECT_TIMEOUT_S = 5.0


class WeightsError(ValueError):
    """Weights cannot be had, are damaged, or belong to another network."""


@dataclass(frozen=True)
class Download:
    """A file of weights on the network. `sha256` is the full digest, or the leading digits that its publisher gives."""

    url: str
    sha256: str

    @property
    def cached(self) -> Path:
        """Where torch.hub would keep it, so that a copy that torchvision downloaded serves too."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.url.rsplit("/", 1)[-1]

    def fetch(self) -> Path:
        """The verified file in the cache, downloaded if it is not there. Safe to call from several processes at once.

        Raises:
            WeightsError: no network, or the file is not what its publisher describes.
        """
        self.cached.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.cached}.lock"):
            if not self.cached.exists():
                self._download()
            verify(self.cached, self.sha256)
        return self.cached

    def _download(self) -> None:
        partial = self.cached.with_suffix(f".{os.getpid()}.part")
        try:
            with urllib.request.urlopen(self.url, timeout=CONNECT_TIMEOUT_S) as answer:
                length = answer.headers["Content-Length"]
                total = int(length) if length else 0  # no total, no bar that fills
                with wrap_file(answer, total, description=self.cached.name) as body, partial.open("wb") as out:
                    while chunk := body.read(1 << 20):
                        out.write(chunk)
            verify(partial, self.sha256)
            partial.replace(self.cached)
        except (OSError, HTTPException, ValueError) as error:
            raise WeightsError(
                f"cannot download {self.url} ({error}); put the file at {self.cached} (SHA-256 {self.sha256}), or set "
                "backbone.weights=FILE to a local copy, or backbone.weights=random to do without pretraining"
            ) from error
        finally:
            partial.unlink(missing_ok=True)


def verify(path: Path, sha256: str) -> None:
    """Compare a file with its SHA-256, or with the digest's leading digits.

    Raises:
        WeightsError: they differ.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(sha256):
        raise WeightsError(
            f"{path} is damaged or another file: its SHA-256 is {found}, expected {sha256}; delete it, or set "
            "backbone.weights=FILE"
        )


def read_state_dict(path: Path, override: str = "backbone.weights") -> dict[str, Tensor]:
    """Tensors by name from a `.safetensors` file, or from a `.pth` by the unpickler that builds nothing but tensors.

    Raises:
        WeightsError: there is no such file, it is damaged, or it holds something else. Names the `override`.
    """
    if str(path).startswith(("http:", "https:")):
        raise WeightsError(f"{override}={path}: download the file yourself and give its path")
    if not path.is_file():
        raise WeightsError(f"{override}={path}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{override}={path}: damaged, or no file of weights ({_first_line(error)})") from error
    except Exception as error:  # pickle.UnpicklingError and what else a hostile or broken pickle provokes
        raise WeightsError(f"{override}={path}: refused, it holds more than tensors ({_first_line(error)})") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if isinstance(state, dict):  # what modules keep beside their tensors
        state = {name: value for name, value in state.items() if not str(name).endswith("_extra_state")}
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{override}={path}: holds no state dict of tensors by name")
    return state


def pick(
    state: dict[str, Tensor], wanted: dict[str, Tensor], source: str, override: str = "backbone.weights"
) -> dict[str, Tensor]:
    """Those tensors of `state` that `wanted` names, in its dtypes; others may be there, none may be missing.

    Raises:
        WeightsError: a name is missing or a shape differs: the weights of another architecture.
    """
    missing = [name for name in wanted if name not in state]
    if missing:
        raise WeightsError(
            f"{override}={source}: weights of another architecture: {len(missing)} of {len(wanted)} tensors are "
            f"missing, {missing[0]} first (the file has {len(state)}, {next(iter(state), 'none')} first)"
        )
    for name, tensor in wanted.items():
        if state[name].shape != tensor.shape:
            raise WeightsError(
                f"{override}={source}: weights of another architecture: {name} is {tuple(state[name].shape)}, "
                f"expected {tuple(tensor.shape)}"
            )
    picked = {name: state[name].to(tensor.dtype) for name, tensor in wanted.items()}
    damaged = [name for name, tensor in picked.items() if not torch.isfinite(tensor).all()]
    if damaged:
        raise WeightsError(f"{override}={source}: damaged: {damaged[0]} holds NaN or infinity")
    return picked


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:120] or type(error).__name__
