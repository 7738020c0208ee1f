import hashlib
import os
import pickle
import re
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model_weights

from transfergen.networks import weights
from transfergen.networks.backbones.vgg import FULL_SHA256
from transfergen.networks.weights import Download, pick, read_state_dict, verify

BODY = b"weights" * 500_000
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """torch.hub's folder of weights, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def served():
    """A server of BODY on this machine: its URL, the paths asked for, and a hook that runs before each answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            server.before_answer()
            self.send_response(200)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY[: len(BODY) // 2] if "cut-off" in self.path else BODY)

        def log_message(self, *args):
            pass

    requests: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.before_answer = lambda: None
    server.requests = requests
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def left_in(folder):
    return sorted(file.name for file in folder.iterdir() if file.suffix != ".lock")


def test_a_flipped_bit_is_found_by_the_whole_digest_and_by_its_first_digits(tmp_path):
    file = tmp_path / "vgg.pth"
    file.write_bytes(BODY)
    verify(file, SHA256)
    verify(file, SHA256[:8])
    flip_a_bit(file)
    for digest in (SHA256, SHA256[:8]):
        with pytest.raises(ValueError, match=rf"^weights: .*vgg\.pth is damaged.* expected {digest}"):
            verify(file, digest)


@pytest.mark.parametrize("sha256", [SHA256, SHA256[:8]])
def test_a_download_lands_in_torchs_cache_and_is_not_fetched_again(served, hub, sha256):
    download = Download(f"{served.url}/models/vgg-{SHA256[:8]}.pth", sha256)
    for _ in range(2):
        assert download.fetch() == hub / f"vgg-{SHA256[:8]}.pth"
        assert download.cached.read_bytes() == BODY
    assert len(served.requests) == 1
    assert left_in(hub) == [download.cached.name]


def test_a_cached_file_is_verified_each_time(served, hub):
    download = Download(f"{served.url}/vgg.pth", SHA256)
    flip_a_bit(download.fetch())
    with pytest.raises(ValueError, match=r"^weights: .*vgg\.pth is damaged"):
        download.fetch()


def test_a_cached_file_is_read_where_nothing_can_be_written(hub, monkeypatch):
    def refuse(path):
        raise PermissionError(path)

    hub.mkdir(parents=True)
    (hub / "vgg.pth").write_bytes(BODY)
    monkeypatch.setattr(weights, "FileLock", refuse)  # as in a read-only folder
    assert Download("http://127.0.0.1:1/vgg.pth", SHA256).fetch() == hub / "vgg.pth"


@pytest.mark.parametrize("path", ["cut-off.pth", "other.pth"])
def test_a_download_that_is_not_the_published_file_never_reaches_the_cache(served, hub, path):
    expected = SHA256 if path == "cut-off.pth" else "0" * 64
    with pytest.raises(ValueError, match=expected):
        Download(f"{served.url}/{path}", expected).fetch()
    assert left_in(hub) == []


def test_without_a_network_the_message_says_all_that_helps(hub):
    url = "http://127.0.0.1:9/models/vgg19.pth"  # nothing listens there
    with pytest.raises(ValueError, match=r"^weights: cannot download") as refused:
        Download(url, SHA256).fetch()
    for fact in (url, str(hub / "vgg19.pth"), SHA256, "local copy", "random"):
        assert fact in str(refused.value)
    assert left_in(hub) == []


def test_two_that_start_at_once_download_once(served):
    """The answer to the first is held back until the second has started."""
    asked, second_started = threading.Event(), threading.Event()

    def before_answer():
        asked.set()
        second_started.wait(10)

    served.before_answer = before_answer
    download, found = Download(f"{served.url}/vgg.pth", SHA256), []

    def second():
        asked.wait(10)
        second_started.set()
        found.append(download.fetch())

    thread = threading.Thread(target=second)
    thread.start()
    found.append(download.fetch())
    thread.join()
    assert found == [download.cached] * 2
    assert len(served.requests) == 1


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_tensors_come_back_by_name(tmp_path, suffix, wrapped):
    state = {"a.weight": torch.randn(2, 3), "a.bias": torch.randn(2).half()}
    file = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(state, file)
    else:
        torch.save({"state_dict": state} if wrapped else state, file)
    found = read_state_dict(file)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


class Payload:
    """A pickle that makes a folder when it is loaded without care."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html><body>404</body></html>", b"\x80\x02"])
def test_a_file_without_weights_is_refused_by_the_name_of_the_argument(tmp_path, suffix, content):
    file = tmp_path / f"weights.{suffix}"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^weights=.*weights\.{suffix}: "):
        read_state_dict(file)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_file_cut_short_is_refused(tmp_path, suffix, part):
    file = tmp_path / f"weights.{suffix}"
    state = {"weight": torch.randn(1000)}
    save_file(state, file) if suffix == "safetensors" else torch.save(state, file)
    file.write_bytes(file.read_bytes()[: int(part * file.stat().st_size)])
    with pytest.raises(ValueError, match=r"^weights=.*damaged"):
        read_state_dict(file)


@pytest.mark.parametrize("save", [torch.save, lambda content, file: file.write_bytes(pickle.dumps(content, 2))])
@pytest.mark.parametrize("nested", [False, True])
def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path, save, nested):
    target, file = tmp_path / "made", tmp_path / "weights.pth"
    payload = Payload(target)
    save({"weight": torch.zeros(1), "more": payload} if nested else payload, file)
    with pytest.raises(ValueError, match=r"^weights=.*weights\.pth: refused, it holds more than tensors"):
        read_state_dict(file)
    assert not target.exists()
    pickle.loads(pickle.dumps(payload))
    assert target.exists()  # as it would have been


@pytest.mark.parametrize(
    "text", ["\n<!DOCTYPE html><html>", "<html>404", "version https://git-lfs.github.com/spec/v1\n"]
)
def test_a_page_or_a_pointer_that_was_downloaded_instead_of_weights_is_no_pickle(tmp_path, text):
    (tmp_path / "weights.pth").write_text(text)
    with pytest.raises(ValueError, match=r"weights\.pth: a web page or a Git LFS pointer; download it again$"):
        read_state_dict(tmp_path / "weights.pth")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, torch.zeros(2)])
def test_a_pickle_of_something_else_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="contains no state dict of tensors by name"):
        read_state_dict(tmp_path / "weights.pth")


@pytest.mark.parametrize("path", ["http://example.com/vgg.pth", "https://example.com/vgg.safetensors"])
def test_a_url_in_place_of_a_path_is_refused(path):
    with pytest.raises(ValueError, match=r"^run=https?:/.*download the file yourself"):
        read_state_dict(Path(path), argument="run")


def test_what_is_wanted_is_picked_in_the_wanted_dtype():
    state = {"a": torch.tensor([1.5], dtype=torch.float16), "b": torch.ones(2), "head": torch.ones(9)}
    picked = pick(state, {"a": torch.zeros(1), "b": torch.zeros(2)}, "FILE")
    assert {name: (t.dtype, t.tolist()) for name, t in picked.items()} == {
        "a": (torch.float32, [1.5]),
        "b": (torch.float32, [1.0, 1.0]),
    }


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"b": torch.zeros(2)}, r"another architecture: 1 of 1 tensors are missing, a first .*1, b first"),
        ({}, r"another architecture: 1 of 1 .*0, none first"),
        ({"a": torch.zeros(3)}, r"another architecture: a is \(3,\), expected \(2,\)"),
        ({"a": torch.tensor([0.0, torch.nan])}, r"damaged: a contains NaN or infinity"),
        ({"a": torch.tensor([0.0, -torch.inf])}, r"damaged: a contains NaN or infinity"),
        ({"a": torch.tensor([0.0, 1e300], dtype=torch.double)}, r"damaged: a contains NaN or infinity"),
    ],
)
def test_weights_that_do_not_fit_or_are_not_finite_are_refused_by_the_name_of_the_argument(state, message):
    with pytest.raises(ValueError, match=rf"^weights=FILE: .*{message}"):
        pick(state, {"a": torch.zeros(2)}, "FILE")


def test_vgg16_and_vgg19_are_compared_by_all_digits_of_their_sha256():
    for arch in ("vgg16", "vgg16_bn", "vgg19", "vgg19_bn"):
        prefix = Path(get_model_weights(arch).DEFAULT.url).stem.rsplit("-", 1)[-1]
        assert re.fullmatch(f"{prefix}[0-9a-f]{{56}}", FULL_SHA256[prefix]), arch
