"""Numbers from features, and how features are streamed, shared between ranks and kept."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from transfergen.data.pictures import from_array
from transfergen.data.store import Store
from transfergen.evaluation.extractors import PixelFeatures
from transfergen.evaluation.feature_extraction import chosen, sample_features, store_features
from transfergen.evaluation.measure import LARGER_IS_BETTER, measurable, measure, metric_records, to_table
from transfergen.evaluation.shared_weights import pretrained_weight_ids, shared_weights
from transfergen.networks.generators.base import latents
from transfergen.networks.generators.dcgan import DCGAN

CPU = torch.device("cpu")
EVERYTHING_ELSE = {"inception_score", "nearest_distance_ratio"}


class Counting(PixelFeatures):
    """Pixels, and how many images were looked at."""

    images = 0

    def forward(self, images):
        self.images += len(images)
        return super().forward(images)


class Classes(PixelFeatures):
    """Pixels whose first ten are class logits."""

    def score_logits(self, features):
        return features[:, :10]


def store(count=40, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return Store(pixels, from_array("noise", pixels, np.zeros(count, np.int64), ()))


def kept(extractor, folder, images=None, **settings):
    given = {"what": "test images", "count": 30, "resolution": 32, "cache_dir": folder, "device": CPU} | settings
    return store_features(extractor, store() if images is None else images, **given)


def test_features_of_reals_are_those_of_the_chosen_images_in_their_order(tmp_path):
    reals = store()
    features = kept(PixelFeatures(), tmp_path, reals, batch_size=7)
    assert sorted(chosen(reals, 100)) == list(range(40))
    for i in (0, 8, 29):
        pixels = reals[chosen(reals, 30)[[i]]].pixels
        assert torch.allclose(features[i], PixelFeatures()(pixels / 127.5 - 1)[0])


def test_features_of_reals_are_extracted_once(tmp_path):
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
        {"resolution": 64},
        {"images": store(seed=1)},
        {"extractor": Counting(size=8)},
    ],
    ids=["split", "count", "resolution", "images", "extractor"],
)
def test_features_of_anything_else_are_not_taken_from_the_cache(tmp_path, other):
    kept(Counting(), tmp_path)
    extractor = other.pop("extractor", Counting())
    extractor.images = 0
    kept(extractor, tmp_path, **other)
    assert extractor.images == other.get("count", 30)


def test_features_are_known_by_the_pictures_that_count_and_not_by_the_damaged_between_them(tmp_path):
    whole, again = store(), Counting()
    with_a_gap = np.insert(whole.pixels, 3, 0, axis=0)
    pictures = from_array("noise", whole.pixels, whole.labels, ())
    features = kept(PixelFeatures(), tmp_path, whole)
    readable = Store(with_a_gap, pictures, np.delete(np.arange(41), 3))
    assert torch.equal(kept(again, tmp_path, readable), features)
    assert again.images == 0


@pytest.mark.parametrize("damage", ["truncated", "one bit"])
def test_damaged_features_are_extracted_again(tmp_path, damage):
    features = kept(PixelFeatures(), tmp_path)
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content[:-9] if damage == "truncated" else content)
    again = Counting()
    assert torch.equal(kept(again, tmp_path), features)
    assert again.images == 30
    assert torch.equal(kept(Counting(), tmp_path), features)


def test_cache_folder_that_cannot_be_written_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    assert kept(PixelFeatures(), tmp_path / "file" / "cache").shape == (30, 768)
    assert "data.cache_dir" in caplog.text


def test_samples_are_those_of_their_seeds_in_eval_mode_whatever_the_batch():
    generator = DCGAN(resolution=32, width=4)
    given = {"count": 11, "seed": 5, "device": CPU}
    a, b = (sample_features(PixelFeatures(), generator, batch_size=size, **given) for size in (4, 64))
    assert torch.allclose(a, b, atol=1e-2)
    assert generator.training
    expected = PixelFeatures()(generator.eval()(latents([5, 15], 100)))
    assert torch.allclose(a[[0, 10]], expected, atol=1e-2)


def test_everything_that_can_be_measured_is_and_says_where_it_comes_from():
    extractor, (real, fake) = Classes(), torch.randn(2, 40, 768)
    values = measure(extractor, real, fake)
    assert list(values) == [name for name in LARGER_IS_BETTER if name != "nearest_distance_ratio"]
    assert set(measurable(PixelFeatures(), 40, 40)) == set(LARGER_IS_BETTER) - EVERYTHING_ELSE
    listed = metric_records(
        values, extractor=extractor, generated=40, real=40, split="test", seed=7, shared_weights="vgg19.tv_in1k"
    )
    assert json.loads(json.dumps(listed)) == listed
    for entry in listed:
        assert entry["value"] == values[entry["name"]]
        about = (entry["extractor"], entry["generated"], entry["real"], entry["split"], entry["seed"])
        assert about == ("pixels, 16x16", 40, 40, "test", 7)
        assert entry["shares_weights_with_discriminator"] == "vgg19.tv_in1k"
        assert ("warning" in entry) == (entry["name"] == "frechet_distance")


def test_warning_of_bias_is_for_fewer_images_than_dimensions():
    extractor = PixelFeatures(size=2)
    settings = {"extractor": extractor, "split": "test", "seed": 0, "shared_weights": None}
    for images, biased in ((11, True), (12, False)):
        (entry,) = metric_records({"frechet_distance": 1.0}, generated=100, real=images, **settings)
        assert ("warning" in entry) == biased


def test_few_images_get_the_numbers_that_they_allow():
    for count in range(1, 7):
        names = measurable(PixelFeatures(), count, count)
        values = measure(PixelFeatures(), *torch.randn(2, count, 768))
        assert list(values) == names
        assert ("kernel_distance" in names, "recall" in names, "coverage" in names) == (count > 1, count > 3, count > 5)


def test_diversity_is_the_spread_of_samples_as_a_part_of_the_reals():
    real = torch.randn(30, 768)
    shifted = real * 0.25 + 3
    assert measure(PixelFeatures(), real, shifted)["diversity"] == pytest.approx(0.25, rel=1e-5)


def test_pretrained_trunks_are_found_in_a_config_wherever_they_are():
    vgg = {"arch": "vgg19", "cut": "relu3_4", "weights": "file.safetensors"}
    lite0 = {"name": "tf_efficientnet_lite0", "weights": "package"}
    assert pretrained_weight_ids({"backbone": vgg, "pool": 4}) == {"vgg19.tv_in1k"}
    assert pretrained_weight_ids({"parts": [{"backbone": vgg}, {"backbones": [lite0]}]}) == {
        "vgg19.tv_in1k",
        "tf_efficientnet_lite0.in1k",
    }
    assert pretrained_weight_ids({"backbone": vgg | {"weights": "random"}}) == set()
    assert pretrained_weight_ids({"backbone": {"name": "nobody_knows", "weights": "file.pth"}}) == set()


def test_weights_that_extractor_and_discriminator_share_are_named():
    extractor = PixelFeatures()
    vgg19, vgg16 = ({"arch": arch, "weights": "imagenet"} for arch in ("vgg19", "vgg16"))
    assert shared_weights(extractor, {"discriminator": {"backbone": vgg19}}) is None
    extractor.weights_id = "vgg19.tv_in1k"
    assert shared_weights(extractor, {"discriminator": {"backbone": vgg19}}) == "vgg19.tv_in1k"
    assert shared_weights(extractor, {"discriminator": {"backbone": vgg16}}) is None
    aligned = {"discriminator": {}, "transfer": {"backbone": vgg19, "mmd": 1.0}}
    assert shared_weights(extractor, aligned) == "vgg19.tv_in1k"
    for weight, shared in ((1.0, "vgg19.tv_in1k"), (0.0, None)):
        autoencoder = {"discriminator": {}, "backbone": vgg19, "objective": {"perceptual": weight}}
        assert shared_weights(extractor, autoencoder) == shared


def test_table_holds_each_number_and_what_it_depends_on(capsys):
    from rich.console import Console

    (real, fake) = torch.randn(2, 10, 768)
    values = measure(PixelFeatures(), real, fake)
    listed = metric_records(
        values, extractor=PixelFeatures(), generated=10, real=10, split="test", seed=0, shared_weights="vgg19.tv_in1k"
    )
    Console(width=200).print(to_table(listed))
    shown = capsys.readouterr().out
    for word in (*values, "pixels, 16x16", "10 generated", "(test)", "biased", "shares the weights of vgg19.tv_in1k"):
        assert word in shown


RANKS = """
import sys, torch, torch.distributed as dist
sys.path.insert(0, sys.argv[3])
from pathlib import Path
from test_measure import CPU, Counting, kept, measured
rank, folder = int(sys.argv[1]), Path(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2)
torch.save(measured(rank, folder / f"cache{rank}"), folder / f"rank{rank}.pt")
dist.destroy_process_group()  # whose threads a process must not end with
"""


def measured(rank, cache_dir):
    """Features of samples and reals, the numbers from them, and how many images this rank looked at."""
    torch.manual_seed(0)
    generator, extractor = DCGAN(resolution=32, width=4), Counting()
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean += rank  # as after a training, where each rank has seen other images
    real = kept(extractor, cache_dir, count=9)
    real_again = kept(extractor, cache_dir, count=9)
    fake = sample_features(extractor, generator, count=9, seed=3, device=CPU, batch_size=2)
    return real, real_again, fake, measure(extractor, real, fake), extractor.images


def test_two_ranks_share_the_work_and_agree_with_one(tmp_path):
    alone = measured(0, tmp_path / "alone")
    (tmp_path / "cache1").mkdir()
    arguments = [str(tmp_path), str(Path(__file__).parent)]
    ranks = [subprocess.Popen([sys.executable, "-c", RANKS, str(rank), *arguments]) for rank in (0, 1)]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    a, b = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert alone[4] == 18
    assert a[4] == b[4] == 10
    for ours, theirs, expected in zip(a[:3], b[:3], alone[:3], strict=True):
        assert torch.equal(ours, theirs)
        assert torch.allclose(ours, expected, atol=1e-2)
    assert a[3] == b[3]
    assert a[3] == pytest.approx(alone[3], rel=1e-2)
