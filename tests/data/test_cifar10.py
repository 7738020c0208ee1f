import hashlib
import pickle
import socket
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from transfergen.data.cifar10 import cifar10

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PER_FILE = 4


def md5(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def rows(name):
    """The content of a batch file: pixels (N, 3072), the red plane first, and labels."""
    rng = np.random.default_rng(list(name.encode()))
    return rng.integers(0, 256, (PER_FILE, 3072), np.uint8), rng.integers(0, 10, PER_FILE).tolist()


def expected(split):
    """Pixels (N, 32, 32, 3) and labels of a split, assembled plane by plane."""
    names = [name for name, _ in CIFAR10.train_list] if split == "train" else ["test_batch"]
    data = np.concatenate([rows(name)[0] for name in names])
    planes = [data[:, i * 1024 : (i + 1) * 1024].reshape(-1, 32, 32) for i in range(3)]
    return np.stack(planes, axis=3), [label for name in names for label in rows(name)[1]]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small CIFAR-10: a folder in its real layout, the archive, and torchvision's class with their checksums."""
    root = tmp_path_factory.mktemp("cifar10")
    folder = root / CIFAR10.base_folder
    folder.mkdir()
    for name, _ in CIFAR10.train_list + CIFAR10.test_list:
        data, labels = rows(name)
        (folder / name).write_bytes(pickle.dumps({"batch_label": name, "labels": labels, "data": data}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": CLASSES, "num_vis": 3072}))
    archive = root / CIFAR10.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, CIFAR10.base_folder)

    class Small(CIFAR10):
        url = "http://127.0.0.1:9/cifar-10-python.tar.gz"  # no server answers there
        tgz_md5 = md5(archive)
        train_list = [[name, md5(folder / name)] for name, _ in CIFAR10.train_list]
        test_list = [[name, md5(folder / name)] for name, _ in CIFAR10.test_list]
        meta = CIFAR10.meta | {"md5": md5(folder / "batches.meta")}

    return root, archive, Small


@pytest.fixture
def server(small):
    """The address of a web server that has the archive, and the list of requests to it."""
    _, archive, _ = small
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            content = archive.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}/{CIFAR10.filename}", requests
        http.shutdown()
        thread.join()


def check(pictures, split):
    pixels, labels = expected(split)
    np.testing.assert_array_equal(pictures.pixels, pixels)
    assert pictures.labels.tolist() == labels
    assert pictures.classes == tuple(CLASSES)


@pytest.mark.parametrize(("split", "count"), [("train", 5 * PER_FILE), ("test", PER_FILE)])
@pytest.mark.parametrize("download", [True, False])
def test_files_in_the_real_layout_give_their_pixels_labels_and_classes(small, split, count, download):
    root, _, dataset = small
    pictures = cifar10(str(root), split, download=download, dataset=dataset)
    assert len(pictures) == count
    check(pictures, split)
    np.testing.assert_array_equal(np.asarray(pictures.open(3)), expected(split)[0][3])


def test_splits_have_different_identities(small):
    root, _, dataset = small
    assert len({cifar10(str(root), split, dataset=dataset).identity() for split in ("train", "test")}) == 2


def assert_one_line_about(path, error):
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"data.path={path}: ")
    assert str(path / CIFAR10.base_folder) in message


def test_missing_files_without_download_are_refused_in_one_line(small, tmp_path):
    with pytest.raises(ValueError, match=r"unpack a copy to .* data=huggingface") as error:
        cifar10(str(tmp_path / "empty"), "train", download=False, dataset=small[2])
    assert_one_line_about(tmp_path / "empty", error)
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize("name", ["pictures", "pictures.zip"])
def test_pictures_of_ones_own_are_not_taken_for_cifar10(small, server, tmp_path, name):
    url, requests = server
    path = tmp_path / name
    file = path if path.suffix else path / "1.png"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"mine")
    with pytest.raises(ValueError, match="set data=image_folder for pictures of your own") as error:
        cifar10(str(path), "train", dataset=type("Served", (small[2],), {"url": url}))
    assert str(error.value).startswith(f"data.path={path}: ")
    assert not requests
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == [file]


@pytest.mark.parametrize("damaged", ["data_batch_2", "test_batch", "batches.meta"])
def test_damaged_file_is_refused_and_not_unpickled(small, tmp_path, damaged):
    root, _, dataset = small
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    for file in (root / CIFAR10.base_folder).iterdir():
        (folder / file.name).write_bytes(b"no pickle" if file.name == damaged else file.read_bytes())
    with pytest.raises(ValueError, match=r"data\.path="):
        cifar10(str(tmp_path), "train", download=False, dataset=dataset)


def test_missing_files_are_downloaded_once_for_both_splits(small, server, tmp_path):
    url, requests = server
    served = type("Served", (small[2],), {"url": url})
    for split in ("train", "test", "train"):
        check(cifar10(str(tmp_path / "new" / "folder"), split, dataset=served), split)
    assert len(requests) == 1 + 1  # torchvision looks for a redirect, then downloads


def test_two_at_once_download_once(small, server, tmp_path):
    url, requests = server
    served = type("Served", (small[2],), {"url": url})
    found = {}

    def get(split):
        found[split] = cifar10(str(tmp_path), split, dataset=served)

    threads = [threading.Thread(target=get, args=(split,)) for split in ("train", "test")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for split in ("train", "test"):
        check(found[split], split)
    assert len(requests) == 1 + 1


def test_damaged_file_is_downloaded_again(small, server, tmp_path):
    url, _ = server
    served = type("Served", (small[2],), {"url": url})
    cifar10(str(tmp_path), "train", dataset=served)
    (tmp_path / CIFAR10.base_folder / "data_batch_3").write_bytes(b"")
    check(cifar10(str(tmp_path), "train", dataset=served), "train")


def test_download_with_another_checksum_is_refused(small, server, tmp_path):
    url, _ = server
    other = type("Other", (small[2],), {"url": url, "tgz_md5": "0" * 32})
    with pytest.raises(ValueError, match="cannot be downloaded") as error:
        cifar10(str(tmp_path), "train", dataset=other)
    assert_one_line_about(tmp_path, error)
    assert not (tmp_path / CIFAR10.base_folder).exists()


def test_without_a_network_the_error_names_the_folder_and_the_address(small, tmp_path):
    with socket.socket() as bound:  # a port that is bound but not served refuses connections
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/{CIFAR10.filename}"
        with pytest.raises(ValueError, match="cannot be downloaded") as error:
            cifar10(str(tmp_path), "test", dataset=type("Unreachable", (small[2],), {"url": url}))
    assert url in str(error.value)
    assert_one_line_about(tmp_path, error)
