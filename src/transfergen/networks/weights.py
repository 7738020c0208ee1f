"""Files of weights: downloaded, verified, and read without running any code from the file."""

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
    """Weights cannot be found or downloaded, are damaged, or belong to another network."""


@dataclass(frozen=True)
class Download:
    """A published file of weights. `sha256` is its digest, or the leading digits if only these are published."""

    url: str
    sha256: str

    @property
    def cached(self) -> Path:
        """Its path in torch.hub's cache, where torchvision puts it too."""
        return Path(torch.hub.get_dir()) / "checkpoints" / self.url.rsplit("/", 1)[-1]

    def fetch(self) -> Path:
        """The path of the verified file, downloaded unless it is cached. Several processes may call it at once.

        Raises:
            WeightsError: it cannot be downloaded, or its digest is another one.
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
                total = int(length) if length else 0  # without a total, the progress bar does not fill
                with wrap_file(answer, total, description=self.cached.name) as body, partial.open("wb") as out:
                    while chunk := body.read(1 << 20):
                        out.write(chunk)
            if mismatch := _mismatch(partial, self.sha256):
                raise ValueError(mismatch)
            partial.replace(self.cached)
        except (OSError, HTTPException, ValueError) as error:
            raise WeightsError(
                f"weights: cannot download {self.url} ({error}); put the file at {self.cached} (SHA-256 "
                f"{self.sha256}), or give the path of a local copy, or random to do without pretraining"
            ) from error
        finally:
            partial.unlink(missing_ok=True)


def verify(path: Path, sha256: str) -> None:
    """Check that a file has this SHA-256, of which the leading digits are enough.

    Raises:
        WeightsError: it has another one.
    """
    if mismatch := _mismatch(path, sha256):
        raise WeightsError(f"weights: {path} is damaged or another file: {mismatch}; delete it, or give another path")


def _mismatch(path: Path, sha256: str) -> str | None:
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return None if found.startswith(sha256) else f"its SHA-256 is {found}, expected {sha256}"


def read_state_dict(path: Path, argument: str = "weights") -> dict[str, Tensor]:
    """Tensors by name from a `.safetensors` file, or from a `.pth` file, whose pickle may contain tensors only.

    Args:
        path: of the file.
        argument: what the path was given as, which error messages begin with.

    Raises:
        WeightsError: there is no such file, it is damaged, or it contains something else.
    """
    if str(path).startswith(("http:", "https:")):
        raise WeightsError(f"{argument}={path}: download the file yourself and give its path")
    if not path.is_file():
        raise WeightsError(f"{argument}={path}: there is no such file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{argument}={path}: damaged, or no file of weights ({_first_line(error)})") from error
    except Exception as error:  # pickle.UnpicklingError, and others that a hostile or broken pickle can cause
        raise WeightsError(f"{argument}={path}: refused, it holds more than tensors ({_first_line(error)})") from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if isinstance(state, dict):  # modules may save more than tensors
        state = {name: value for name, value in state.items() if not str(name).endswith("_extra_state")}
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{argument}={path}: contains no state dict of tensors by name")
    return state


def pick(
    state: dict[str, Tensor], wanted: dict[str, Tensor], source: str, argument: str = "weights"
) -> dict[str, Tensor]:
    """Select the tensors of `state` that `wanted` names, converted to its dtypes. `state` may contain others.

    Args:
        state: tensors by name.
        wanted: tensors by name, whose values are not used.
        source: where `state` was read from, for error messages.
        argument: what the source was given as, which error messages begin with.

    Raises:
        WeightsError: a name is missing or a shape differs, or a tensor contains NaN or infinity.
    """
    missing = [name for name in wanted if name not in state]
    if missing:
        raise WeightsError(
            f"{argument}={source}: weights of another architecture: {len(missing)} of {len(wanted)} tensors are "
            f"missing, {missing[0]} first (the file has {len(state)}, {next(iter(state), 'none')} first)"
        )
    for name, tensor in wanted.items():
        if state[name].shape != tensor.shape:
            raise WeightsError(
                f"{argument}={source}: weights of another architecture: {name} is {tuple(state[name].shape)}, "
                f"expected {tuple(tensor.shape)}"
            )
    picked = {name: state[name].to(tensor.dtype) for name, tensor in wanted.items()}
    damaged = [name for name, tensor in picked.items() if not torch.isfinite(tensor).all()]
    if damaged:
        raise WeightsError(f"{argument}={source}: damaged: {damaged[0]} contains NaN or infinity")
    return picked


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:120] or type(error).__name__
