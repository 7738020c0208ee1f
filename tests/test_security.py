"""No file from outside runs code: calls that the code must not make, and files that try."""

import ast
import json

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from runs import ANY_MODEL, ROOT, SMALL_MODELS, called, train
from safetensors.torch import save_file

from transfergen.commands.generate import main as generate
from transfergen.config import CONF_DIR
from transfergen.networks.generators.resnet import ResNet
from transfergen.runs import artefacts
from transfergen.runs.checkpoint import save
from transfergen.runs.generator_files import load_generator, save_generator
from transfergen.runs.saved_config import dump_composed

DCGAN = "transfergen.networks.generators.dcgan.DCGAN"
FILES = [ROOT / "train.py", *sorted((ROOT / "src").rglob("*.py")), *sorted((ROOT / "benchmarks").glob("*.py"))]
FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
CALLS = {"eval", "exec", "os.system", "torch.hub.load", "torch.hub.load_state_dict_from_url", "yaml.load"}


def offences(source):
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (f"imports {name}" for name in names if name.split(".")[0] in FORBIDDEN)
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name in CALLS or name.endswith((".extractall", ".extract_archive", ".load_from_checkpoint")):
            yield f"calls {name}"
        reads = name == "torch.load" or "ckpt_path" in given
        if reads and given.get("weights_only") != "True":
            yield f"{name} without weights_only=True"
        if given.get("allow_pickle", "False") != "False" or given.get("shell", "False") != "False":
            yield f"{name} with {given}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_file_can_unpickle_or_run_what_it_reads(file):
    assert list(offences(file.read_text())) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from dill import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "trainer.fit(module, ckpt_path=path)",
        "np.load(path, allow_pickle=True)",
        "tar.extractall(path)",
        "eval(text)",
        "subprocess.run(line, shell=True)",
    ],
)
def test_the_search_finds_what_it_looks_for(line):
    assert list(offences(line))


@pytest.fixture
def run(tmp_path):
    """A run that can be resumed, as far as it is read before its networks are built."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = compose("train", [*ANY_MODEL, *SMALL_MODELS["dcgan"]])
    choices = OmegaConf.create({"model": "dcgan", "experiment": None})
    (tmp_path / artefacts.COMPOSED).write_text(dump_composed(config, choices))
    save({}, tmp_path / artefacts.LAST_CHECKPOINT)
    return tmp_path


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def trap(tmp_path):
    """A pickle that makes a file when it is read, and that file."""
    torch.save(Payload(tmp_path / "ran"), tmp_path / "trap.pth")
    yield {"_target_": "torch.load", "f": str(tmp_path / "trap.pth"), "weights_only": False}
    assert not (tmp_path / "ran").exists()


def test_a_runs_config_that_names_a_foreign_target_is_refused(run, trap):
    path = run / artefacts.COMPOSED
    saved = OmegaConf.load(path)
    saved.config.augment = trap
    OmegaConf.save(saved, path)
    code, _, err = train(None, f"resume={run}", "max_images=16", small=False)
    assert code == 2
    assert "_target_=torch.load: refused" in err


def test_a_runs_generator_that_names_a_foreign_target_is_refused(trap, tmp_path):
    metadata = {"generator": trap, "ema": True, "images_seen": 8, "sha256": ""}
    (tmp_path / artefacts.GENERATOR_METADATA).write_text(json.dumps(metadata))
    code, _, err = called(generate, f"run={tmp_path}", f"out={tmp_path / 'out'}")
    assert code == 2
    assert "_target_=torch.load: refused" in err


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"_target_": "transfergen.no.such.module.Generator"}, "refused"),
        ({"_target_": "transfergen.networks.backbones.vgg.VGG"}, "it is no generator"),
        ({"_target_": DCGAN, "width": 10**6}, "architecture"),
        ({"_target_": DCGAN, "width": 10**30}, "cannot be built"),
        ({"_target_": DCGAN, "width": "wide"}, "cannot be built"),
        ({"_target_": DCGAN, "z_dim": -1}, "cannot be built"),
        ({"_target_": DCGAN, "depth": 1}, "cannot be built"),
        ({"_target_": DCGAN, "resolution": 2**40}, "resolution"),
        ([], "damaged"),
        ({}, "damaged"),
    ],
)
def test_a_generators_file_of_unknown_modules_or_absurd_sizes_gets_one_line(tmp_path, config, line):
    metadata = {"generator": config, "ema": True, "images_seen": 8, "sha256": ""}
    (tmp_path / artefacts.GENERATOR_METADATA).write_text(json.dumps(metadata))
    save_file({"x": torch.zeros(1)}, tmp_path / artefacts.GENERATOR_WEIGHTS)
    with pytest.raises(ValueError, match=line) as refused:
        load_generator(tmp_path)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("content", ["[]", "5", '{"generator": 5}', "[" * 100_000, '{"images_seen": "<b>"}'])
def test_metadata_of_wrong_types_are_damaged(tmp_path, content):
    (tmp_path / artefacts.GENERATOR_METADATA).write_text(content)
    with pytest.raises(ValueError, match=r"generator\.json is damaged"):
        load_generator(tmp_path)


@pytest.mark.parametrize("classes", ["cat", ["cat", 1], ["cat"]])
def test_names_of_classes_that_do_not_fit_the_generator_are_damaged(tmp_path, classes):
    settings = {"resolution": 32, "width": 4, "num_classes": 2}
    config = {"_target_": "transfergen.networks.generators.resnet.ResNet", **settings}
    save_generator(tmp_path, ResNet(**settings), config, ema=True, images_seen=8)
    metadata = json.loads((tmp_path / artefacts.GENERATOR_METADATA).read_text())
    (tmp_path / artefacts.GENERATOR_METADATA).write_text(json.dumps(metadata | {"classes": classes}))
    with pytest.raises(ValueError, match=r"generator\.json is damaged"):
        load_generator(tmp_path)


@pytest.mark.parametrize("key", ["resume", "init_from.generator"])
def test_a_url_is_refused(tmp_path, key):
    url = "https://example.org/run"
    code, _, err = train(tmp_path / "new", *ANY_MODEL, *SMALL_MODELS["dcgan"], f"{key}={url}", small=False)
    assert code == 2
    assert f"{key}={url}" in err
