import numpy as np
import pytest
import torch
from ranks import on_two_ranks
from torch import nn

from transfergen.data.pictures import from_array
from transfergen.data.store import Store
from transfergen.evaluation.distances import frechet
from transfergen.evaluation.extractors import PixelFeatures
from transfergen.evaluation.feature_extraction import chosen, sample_features, store_features
from transfergen.evaluation.measure import measure
from transfergen.images import to_uint8
from transfergen.networks.generators.base import Generator, latents
from transfergen.networks.generators.dcgan import DCGAN

CPU = torch.device("cpu")


class Counting(PixelFeatures):
    """Pixels, and the number of images extracted."""

    images = 0

    def forward(self, images):
        self.images += len(images)
        return super().forward(images)


def store(count=40, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return Store(pixels, from_array("noise", pixels, np.zeros(count, np.int64), ()))


def kept(extractor, folder, images=None, **settings):
    given = {"what": "test images", "count": 30, "size": (32, 32), "cache_dir": folder, "device": CPU} | settings
    return store_features(extractor, store() if images is None else images, **given)


def test_features_of_real_images_are_those_of_the_chosen_images_in_order(tmp_path):
    reals = store()
    features = kept(PixelFeatures(), tmp_path, reals, batch_size=7)
    assert sorted(chosen(reals, 100)) == list(range(40))
    for i in (0, 8, 29):
        pixels = reals[chosen(reals, 30)[[i]]].pixels
        assert torch.allclose(features[i], PixelFeatures()(pixels / 127.5 - 1)[0])


def test_features_of_real_images_are_extracted_once(tmp_path):
    first, second = Counting(), Counting()
    features = kept(first, tmp_path)
    assert torch.equal(kept(second, tmp_path), features)
    assert (first.images, second.images) == (30, 0)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"what": "train images"},
        {"count": 29},
        {"size": (64, 64)},
        {"images": store(seed=1)},
        {"extractor": Counting(size=8)},
    ],
    ids=["split", "count", "resolution", "images", "extractor"],
)
def test_other_features_are_not_taken_from_the_cache(tmp_path, other):
    kept(Counting(), tmp_path)
    extractor = other.pop("extractor", Counting())
    extractor.images = 0
    kept(extractor, tmp_path, **other)
    assert extractor.images == other.get("count", 30)


def test_skipped_pictures_leave_the_cached_features_valid(tmp_path):
    whole, again = store(), Counting()
    with_a_gap = np.insert(whole.pixels, 3, 0, axis=0)
    pictures = from_array("noise", whole.pixels, whole.labels, ())
    features = kept(PixelFeatures(), tmp_path, whole)
    readable = Store(with_a_gap, pictures, np.delete(np.arange(41), 3))
    assert torch.equal(kept(again, tmp_path, readable), features)
    assert again.images == 0


@pytest.mark.parametrize("damage", ["truncated", "empty", "one bit", "a link to whole ones"])
def test_damaged_features_are_extracted_again(tmp_path, damage):
    features = kept(PixelFeatures(), tmp_path)
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    if damage == "a link to whole ones":
        file.rename(tmp_path / "theirs")
        file.symlink_to(tmp_path / "theirs")
    else:
        content[-1] ^= 1
        file.write_bytes({"truncated": content[:-9], "empty": b"", "one bit": content}[damage])
    again = Counting()
    assert torch.equal(kept(again, tmp_path), features)
    assert again.images == 30
    assert torch.equal(kept(Counting(), tmp_path), features)


def test_a_cache_folder_that_cannot_be_written_is_warned_of(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert kept(PixelFeatures(), tmp_path / "file" / "cache").shape == (30, 768)
    assert "data.cache_dir" in caplog.text


def test_samples_are_those_of_their_seeds_in_eval_mode_for_any_batch_size():
    generator = DCGAN(resolution=32, width=4)
    given = {"count": 11, "seed": 5, "device": CPU}
    a, b = (sample_features(PixelFeatures(), generator, batch_size=size, **given) for size in (4, 64))
    assert torch.allclose(a, b, atol=1e-2)
    assert generator.training
    expected = PixelFeatures()(generator.eval()(latents([5, 15], 100)))
    assert torch.allclose(a[[0, 10]], expected, atol=1e-2)


class Perfect(Generator):
    """Makes the images of two classes just as `unequal` has them: dark ones and bright ones."""

    z_dim, resolution, num_classes = 8, 32, 2

    def forward(self, z, y=None):
        brightness = (2.0 * y - 1) / 2 + 0.1 * z[:, 0]
        return brightness[:, None, None, None].expand(-1, 3, 32, 32)


def unequal():
    """180 dark images and 20 bright ones."""
    labels = np.repeat([0, 1], [180, 20])
    images = Perfect()(torch.randn(200, 8), torch.from_numpy(labels))
    pixels = to_uint8(images).permute(0, 2, 3, 1).numpy()
    return Store(pixels, from_array("unequal", pixels, labels, ("dark", "bright")))


def test_a_perfect_generator_of_unequal_classes_is_at_no_distance(tmp_path):
    """With classes drawn equally often, its distance would be many times as large."""
    reals, extractor = unequal(), PixelFeatures()
    real = kept(extractor, tmp_path, reals, count=200)
    labels = reals.labels[chosen(reals, 200)].tolist()
    settings = {"count": 200, "seed": 7, "device": CPU}
    as_often, evenly = (
        frechet(real, sample_features(extractor, Perfect(), classes=classes, **settings)) for classes in (labels, ())
    )
    assert as_often < 0.01 * evenly


def measured(rank, folder):
    """Features of samples and real images, the metrics, and the number of images that this rank extracted."""
    torch.manual_seed(0)
    generator, extractor, cache_dir = DCGAN(resolution=32, width=4), Counting(), folder / f"cache{rank}"
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean += rank  # as in a training, where each rank sees other images
    real = kept(extractor, cache_dir, count=9)
    real_again = kept(extractor, cache_dir, count=9)
    fake = sample_features(extractor, generator, count=9, seed=3, device=CPU, batch_size=2)
    return real, real_again, fake, measure(extractor, real, fake), extractor.images


def test_two_ranks_share_the_work_and_agree_with_one(tmp_path):
    alone = measured(0, tmp_path / "alone")
    (tmp_path / "cache1").mkdir()
    a, b = on_two_ranks(tmp_path, measured, tmp_path)
    assert alone[4] == 18
    assert a[4] == b[4] == 10
    for ours, theirs, expected in zip(a[:3], b[:3], alone[:3], strict=True):
        assert torch.equal(ours, theirs)
        assert torch.allclose(ours, expected, atol=1e-2)
    assert a[3] == b[3]
    assert a[3] == pytest.approx(alone[3], rel=1e-2)
