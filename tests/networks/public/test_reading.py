"""Networks in other projects' layouts compute here what they compute there."""

import pickle

import numpy as np
import pytest
import torch
from public_networks import BigGANPyTorch, PublicDiscriminator, PublicGenerator, StudioGAN

from transfergen.networks.discriminators.resnet import ResNetDiscriminator
from transfergen.networks.generators.resnet import ResNet
from transfergen.networks.public.reading import LAYOUTS, find_source

PROJECTS = {"studiogan": StudioGAN, "biggan_pytorch": BigGANPyTorch}
NETWORKS = {"generator": (PublicGenerator, ResNet), "discriminator": (PublicDiscriminator, ResNetDiscriminator)}


def saved(path, layout, network, *, parallel=False):
    """A file as the project saves it: StudioGAN keeps more beside the tensors."""
    state = {f"module.{name}" if parallel else name: tensor for name, tensor in network.state_dict().items()}
    best = {"best_fid": np.float64(8.5), "step": 100_000, "run_name": "CIFAR10-BigGAN", "best_step": None}
    torch.save({"state_dict": state, "optimizer": {"state": {}}, **best} if layout == "studiogan" else state, path)
    return f"{layout}:{path}"


def read(given, kind, **options):
    return find_source(given).read(kind, "init_from.x", **options)


def inputs(kind, network, resolution):
    y = torch.tensor([2, 0])
    return (torch.randn(2, network.z_dim), y) if kind == "generator" else (torch.rand(2, 3, resolution, resolution), y)


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize(("resolution", "attention"), [(32, 16), (64, 32), (128, 64), (32, None)])
@pytest.mark.parametrize("kind", list(NETWORKS))
@pytest.mark.parametrize("layout", list(PROJECTS))
def test_a_network_computes_the_same_here_and_each_tensor_is_used(
    tmp_path, layout, kind, resolution, attention, parallel
):
    foreign, ours = NETWORKS[kind]
    public = foreign(PROJECTS[layout], resolution, width=8, attention=attention)
    found = read(saved(tmp_path / "x.pth", layout, public, parallel=parallel), kind)
    assert found.config["_target_"] == f"{ours.__module__}.{ours.__name__}"
    settings = {name: value for name, value in found.config.items() if name != "_target_"}
    assert {name: settings[name] for name in ("resolution", "num_classes", "attention", "spectral_norm")} == {
        "resolution": resolution,
        "num_classes": 3,
        "attention": attention,
        "spectral_norm": True,
    }
    network = ours(**settings)
    network.load_state_dict(found.state)  # strict
    network.eval()
    given = inputs(kind, public, resolution)
    with torch.no_grad():
        torch.testing.assert_close(network(*given), public(*given), rtol=1e-4, atol=1e-5)


def test_tensors_without_a_use_keep_their_names(tmp_path):
    public = PublicGenerator(StudioGAN, 32, width=4)
    public.register_buffer("extra", torch.zeros(2))
    found = read(saved(tmp_path / "x.pth", "studiogan", public), "generator")
    assert set(found.state) - set(
        ResNet(**{k: v for k, v in found.config.items() if k != "_target_"}).state_dict()
    ) == {"extra"}


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_another_network_is_refused_with_what_was_found(tmp_path, layout):
    torch.save({"main.0.weight": torch.zeros(2, 2)}, tmp_path / "x.pth")
    with pytest.raises(
        ValueError, match=rf"^init_from\.x=.*x\.pth: no generator as {layout} saves it.*main\.0\.weight"
    ):
        read(f"{layout}:{tmp_path / 'x.pth'}", "generator")


