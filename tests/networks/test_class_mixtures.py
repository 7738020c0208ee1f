import re

import numpy as np
import pytest
import torch

from transfergen.networks.class_mixtures import numbered, to_labels, to_weights


def test_weights_of_a_mixture_are_divided_by_their_sum_and_a_class_beside_it_has_all_of_its_own():
    labels = to_labels([{0: 3, np.int64(2): 1}, 1, {2: 5}], 3)
    torch.testing.assert_close(labels, torch.tensor([[0.75, 0, 0.25], [0, 1, 0], [0, 0, 1]]))
    assert to_weights(labels, 3) is labels


def test_classes_without_a_mixture_stay_integers():
    labels = to_labels([2, np.int64(0), {1: 0.5}], 3)
    assert labels.tolist() == [2, 0, 1]
    assert labels.dtype == torch.int64
    assert to_weights(labels, 3).tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert to_labels([], 3).tolist() == [0, 1, 2]
    assert to_labels([], 0).tolist() == [0]
    assert to_weights(to_labels([], 0), 0).tolist() == [[1]]


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (3, r"classes=\[3\]: this generator has 3 classes, counted from 0"),
        ({-1: 1.0}, r"classes=\[{-1: 1.0}\]: this generator has 3 classes"),
        ({0: 2, 1: -1}, r"classes=\[{0: 2.0, 1: -1.0}\]: give a mixture weights of 0 or more, of which one is not 0"),
        ({0: 0, 1: 0}, "give a mixture weights"),
        ({0: float("nan")}, "give a mixture weights"),
        ({0: float("inf"), 1: 1}, "give a mixture weights"),
        ({}, "give a mixture weights"),
    ],
)
def test_classes_that_are_not_and_weights_that_make_no_mixture_are_refused(label, words):
    with pytest.raises(ValueError, match=words):
        to_labels([label], 3)


def test_a_name_stands_for_the_number_of_its_class_alone_and_in_a_mixture():
    names = ("cat", "dog", "1")
    assert numbered(["dog", 2, "1", {"cat": 1, "dog": 3}], names) == [1, 2, 2, {0: 1.0, 1: 3.0}]
    assert numbered([{"dog": 1, 1: 2}], names) == [{1: 3.0}]
    assert to_labels(["dog", "cat"], 3, names).tolist() == [1, 0]
    torch.testing.assert_close(to_labels([{"cat": 1, 2: 3}], 3, names), torch.tensor([[0.25, 0, 0.75]]))


@pytest.mark.parametrize(
    ("labels", "names", "words"),
    [
        (["dot", 1], ("cat", "dog"), "x=[dot, 1]: the source has no class dot, but cat, dog"),
        (["crane"], ("crane", "dog", "crane"), "x=[crane]: the classes 0 and 2 of the source are called crane; give a"),
        ([{"dog": 1}], (), "x=[{'dog': 1}]: the source has no names of classes; give numbers, counted from 0"),
        (["tiger cart"], [f"{i}" for i in range(50)] + ["tiger cat"], "the source has no class tiger cart, but tiger"),
    ],
)
def test_a_name_of_no_class_or_of_several_is_refused(labels, names, words):
    with pytest.raises(ValueError, match=rf"^{re.escape(words)}" if words[0] == "x" else words):
        numbered(labels, names, owner="the source", setting="x")
