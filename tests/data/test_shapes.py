import itertools

import numpy as np
import pytest
from PIL import Image

from transfergen.data import shapes as shapes_module
from transfergen.data.shapes import CLASSES, draw, shapes


def pixels(pictures, i):
    return np.asarray(pictures.open(i))


def test_a_picture_is_the_same_however_often_it_is_opened():
    first, again = shapes(None, "train"), shapes(None, "train", train=5)
    for i in (4, 2, 0):
        np.testing.assert_array_equal(pixels(first, i), pixels(again, i))


def test_pictures_of_one_class_differ():
    pictures = shapes(None, "train")
    assert pictures.labels[0] == pictures.labels[10]
    assert (pixels(pictures, 0) != pixels(pictures, 10)).any()


def test_train_and_test_pictures_differ():
    train, test = shapes(None, "train"), shapes(None, "test")
    assert train.identity() != test.identity()
    for i in range(10):
        assert (pixels(train, i) != pixels(test, i)).any()


def test_pictures_that_are_drawn_otherwise_have_another_identity(monkeypatch):
    before, again = shapes(None, "train", train=25).identity(), shapes(None, "train", train=25).identity()
    monkeypatch.setattr(shapes_module, "draw", lambda label, size, rng: Image.new("RGB", (size, size), "red"))
    assert before == again != shapes(None, "train", train=25).identity()


@pytest.mark.parametrize(("split", "count"), [("train", 25), ("test", 12)])
def test_split_has_the_length_asked_for_and_cycles_through_the_classes(split, count):
    pictures = shapes(None, split, train=25, test=12)
    assert len(pictures) == count
    assert pictures.labels.tolist() == [i % 10 for i in range(count)]
    assert pictures.classes == CLASSES


def test_ten_classes_are_drawn_differently():
    # With the same random numbers colours, position and scale agree, so that only the shape differs.
    drawn = [np.asarray(draw(label, 64, np.random.default_rng(0)), np.int16) for label in range(10)]
    assert len(set(CLASSES)) == len(drawn) == 10
    for a, b in itertools.combinations(drawn, 2):
        assert (np.abs(a - b).max(axis=2) > 32).mean() > 0.01


@pytest.mark.parametrize("label", range(10))
def test_shape_stands_out_from_its_background(label):
    picture = np.asarray(draw(label, 64, np.random.default_rng(label)), np.int16)
    background = picture[0, 0]
    assert (picture[[0, -1]] == background).all()  # the shape is not cut off
    assert (picture[:, [0, -1]] == background).all()
    covered = (np.abs(picture - background).max(axis=2) > 32).mean()
    assert 0.03 < covered < 0.6


@pytest.mark.parametrize("size", [32, 48])
def test_pictures_have_the_size_asked_for(size):
    assert shapes(None, "train", size=size).open(0).size == (size, size)
