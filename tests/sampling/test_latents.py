"""Latents in place of seeds: those of pictures, and their files."""

import pytest
import torch
from generators import varied
from safetensors.torch import save_file

from transfergen.networks.class_mixtures import to_labels
from transfergen.networks.generators.base import latents
from transfergen.networks.generators.resnet import ResNet
from transfergen.sampling.image_generator import ImageGenerator
from transfergen.sampling.latents import Latent, inputs_of, read_latent

Z = latents([1001], 16)
MIXTURE = torch.tensor([[0.25, 0.75, 0.0]])


@pytest.fixture(scope="module")
def network():
    """The generator of a BigGAN of three classes, whose images differ."""
    return varied(ResNet(resolution=32, width=4, z_dim=16, num_classes=3), torch.arange(256) % 3)


@pytest.mark.parametrize("y", [None, torch.tensor([2]), MIXTURE], ids=["none", "class", "mixture"])
def test_a_file_holds_the_latent_and_its_class_or_mixture(network, tmp_path, y):
    Latent(Z, y).save(tmp_path / "latent.safetensors")
    read = read_latent(tmp_path / "latent.safetensors", network)
    assert torch.equal(read.z, Z)
    assert read.y is None if y is None else torch.equal(read.y, y)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"z": latents([1], 8)}, r"z is \(1, 8\) of torch.float32, but this generator takes \(1, 16\) of"),
        ({"z": latents([1, 2], 16)}, r"z is \(2, 16\) of torch.float32, but this generator takes \(1, 16\)"),
        ({"z": Z.double()}, r"z is \(1, 16\) of torch.float64, but"),
        ({"z": Z / 0}, "damaged: z contains NaN or infinity"),
        ({"z": Z, "y": torch.tensor([3])}, "y is no class of this generator, which has 3 classes"),
        ({"z": Z, "y": torch.tensor([[0.5, 0.5]])}, "y is no class of this generator, which has 3 classes"),
        ({"z": Z, "y": 2 * MIXTURE}, "y is no class of this generator, which has 3 classes"),
        ({"weight": Z}, "is no latent; give a latent.safetensors that generate invert=PICTURE has written"),
        ({"z": Z, "weight": Z + 1}, "is no latent; give"),
    ],
)
def test_a_file_of_another_generator_or_of_something_else_is_refused(network, tmp_path, tensors, words):
    path = tmp_path / "latent.safetensors"
    save_file(tensors, path)
    with pytest.raises(ValueError, match=rf"^interpolate={path}: {words}"):
        read_latent(path, network, "interpolate")


def test_a_file_that_is_not_there_damaged_or_of_another_format_is_refused(network, tmp_path):
    path = tmp_path / "latent.safetensors"
    with pytest.raises(ValueError, match=rf"^latent={path}: there is no such file$"):
        read_latent(path, network)
    Latent(Z).save(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"^latent={path}: damaged"):
        read_latent(path, network)
    with pytest.raises(ValueError, match=r"^latent=projected_w.npz: is no latent; give"):
        read_latent(path.with_name("projected_w.npz").relative_to(tmp_path), network)


def test_seeds_and_latents_have_the_classes_that_are_theirs_or_that_are_given(network):
    latent = Latent(Z, torch.tensor([2]))
    z, y = inputs_of(network, [4, latent], None)
    assert torch.equal(z, torch.cat([latents([4], 16), Z]))
    assert y.tolist() == [4 % 3, 2]
    given = to_labels([0, 1], 3)
    assert inputs_of(network, [5, latent, 5, Latent(Z)], given)[1].tolist() == [5 % 2, 1, 5 % 2, 1]
    assert inputs_of(network, [5, latent, 5], given, in_turn=True)[1].tolist() == [0, 1, 0]
    mixed = inputs_of(network, [4, Latent(Z, MIXTURE)], None)[1]
    assert torch.equal(mixed, torch.cat([torch.eye(3)[[1]], MIXTURE]))
    with pytest.raises(ValueError, match=r"^classes=\[\]: the class of the latent is not known; give it, as in"):
        inputs_of(network, [Latent(Z)], None)
    with pytest.raises(ValueError, match=r"^latent: z is \(1, 8\)"):
        inputs_of(network, [Latent(latents([1], 8))], given)


def test_images_vary_around_a_latent_and_lead_to_it(network):
    generator, latent = ImageGenerator(network), Latent(Z, torch.tensor([2]))
    offsets = torch.stack([torch.zeros(16), torch.ones(16)])
    expected = network(Z + offsets, torch.tensor([2, 2])).mul(127.5).add(127.5).round().clamp(0, 255)
    varied_images = generator.vary(latent, offsets)
    assert (varied_images - expected).abs().max() <= 1
    assert not torch.equal(generator.vary(latent, offsets, classes=[1]), varied_images)
    frames = generator.interpolate([4, latent], frames=2)
    ends = torch.cat([generator.pixels([4]), varied_images[:1]])
    assert (frames[[0, 2]].int() - ends.int()).abs().max() <= 1
    changed = generator.interpolate([latent, latent], frames=1, classes=[2, 1])
    assert (changed[1].int() - generator.vary(latent, offsets[0], classes=[1])[0].int()).abs().max() <= 1


def test_inversion_gives_the_latent_of_a_picture_or_its_file_with_the_class_it_was_searched_in(network, tmp_path):
    generator = ImageGenerator(network, ("cat", "dog", "eel"))
    picture = generator([1001], classes=["eel"])[0]
    picture.resize((40, 32)).save(tmp_path / "mine.png")
    latent, error = generator.invert(picture, label="eel", steps=50)
    assert latent.y.tolist() == [2]
    assert error < generator.invert(picture, steps=50)[1]  # in class 0
    pixels = generator.vary(latent, torch.zeros(16)).float()
    target = generator.pixels([1001], classes=["eel"]).float()
    assert error == pytest.approx(float(((pixels - target) / 127.5).square().mean()), rel=0.05)
    assert generator.invert(str(tmp_path / "mine.png"), label={0: 1, 1: 3}, steps=1)[0].y.tolist() == [[0.25, 0.75, 0]]
    with pytest.raises(ValueError, match=r"^picture=nowhere\.png: cannot read it"):
        generator.invert("nowhere.png")
