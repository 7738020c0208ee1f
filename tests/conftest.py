import gc
import os
import resource
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
from composing import share_configs
from runs import CACHE

from transfergen.runs import artefacts

gc.disable()  # until all is imported, see pytest_collection_finish
torch.set_num_threads(1)  # the suite runs as many processes as there are cores
artefacts.CACHE = str(CACHE)  # and not that of whoever runs the tests
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it, and trainings respect that
share_configs()
os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported, which nothing above does


def pytest_collection_finish():
    """From now on Python collects garbage, and never searches what was imported for it, which takes 0.3 s each time."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def tf32():
    """The two settings by which CUDA rounds float32 to TF32, which they say during the test."""
    settings = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [each.fp32_precision for each in settings]
    for each in settings:
        each.fp32_precision = "tf32"
    yield settings
    for each, precision in zip(settings, before, strict=True):
        each.fp32_precision = precision


@pytest.fixture
def narrow_clip(monkeypatch):
    """CLIP's image tower has two narrow blocks in place of its 24."""
    import timm

    monkeypatch.setattr(timm, "create_model", partial(timm.create_model, depth=2, embed_dim=128, num_heads=2))


@pytest.fixture(scope="session")
def shared():
    """The folder of weights and pictures beside the repository, or wherever TRANSFERGEN_SHARED says."""
    root = Path(__file__).parents[1]
    folder = root / os.environ.get("TRANSFERGEN_SHARED", "../shared")
    if not folder.is_dir():
        reason = f"there is no folder {folder}; set TRANSFERGEN_SHARED to the one with weights/ and data/"
        (pytest.fail if "CI" in os.environ else pytest.skip)(reason)
    return folder


@pytest.fixture(scope="session")
def vgg_weights(shared):
    """The first three blocks of the ImageNet VGG19, in float16."""
    return shared / "weights" / "vgg19_conv1_1-conv3_4.safetensors"


@pytest.fixture(scope="session")
def cifar10_parquet(shared):
    """20,000 training and 2,000 test images of CIFAR-10 in the Hugging Face hub's layout."""
    return shared / "data" / "cifar10"


@pytest.fixture
def small_files():
    """No file of this process grows beyond 64 KiB, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
