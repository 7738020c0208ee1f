import numpy as np
import pytest
import torch

from transfergen.evaluation.distances import Gaussian, frechet
from transfergen.evaluation.extractors import PixelFeatures
from transfergen.evaluation.features_file import load_features, save_features

EXTRACTOR = PixelFeatures(size=2)


def features(count=20):
    return torch.randn(count, 12, generator=torch.Generator().manual_seed(0))


def test_features_come_back_with_the_statistics_that_pytorch_fid_reads(tmp_path):
    path = tmp_path / "stats.npz"
    save_features(path, features(), EXTRACTOR)
    assert torch.equal(load_features(path, EXTRACTOR), features())
    with np.load(path) as file:  # as pytorch-fid does, and without unpickling
        np.testing.assert_allclose(file["mu"][:], features().mean(0), atol=1e-6)
        np.testing.assert_allclose(file["sigma"][:], np.cov(features(), rowvar=False), atol=1e-6)
        assert (str(file["extractor"]), str(file["fingerprint"])) == (EXTRACTOR.name, EXTRACTOR.fingerprint)
    assert [file.name for file in tmp_path.iterdir()] == ["stats.npz"]


def test_statistics_of_pytorch_fid_give_the_distance_of_their_features(tmp_path, caplog):
    np.savez_compressed(tmp_path / "stats.npz", mu=features().mean(0), sigma=np.cov(features(), rowvar=False))
    loaded = load_features(tmp_path / "stats.npz", EXTRACTOR)
    assert isinstance(loaded, Gaussian)
    others = torch.randn(30, 12) + 1
    assert frechet(loaded, others) == pytest.approx(float(frechet(features(), others)), abs=1e-5)
    assert f"does not say which network made it; it is compared with features of {EXTRACTOR.name}" in caplog.text


def test_features_of_clean_fid_are_taken_as_they_are(tmp_path):
    np.savez_compressed(tmp_path / "a_kid.npz", feats=features().numpy())
    assert torch.equal(load_features(tmp_path / "a_kid.npz", EXTRACTOR), features())


def test_a_file_without_features_is_none(tmp_path):
    np.savez(tmp_path / "a.npz", np.zeros(3))
    assert load_features(tmp_path / "a.npz", EXTRACTOR) is None


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"mu": np.zeros(2048), "sigma": np.eye(2048)}, r"\(2048,\) and \(2048, 2048\) .*2x2 have 12 dimensions"),
        ({"mu": np.zeros(12), "sigma": np.eye(11)}, r"\(11, 11\)"),
        ({"mu": np.full(12, np.nan), "sigma": np.eye(12)}, "not finite"),
        ({"mu": np.array(["a"] * 12), "sigma": np.eye(12)}, "not finite"),
        ({"feats": np.zeros((5, 13))}, r"\(5, 13\)"),
        ({"feats": np.zeros(())}, r"holds \(\) numbers"),
        ({"feats": np.zeros((5, 12)), "fingerprint": np.array("0" * 64)}, r"another extractor \(SHA-256 00000000\)"),
    ],
)
def test_features_of_another_extractor_are_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "stats.npz", **arrays)
    with pytest.raises(ValueError, match=words):
        load_features(tmp_path / "stats.npz", EXTRACTOR)
