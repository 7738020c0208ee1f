"""A generator as one HTML page, which runs it in the browser: no server, no network, no other file."""

import base64
import hashlib
import tarfile
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch

from transfergen.networks.weights import Download
from transfergen.runs import artefacts
from transfergen.sampling.export import onnx_difference, to_onnx
from transfergen.sampling.pretrained import PretrainedGenerator
from transfergen.templates import html_templates

if TYPE_CHECKING:
    from onnx import ModelProto

ONE_LEVEL = 2 / 255
"""The difference between two neighbouring levels of 8 bits, for images in [-1, 1]."""
RUNTIME = "onnxruntime-web@1.30.0"
"""The npm package that runs ONNX in a browser."""
SHA256 = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""Digests of the two files in it that a page needs: the script, and the WebAssembly for the CPU."""
FILES_URL = f"https://cdn.jsdelivr.net/npm/{RUNTIME}/dist"
_LARGE = 1024
"""Numbers in the smallest tensor that is stored in a shorter type."""


def to_web(generator: PretrainedGenerator, path: Path, *, runtime: str | None = None, directions: int = 6) -> float:
    """Write a page with seeds, interpolation, classes, and sliders that move the latent along its `directions`.

    A seed gives the image that it gives everywhere else, to `ONE_LEVEL`. The weights are stored in the shortest of
    bfloat16, float16 and float32 that keeps to it.

    Args:
        generator: is left as it is.
        path: of the page.
        runtime: see `read_runtime`.
        directions: number of sliders; a generator without `latent_weight` has none.

    Returns:
        The largest difference between onnxruntime's images and PyTorch's.

    Raises:
        ValueError: packages are not installed, or there is no runtime.
    """
    script, wasm = read_runtime(runtime)
    with TemporaryDirectory() as folder:
        file = Path(folder, "generator.onnx")
        to_onnx(generator, file)
        import onnx  # to_onnx has said so if it is not installed

        exact = onnx.load(file)
    for kind in (torch.bfloat16, torch.float16, torch.float32):
        model = stored_as(exact, kind).SerializeToString()
        difference = onnx_difference(model, generator)
        if difference <= ONE_LEVEL:
            break
    try:
        vectors = generator.directions(min(directions, generator.z_dim)).tolist()
    except ValueError:  # it does not say which weights take the latent
        vectors = []
    pages = html_templates("transfergen.sampling", "web")
    page = pages.get_template("page.html").render(
        name=type(generator.network).__name__,
        origin=generator.origin,
        shape=generator.image_shape,
        classes=generator.classes,
        z_dim=generator.z_dim,
        directions=vectors,
        model=_packed(model[0::2] + model[1::2], zlib.Z_HUFFMAN_ONLY),  # low bytes, then high bytes: a sixth smaller
        runtime=_packed(script),
        wasm=_packed(wasm),
    )
    artefacts.write(path, page.encode(errors="replace"))
    return difference


def stored_as(model: "ModelProto", kind: torch.dtype) -> "ModelProto":
    """A copy of an ONNX model whose large float32 weights are stored in a 16-bit type, and computed with in float32."""
    from onnx import ModelProto, TensorProto, helper, numpy_helper

    short = ModelProto()
    short.CopyFrom(model)
    if kind is torch.float32:
        return short
    stored_type = TensorProto.BFLOAT16 if kind is torch.bfloat16 else TensorProto.FLOAT16
    for weight in short.graph.initializer:
        numbers = torch.tensor(numpy_helper.to_array(weight))
        if weight.data_type != TensorProto.FLOAT or numbers.numel() < _LARGE:
            continue
        name = weight.name
        weight.CopyFrom(
            TensorProto(
                name=f"{name}.stored",
                dims=weight.dims,
                data_type=stored_type,
                raw_data=numbers.to(kind).view(torch.int16).numpy().tobytes(),
            )
        )
        short.graph.node.insert(0, helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    return short


def read_runtime(archive: str | None) -> list[bytes]:
    """The script and the WebAssembly of onnxruntime-web.

    Args:
        archive: the package as `npm pack` writes it; None: the two files are downloaded once, and kept in torch.hub's
            cache.

    Raises:
        ValueError: they cannot be downloaded, or the archive is that of another package.
    """
    if archive is None:
        advice = f" of the package, from npm pack {RUNTIME}: web_runtime=FILE.tgz"
        downloads = [Download(f"{FILES_URL}/{name}", digest, f"{RUNTIME}-{name}") for name, digest in SHA256.items()]
        return [each.fetch("web_runtime", advice).read_bytes() for each in downloads]
    try:
        with tarfile.open(Path(archive).expanduser()) as package:
            members = [package.extractfile(f"package/dist/{name}") for name in SHA256]
            contents = [member.read() if member else b"" for member in members]
    except (OSError, EOFError, KeyError, tarfile.TarError) as error:
        raise ValueError(f"web_runtime={archive}: cannot be read ({error}); npm pack {RUNTIME} writes it") from error
    if [hashlib.sha256(content).hexdigest() for content in contents] != list(SHA256.values()):
        raise ValueError(f"web_runtime={archive}: is another version, or damaged; npm pack {RUNTIME} writes it")
    return contents


def _packed(content: bytes, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> str:
    """Base64 of gzip."""
    gzip = zlib.compressobj(level=9, wbits=31, strategy=strategy)
    return base64.b64encode(gzip.compress(content) + gzip.flush()).decode()
