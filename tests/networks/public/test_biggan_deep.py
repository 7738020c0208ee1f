"""BigGAN-deep against the package that its released files are from."""

import pytest
import torch
from public_networks import biggan_deep

from transfergen.networks.generators.biggan_deep import BigGANDeep
from transfergen.networks.public.reading import find_source

TENSORS = {128: 506, 256: 602, 512: 698}


def converted(network, path, **options):
    torch.save(network.state_dict(), path)
    return find_source(f"biggan_deep:{path}").read("generator", "run", **options)


def built(public):
    network = BigGANDeep(**{name: value for name, value in public.config.items() if name != "_target_"})
    network.load_state_dict(public.state)  # strict
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def small():
    return biggan_deep(channel_width=8, z_dim=8, class_embed_dim=8, num_classes=5)


def differences(theirs, ours, truncations, classes):
    y = torch.tensor(classes)
    one_hot = torch.nn.functional.one_hot(y, ours.num_classes).float()
    for truncation in truncations:
        z = ours.latents(range(len(y)), truncation)
        ours.truncate(truncation)
        with torch.no_grad():
            expected = theirs(z, one_hot, truncation)
        assert expected.std() > 0.1
        yield (ours(z, y) - expected).abs().max().item()


def test_images_of_the_released_size_are_those_of_the_package(tmp_path):
    theirs = biggan_deep()
    assert len(theirs.state_dict()) == TENSORS[128]
    public = converted(theirs, tmp_path / "x.bin")
    assert [public.classes[i] for i in (0, 207, 281, 999)] == ["tench", "golden retriever", "tabby", "toilet tissue"]
    ours = built(public)
    settings = (ours.resolution, ours.z_dim, ours.num_classes, sum(p.numel() for p in ours.parameters()))
    assert settings == (128, 128, 1000, sum(p.numel() for p in theirs.parameters()))
    assert max(differences(theirs, ours, [0.4], [207])) < 1e-4


def test_each_truncation_has_its_statistics_as_in_the_package(tmp_path, small):
    ours = built(converted(small, tmp_path / "x.bin"))
    images = []
    assert max(differences(small, ours, [0.4, 0.5, 1.0], [4, 0])) < 1e-4
    z, y = torch.randn(1, 8), torch.tensor([1])
    for truncation in (0.4, 0.41, 0.42, 1.0, 1.5, None):
        ours.truncate(truncation)
        images.append(ours(z, y))
    below, between, above, last, beyond, none = images
    assert (between - below).abs().max() < (above - below).abs().max()  # and not the reference's swapped weights
    assert torch.equal(last, beyond)
    torch.testing.assert_close(last, none)
    assert not torch.equal(below, last)


@pytest.mark.parametrize("resolution", [256, 512])
def test_larger_images_have_the_same_structure(tmp_path, resolution):
    theirs = biggan_deep(resolution, channel_width=4, z_dim=8, class_embed_dim=8, num_classes=2)
    assert len(theirs.state_dict()) == TENSORS[resolution]
    ours = built(converted(theirs, tmp_path / "x.bin"))
    assert ours.resolution == resolution
    assert max(differences(theirs, ours, [0.5], [1])) < 1e-4


def test_to_be_trained_it_has_ordinary_norms_with_the_statistics_of_one_truncation(tmp_path, small):
    public = converted(small, tmp_path / "x.bin", truncation=0.5)
    assert public.config["statistics"] == 0
    ours = built(public)
    assert next(differences(small, ours, [0.5], [4, 0])) < 1e-4
    before = ours(z := torch.randn(4, 8), y := torch.tensor([0, 1, 2, 3]))
    ours.train()(z, y)
    after = ours.eval()(z, y)
    assert not torch.equal(after, before)
    ours.truncate(0.5)
    assert torch.equal(ours(z, y), after)
