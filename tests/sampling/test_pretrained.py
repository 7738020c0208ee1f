"""A generator outside of training: `from transfergen import Generator`."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from generators import varied
from huggingface_hub import ModelCard
from PIL import Image
from public_networks import PublicGenerator, StudioGAN, biggan_deep

from transfergen import Generator
from transfergen.networks.generators.base import slerp
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.networks.generators.resnet import ResNet
from transfergen.runs.artefacts import write_json
from transfergen.runs.generator_files import BUILTIN, save_generator

CONFIG = {"_target_": "transfergen.networks.generators.dcgan.DCGAN", "resolution": 32, "width": 4}


@pytest.fixture
def folder(tmp_path):
    save_generator(tmp_path / "run", DCGAN(resolution=32, width=4), CONFIG, ema=True, images_seen=1234)
    entry = {"name": "kernel_distance", "value": 0.5, "extractor": "pixels", "generated": 16, "real": 16}
    write_json(tmp_path / "run" / "metrics.json", {"metrics": [entry | {"split": "test"}]})
    return tmp_path / "run"


def test_seeds_become_pictures_whatever_is_asked_for_beside_them(folder):
    generator = Generator.from_pretrained(folder)
    one, two = generator(seeds=[1, 2])
    assert (one.size, one.mode) == ((32, 32), "RGB")
    again = np.asarray(generator(seeds=[5, 2], batch_size=1)[1]).astype(int)
    assert np.abs(again - np.asarray(two)).max() <= 1
    assert not np.array_equal(np.asarray(one), np.asarray(two))
    assert (generator.z_dim, generator.resolution, generator.num_classes) == (100, 32, 0)
    with pytest.raises(ValueError, match=r"classes=\[1\]: this generator has no classes"):
        generator([1], classes=[1])


def test_saved_and_loaded_again_it_is_the_same_with_a_card_that_says_what_it_is(folder, tmp_path):
    generator = Generator.from_pretrained(folder)
    generator.save_pretrained(tmp_path / "saved")
    names = {file.name for file in (tmp_path / "saved").iterdir()}
    assert names == {"README.md", "generator.json", "generator.safetensors", "grid.png", "metrics.json"}
    again = Generator.from_pretrained(str(tmp_path / "saved" / "generator.safetensors"))
    assert torch.equal(again.pixels([3]), generator.pixels([3]))
    card = (tmp_path / "saved" / "README.md").read_text()
    for words in ("Images of 32x32 px", "DCGAN", "1,234 images", "| kernel_distance | 0.5 | pixels | 16 | 16 test |"):
        assert words in card
    assert Image.open(tmp_path / "saved" / "grid.png").size == (8 * 34 + 2, 8 * 34 + 2)


@pytest.fixture
def biggan(tmp_path):
    """A BigGAN of three classes, whose images differ."""
    settings = {"resolution": 32, "width": 4, "num_classes": 3, "class_dim": 8, "hierarchical": True}
    config = {"_target_": "transfergen.networks.generators.resnet.ResNet", **settings}
    network = varied(ResNet(**settings), torch.arange(256) % 3)
    save_generator(tmp_path, network, config, ema=False, images_seen=1)
    return Generator.from_pretrained(tmp_path)


def test_classes_have_names_in_all_that_takes_classes_and_in_a_saved_copy(biggan, tmp_path):
    assert biggan.classes == ("0", "1", "2")  # this file has no names
    assert "of 3 classes," in str(biggan.generate_model_card())
    biggan.metadata["classes"] = ["cat", "dog", "eel"]
    biggan.save_pretrained(tmp_path / "named")
    named = Generator.from_pretrained(tmp_path / "named")
    assert named.classes == ("cat", "dog", "eel")
    assert "of 3 classes (cat, dog, eel)," in (tmp_path / "named" / "README.md").read_text()
    assert torch.equal(named.pixels([4, 5], classes=["eel", "cat"]), biggan.pixels([4, 5], classes=[2, 0]))
    ends = [named.interpolate([1, 1], classes=labels) for labels in (["cat", {"dog": 1, 2: 1}], [0, {1: 1, 2: 1}])]
    assert torch.equal(*ends)
    with pytest.raises(ValueError, match=r"^classes=\[cow\]: this generator has no class cow, but cat, dog, eel$"):
        named([1], classes=["cow"])


def test_conditional_generator_gives_the_class_or_the_mixture_that_is_asked_for(biggan):
    assert torch.equal(biggan.pixels([4], classes=[1]), biggan.pixels([4]))  # 4 modulo 3
    assert not torch.equal(biggan.pixels([4], classes=[2]), biggan.pixels([4]))
    one, two = biggan.pixels([4, 5], classes=[{0: 1}, {1: 3, 2: 1}]), biggan.pixels([4, 5], classes=[0, {2: 2, 1: 6}])
    assert torch.equal(one, two)
    assert not torch.equal(one[1], biggan.pixels([5], classes=[1])[0])
    mixture = biggan.pixels([5], classes=[0, {1: 3, 2: 1}])
    assert torch.equal(biggan.vary(5, torch.zeros(1, 128), classes=[0, {1: 3, 2: 1}]), mixture)
    assert (mixture[0].int() - one[1].int()).abs().max() <= 1  # another batch
    assert torch.equal(biggan.vary(5, torch.zeros(1, 128))[0], biggan.pixels([5])[0])
    assert torch.equal(biggan.vary(5, torch.zeros(128)), biggan.pixels([5]))  # of more numbers than a batch has images


def test_interpolation_leads_from_one_class_to_the_next_at_the_latents_of_the_seeds(biggan):
    frames = biggan.interpolate([4, 4, 5], frames=2, classes=[1, 2])
    expected = [biggan.pixels([4], classes=[y])[0] for y in (1, {1: 0.5, 2: 0.5}, 2)]
    expected.append(biggan.pixels([5], classes=[1])[0])
    assert (frames[[0, 1, 2, 4]].int() - torch.stack(expected).int()).abs().max() <= 1
    default = biggan.interpolate([4, 5], frames=1)
    assert (default.int() - biggan.pixels([4, 5]).int()).abs().max() <= 1


def test_mixed_styles_are_a_matrix_with_the_images_of_a_seed_where_it_meets_itself(biggan):
    mixed = biggan.mix_styles([1, 2, 4], [4, 2], block=2)
    assert mixed.shape == (3, 2, 3, 32, 32)
    own = biggan.pixels([2, 4])
    assert (torch.stack([mixed[1, 1], mixed[2, 0]]).int() - own.int()).abs().max() <= 1
    assert len({image.numpy().tobytes() for image in mixed.flatten(0, 1)}) == 6
    alike = biggan.mix_styles([4], [2], block=2, classes=[1])
    assert not torch.equal(alike[0, 0], mixed[2, 1])  # where each seed has brought its class
    with pytest.raises(ValueError, match=r"^coarse=\[1\], fine=\[\]: give at least one seed of each"):
        biggan.mix_styles([1], [], block=1)


def test_what_is_nowhere_is_said_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="there is no such folder"):
        Generator.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(
        ValueError, match=r"^pretrained_model_name_or_path=owner/model: cannot download .*/generator\.json"
    ):
        Generator.from_pretrained("owner/model", local_files_only=True)


def test_seeds_may_be_of_numpy_or_torch_or_come_from_an_iterator(folder):
    generator = Generator.from_pretrained(folder)
    expected = generator.pixels([1, 2])
    for seeds in (np.arange(1, 3), torch.tensor([1, 2]), iter([1, 2]), (np.int64(1), 2), range(1, 3)):
        assert torch.equal(generator.pixels(seeds), expected)
    between = generator.interpolate(np.array([1, 2]), frames=1)
    assert torch.equal(between, generator.interpolate([1, 2], frames=1))


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda generator: generator([]), r"seeds=\[\]: give at least one"),
        (lambda generator: generator([1], truncation=-1), "truncation=-1: give a number above 0, or None"),
        (lambda generator: generator([1], batch_size=0), "batch_size=0: give at least 1"),
        (
            lambda generator: generator.interpolate([1, 2], frames=[0, 1.5]),
            r"interpolate=\[1, 2\], frames=\[0, 1\.5\]: ",
        ),
        (lambda generator: generator.interpolate([1, 2], truncation=0), "truncation=0: give a number above 0"),
        (
            lambda generator: generator.interpolate([1, 2], classes=[99]),
            r"classes=\[99\]: this generator has no classes",
        ),
    ],
)
def test_an_option_out_of_range_is_a_value_error_that_names_it(folder, call, line):
    with pytest.raises(ValueError, match=f"^{line}"):
        call(Generator.from_pretrained(folder))


@pytest.mark.parametrize(
    "content", ["", "[]", '{"metrics": 3}', '{"metrics": [{"name": "x"}]}', '{"metrics": ["x"]}', "{}"]
)
def test_a_damaged_metrics_file_is_left_out_with_a_warning(folder, content, caplog):
    (folder / "metrics.json").write_text(content)
    generator = Generator.from_pretrained(folder)
    assert generator.metrics == []
    assert "metrics.json is damaged" in caplog.text
    assert "unconditional" in str(generator.generate_model_card())


def test_a_weights_file_of_another_name_is_not_taken_for_the_generators(folder):
    with pytest.raises(ValueError, match=r"^pretrained_model_name_or_path=.*other\.safetensors: there is no such file"):
        Generator.from_pretrained(str(folder / "other.safetensors"))
    (folder / "other.safetensors").write_bytes((folder / "generator.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"other\.safetensors: cannot be loaded; give a run, or its generator"):
        Generator.from_pretrained(folder / "other.safetensors")
    with pytest.raises(
        ValueError,
        match=r"^pretrained_model_name_or_path=.*metrics\.json: cannot be loaded; give a run, or its generator",
    ):
        Generator.from_pretrained(folder / "metrics.json")


def test_a_file_of_another_project_without_its_layout_is_told_how_to_give_it(folder, tmp_path):
    (tmp_path / "G.pth").write_bytes(b"")
    how = r"or a file of another project as studiogan:FILE or biggan_pytorch:FILE or biggan_deep:FILE$"
    for given in (f"{tmp_path / 'G.pth'}", f"stylegan:{tmp_path / 'G.pth'}", f"studio_gan:{tmp_path / 'G.pth'}"):
        with pytest.raises(ValueError, match=rf"^pretrained_model_name_or_path={given}: .*give a run, .*{how}"):
            Generator.from_pretrained(given)


def test_interpolation_passes_through_the_images_of_its_seeds(folder):
    generator = Generator.from_pretrained(folder)
    between = generator.interpolate([1, 2, 3], frames=4)
    assert between.shape == (9, 3, 32, 32)
    assert (between[[0, 4, 8]].int() - generator.pixels([1, 2, 3]).int()).abs().max() <= 1
    assert not torch.equal(between[2], between[0])


def test_directions_lead_from_the_image_of_a_seed_to_others(folder):
    generator = Generator.from_pretrained(folder)
    directions = generator.directions(3)
    moved = generator.vary(5, 3 * torch.cat([torch.zeros_like(directions[:1]), directions, -directions]))
    assert (moved[0].int() - generator.pixels([5])[0].int()).abs().max() <= 1
    assert len({image.numpy().tobytes() for image in moved}) == 7
    alone = generator.vary(5, 3 * directions[0])  # as docs/generator.md adds them up
    assert alone.shape == (1, *moved.shape[1:])
    assert (alone[0].int() - moved[1].int()).abs().max() <= 1
    for offsets in (directions[:, :-1], directions[0, :-1], directions[None], directions[:0], torch.tensor(1.0)):
        with pytest.raises(ValueError, match=r"^offsets of shape .*: give \(N, 100\), or \(100,\) for one$"):
            generator.vary(5, offsets)
    with pytest.raises(ValueError, match="directions=0: choose 1 to"):
        generator.directions(0)


def test_a_path_is_never_looked_for_on_the_hub(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^pretrained_model_name_or_path=owner/model: there is no such folder$"):
        Generator.from_pretrained(Path("owner/model"))


def test_way_between_latents_stays_on_the_sphere_and_meets_both_ends():
    a, b = torch.randn(2, 100)
    b = b / b.norm() * a.norm()
    way = slerp(a.expand(3, -1), b.expand(3, -1), torch.tensor([[0.0], [0.5], [1.0]]))
    torch.testing.assert_close(way[[0, 2]], torch.stack([a, b]))
    torch.testing.assert_close(way.norm(dim=1), a.norm().expand(3))
    assert (way[1] @ a / a.norm() ** 2) == pytest.approx(float(way[1] @ b / a.norm() ** 2), rel=1e-4)


def test_neither_lightning_nor_hydra_nor_torchs_compiler_is_imported(folder):
    code = (
        "import sys; from transfergen import Generator\n"
        f"Generator.from_pretrained({str(folder)!r})(seeds=[1])\n"
        "slow = {'lightning', 'hydra', 'omegaconf', 'timm', 'datasets', 'torch._dynamo'}\n"
        "print(slow & {*sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "set()", ran.stderr


def test_another_projects_file_is_used_without_a_training_and_saved_as_ours(tmp_path, monkeypatch):
    monkeypatch.setattr(Generator, "grid", lambda *_: Image.new("RGB", (1, 1)))  # of 64 images
    file = tmp_path / "biggan-deep-128-pytorch_model.bin"
    torch.save(biggan_deep(channel_width=4, z_dim=6, class_embed_dim=6, num_classes=3).state_dict(), file)
    generator = Generator.from_pretrained(f"biggan_deep:{file}")
    assert (generator.resolution, generator.num_classes, generator.z_dim) == (128, 3, 6)
    options = {"classes": [2], "truncation": 0.4}
    pixels = generator.pixels([1, 2], **options)
    assert not torch.equal(pixels, generator.pixels([1, 2], classes=[2]))
    assert torch.equal(pixels, generator.pixels([1, 2], **options))  # no truncation is left behind
    generator.save_pretrained(tmp_path / "saved")
    again = Generator.from_pretrained(tmp_path / "saved")
    assert torch.equal(again.pixels([1, 2], **options), pixels)
    between = again.interpolate([1, 2], frames=1, classes=[2], truncation=0.4)
    assert (between.int() - pixels.int()).abs().max() <= 1
    card = (tmp_path / "saved" / "README.md").read_text()
    assert f"from {file.name} of biggan_deep (licence: code MIT" in card
    assert again.origin == generator.origin


def test_tensors_of_another_projects_file_without_a_use_are_reported(tmp_path, caplog):
    public = PublicGenerator(StudioGAN, 32, width=4)
    public.register_buffer("extra", torch.zeros(2))
    torch.save({"state_dict": public.state_dict()}, tmp_path / "G.pth")
    generator = Generator.from_pretrained(f"studiogan:{tmp_path / 'G.pth'}")
    assert "without a use here: extra" in caplog.text
    z, y = generator.network.latents([3]), torch.tensor([1])
    torch.testing.assert_close(generator.network(z, y), public(z, y), rtol=1e-4, atol=1e-5)


def test_generator_that_comes_with_the_package_makes_varied_images_offline_and_is_small():
    generator = Generator.from_pretrained("builtin:cifar10")
    images = torch.stack([torch.from_numpy(np.array(image)) for image in generator(seeds=range(8))]).float()
    assert images.shape == (8, 64, 64, 3)
    assert images.flatten(1).std(dim=0).mean() > 30, "of 255 levels"
    assert {record["extractor"] for record in generator.metrics} == {"pixels, 16x16"}
    assert sum(file.stat().st_size for file in (BUILTIN / "cifar10").iterdir()) < 5e6
    with pytest.raises(ValueError, match=r"^pretrained_model_name_or_path=builtin:cats: choose one of builtin:cifar10"):
        Generator.from_pretrained("builtin:cats")


def test_the_card_has_the_licence_of_what_it_started_from_unless_another_is_given(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Generator, "grid", lambda *_: Image.new("RGB", (1, 1)))  # of 64 images
    public = tmp_path / "G.pth"
    torch.save(PublicGenerator(StudioGAN, 32, width=4).state_dict(), public)
    deep = tmp_path / "biggan-deep-128-pytorch_model.bin"
    torch.save(biggan_deep(channel_width=4, z_dim=6, class_embed_dim=6, num_classes=3).state_dict(), deep)
    own, builtin = Generator.from_pretrained(folder), Generator.from_pretrained("builtin:cifar10")
    tuned = Generator.from_pretrained(folder)
    tuned.metadata |= {"started_from": Generator.from_pretrained(f"studiogan:{public}").metadata["origin"]}

    def licence(generator, name, **options):
        generator.save_pretrained(tmp_path / name, **options)
        return ModelCard.load(tmp_path / name / "README.md").data.to_dict().get("license")

    assert licence(Generator.from_pretrained(f"studiogan:{public}"), "studiogan") == "mit"
    assert licence(tuned, "tuned") == "mit"
    assert licence(builtin, "builtin") == "apache-2.0"
    assert licence(Generator.from_pretrained(f"biggan_deep:{deep}"), "deep") is None  # none of the weights is known
    assert licence(own, "own") is None
    given = {"license": "cc-by-4.0", "title": "Cats"}
    assert licence(tuned, "given", model_card_kwargs=given) == "cc-by-4.0"
    assert "\n# Cats\n" in (tmp_path / "given" / "README.md").read_text()