def test_a_network_of_another_layout_or_kind_is_told_with_what_to_set(tmp_path):
    files = {}
    for layout, project in PROJECTS.items():
        for kind, (network, _) in NETWORKS.items():
            files[layout, kind] = tmp_path / f"{layout}_{kind}.pth"
            saved(files[layout, kind], layout, network(project, 32, width=4))
    asked = {
        ("studiogan", "generator", "biggan_pytorch", "generator"): "set init_from.x=biggan_pytorch:{}",
        ("biggan_pytorch", "discriminator", "studiogan", "discriminator"): "set init_from.x=studiogan:{}",
        ("biggan_deep", "generator", "studiogan", "generator"): "set init_from.x=studiogan:{}",
        ("studiogan", "generator", "studiogan", "discriminator"): "give the file of a generator",
        ("biggan_pytorch", "discriminator", "biggan_pytorch", "generator"): "give the file of a discriminator",
        ("studiogan", "generator", "biggan_pytorch", "discriminator"): "give the file of a generator",
    }
    for (layout, kind, *its), advice in asked.items():
        with pytest.raises(ValueError, match="saves it") as error:
            read(f"{layout}:{files[*its]}", kind)
        told = f"no {kind} as {layout} saves it, but a {its[1]} as {its[0]} does; {advice.format(files[*its])}"
        assert str(error.value) == f"init_from.x={files[*its]}: {told}"


def test_a_name_that_is_not_published_is_told_with_those_that_are(tmp_path):
    with pytest.raises(
        ValueError, match=r"^init_from\.x=biggan_deep:100: there is no such file, and published are 128, 256, 512$"
    ):
        read("biggan_deep:100", "generator")


def test_a_size_that_we_do_not_have_is_refused(tmp_path):
    public = PublicGenerator(StudioGAN, 128, width=4)
    state = public.state_dict()
    state |= {name.replace("blocks.5.", "blocks.7."): value for name, value in state.items() if "blocks.5." in name}
    state |= {name.replace("blocks.5.", "blocks.8."): value for name, value in state.items() if "blocks.5." in name}
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="resolution=512"):
        read(f"studiogan:{tmp_path / 'x.pth'}", "generator")


def test_no_discriminator_of_biggan_deep_was_published(tmp_path):
    with pytest.raises(ValueError, match=r"no discriminator of biggan_deep was published; set init_from\.x=null"):
        read(f"biggan_deep:{tmp_path / 'x.bin'}", "discriminator")


class Persistent:
    """A class of its own in a pickle, as the files of StyleGAN hold them."""


def test_pickled_classes_are_refused_with_the_reason(tmp_path, recwarn):
    (tmp_path / "network.pkl").write_bytes(pickle.dumps({"G_ema": Persistent()}))
    with pytest.raises(ValueError, match=r"network\.pkl: refused, .* pickled classes, as a \.pkl of StyleGAN") as error:
        read(f"studiogan:{tmp_path / 'network.pkl'}", "generator")
    assert "\n" not in str(error.value)
    assert not recwarn.list


def test_a_released_file_is_downloaded_by_its_resolution(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    with pytest.raises(ValueError, match=r"^init_from\.x=biggan_deep:256: cannot download") as error:
        read("biggan_deep:256", "generator")
    name = "biggan-deep-256-pytorch_model.bin"
    cached = tmp_path / "hub" / "checkpoints" / name
    for fact in (
        f"https://s3.amazonaws.com/models.huggingface.co/biggan/{name}",
        str(cached),
        "local copy as biggan_deep:FILE",
    ):
        assert fact in str(error.value)


def no_network(*args):
    raise OSError("no network")


def test_a_file_of_the_hub_is_downloaded_by_owner_model_and_path(tmp_path, monkeypatch):
    public = PublicGenerator(StudioGAN, 32, width=4)
    saved(tmp_path / "model=G.pth", "studiogan", public)
    asked = []

    def download(model, file):
        asked.append((model, file))
        return str(tmp_path / "model=G.pth")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda url, **options: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert read("studiogan:owner/name/a folder/model=G.pth", "generator").config["resolution"] == 32
    assert set(asked) == {("owner/name", "a folder/model=G.pth")}


def test_a_path_alone_is_of_no_project_and_a_layout_that_does_not_exist_is_refused():
    assert find_source("RUN_DIR") is None
    assert find_source("C:/folder/run") is None
    assert find_source("C:/folder/x.pth", "studiogan").place == "C:/folder/x.pth"
    with pytest.raises(ValueError, match="layout=gan: choose one of studiogan"):
        find_source("x.pth", "gan")
