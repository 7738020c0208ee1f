import numpy as np
import pytest
import torch

from transfergen.networks.class_mixtures import to_labels, to_weights


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
