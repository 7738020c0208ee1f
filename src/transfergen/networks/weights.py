"""Files of weights: downloaded, verified, and read without running any code from the file."""

import os
import re
import socket
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import torch
from filelock import FileLock
from huggingface_hub import constants
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from transfergen.digest import file_sha256
from transfergen.errors import first_line

CONNECT_TIMEOUT_S = 5.0
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
"""OWNER/MODEL, a name on the Hugging Face hub."""
WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
_SCALARS: list[Any] = [
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *(np.dtype, *(type(np.dtype(kind)) for kind in (np.float32, np.float64, np.int64))),
]
"""numpy's numbers, such as the best metric that a project saves beside its tensors."""


class WeightsError(ValueError):
    """Weights cannot be found or downloaded, are damaged, or belong to another network."""


@dataclass(frozen=True)
class Download:
    """A published file. `sha256` is its digest, or as many of the leading digits as are published."""

    url: str
    sha256: str
    name: str = ""
    """The file's name in the cache; by default the last part of the URL."""

    @property
    def cached(self) -> Path:
        """Its path in torch.hub's cache, where torchvision puts it too."""
        return Path(torch.hub.get_dir()) / "checkpoints" / (self.name or self.url.rsplit("/", 1)[-1])

    def fetch(self, argument: str = "weights", advice: str = ", or random to do without pretraining") -> Path:
        """The path of the verified file, downloaded unless it is cached. Several processes may call it at once.

        Args:
            argument: what asks for it, which the message about a download that fails begins with.
            advice: ends that message.

        Raises:
            WeightsError: it cannot be downloaded, or its digest is another one.
        """
        if not self.cached.exists():  # else its folder need not be writable
            self.cached.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.cached}.lock"):
                if not self.cached.exists():  # another process may have downloaded it since
                    self._download(argument, advice)
        verify(self.cached, self.sha256, argument)
        return self.cached

    def _download(self, argument: str, advice: str) -> None:
        timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(CONNECT_TIMEOUT_S)  # torch.hub sets none
        try:
            torch.hub.download_url_to_file(self.url, str(self.cached), self.sha256)
        except (OSError, HTTPException, RuntimeError) as error:
            digest = f" (SHA-256 {self.sha256})" if self.sha256 else ""
            raise WeightsError(
                f"{argument}: cannot download {self.url} ({error}); put the file at {self.cached}{digest}, or give the "
                f"path of a local copy{advice}"
            ) from error
        finally:
            socket.setdefaulttimeout(timeout)


def download_from_hub(model: str, files: Sequence[str], setting: str, advice: str = "", **options: Any) -> Path:
    """Download files of a model on the Hugging Face hub, unless they are cached.

    Args:
        model: its name, OWNER/MODEL.
        files: their names.
        setting: what asks for them, which the error message begins with.
        advice: ends the error message.
        options: of `hf_hub_download`, such as `revision` or `token`.

    Returns:
        The folder that holds them.

    Raises:
        WeightsError: a file cannot be downloaded.
    """
    cache = options.get("cache_dir") or constants.HF_HUB_CACHE
    for file in files:
        url = huggingface_hub.hf_hub_url(model, file, revision=options.get("revision"))
        cached = huggingface_hub.try_to_load_from_cache(model, file, options.get("cache_dir"), options.get("revision"))
        try:
            if not isinstance(cached, str) and not options.get("local_files_only"):  # else it is tried for a minute
                huggingface_hub.get_hf_file_metadata(url, token=options.get("token"), timeout=CONNECT_TIMEOUT_S)
            path = Path(huggingface_hub.hf_hub_download(model, file, **options))
        except Exception as error:  # the hub's errors have no common class
            raise WeightsError(
                f"{setting}: cannot download {url} to {cache} ({first_line(error)}); give the path of a local copy"
                f"{advice}"
            ) from error
        if path.suffix in WEIGHT_FILES:
            verify_cached(path)
    return path.parent


def verify_cached(path: Path) -> Path:
    """A file of weights in the hub's cache, compared with the SHA-256 under which it is kept there.

    Raises:
        WeightsError: it has another one; or, but on Windows, where caches have no links, it is kept under none.
    """
    sha256 = path.resolve().name
    if re.fullmatch("[0-9a-f]{64}", sha256):
        verify(path, sha256)
    elif os.name == "posix" and "snapshots" in path.parts:  # and not in a folder of the caller's choice
        raise WeightsError(f"weights: {path} is not as the hub's cache keeps files; delete it, or give another path")
    return path


def verify(path: Path, sha256: str, argument: str = "weights") -> None:
    """Check that a file has this SHA-256, of which the leading digits are enough.

    Args:
        path: of the file.
        sha256: the whole digest, or as many of its first digits as are known.
        argument: what asks for the file, which the error message begins with.

    Raises:
        WeightsError: it has another one.
    """
    found = file_sha256(path)
    if not found.startswith(sha256):
        raise WeightsError(
            f"{argument}: {path} is damaged or another file: its SHA-256 is {found}, expected {sha256}; delete it, or "
            "give another path"
        )


def read_state_dict(path: Path, argument: str = "weights") -> dict[str, Tensor]:
    """Tensors by name from a `.safetensors` file, or from a `.pth` file, whose pickle may hold no classes of others.

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
        with warnings.catch_warnings(), torch.serialization.safe_globals(_SCALARS):
            warnings.simplefilter("ignore", UserWarning)  # of a pickle that is not torch's own
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise WeightsError(f"{argument}={path}: damaged, or no file of weights ({first_line(error)})") from error
    except Exception as error:  # pickle.UnpicklingError, and others that a hostile or broken pickle can cause
        with path.open("rb") as file:
            start = file.read(64).lstrip()
        if start.startswith((b"<", b"version https://git-lfs")):
            raise WeightsError(f"{argument}={path}: a web page or a Git LFS pointer; download it again") from error
        raise WeightsError(
            f"{argument}={path}: refused, it holds more than tensors: pickled classes, as a .pkl of StyleGAN does, can "
            "run any code when they are read; give a file of tensors by name"
        ) from error
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
    if missing := [name for name in wanted if name not in state]:
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


def load_weights(network: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load a network's tensors, but for the counters of batch norm: old files lack them, and they are not used here.

    Raises:
        WeightsError: see `pick`.
    """
    wanted = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    network.load_state_dict(pick(state, wanted, source), strict=False)


def rename(state: Mapping[str, Tensor], rules: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    r"""Tensors under new names: each by the first rule that matches its whole name, or as it was.

    Args:
        state: tensors by name.
        rules: a regular expression, and the new name with \1 for its first group.

    Raises:
        re.error: a rule is no regular expression, or has no such group.
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        found = ((re.fullmatch(theirs, name), ours) for theirs, ours in rules)
        renamed[next((match.expand(ours) for match, ours in found if match), name)] = tensor
    return renamed
