import pytest
import torch
from torch import nn
from torch.nn import functional as F

from transfergen.networks.layers.conditional_norm import ConditionalBatchNorm2d


@pytest.fixture
def maps():
    return 3 * torch.randn(6, 4, 5, 5) + 1


def test_table_gives_each_class_batch_norm_with_its_own_gain_and_bias(maps):
    norm = ConditionalBatchNorm2d(4, num_classes=3)
    for table in (norm.gain, norm.bias):
        nn.init.normal_(table.weight)
    y = torch.tensor([2, 0, 1, 0, 2, 2])
    result = norm(maps, y)
    for c in range(3):
        # Statistics are the whole batch's, whatever the class.
        expected = F.batch_norm(maps, None, None, 1 + norm.gain.weight[c], norm.bias.weight[c], training=True)
        torch.testing.assert_close(result[y == c], expected[y == c])


def test_linear_maps_give_each_vector_its_own_gain_and_bias(maps):
    norm = ConditionalBatchNorm2d(4, condition_dim=7)
    vectors = torch.randn(6, 7)
    result = norm(maps, vectors)
    gains, biases = 1 + vectors @ norm.gain.weight.T, vectors @ norm.bias.weight.T
    for i in range(6):
        expected = F.batch_norm(maps, None, None, gains[i], biases[i], training=True)
        torch.testing.assert_close(result[i], expected[i])


def test_it_starts_as_plain_batch_norm_and_keeps_its_running_statistics(maps):
    norm, plain = ConditionalBatchNorm2d(4, num_classes=3), nn.BatchNorm2d(4)
    y = torch.tensor([2, 0, 1, 0, 2, 2])
    torch.testing.assert_close(norm(maps, y), plain(maps))
    torch.testing.assert_close(norm.eval()(maps, y), plain.eval()(maps))
    with pytest.raises(AssertionError):
        torch.testing.assert_close(norm.eval()(maps, y), norm.train()(maps, y))


def test_maps_keep_their_type_beside_float32_tables(maps):
    norm = ConditionalBatchNorm2d(4, num_classes=3)
    with torch.autocast("cpu", torch.bfloat16):
        assert norm(maps.bfloat16(), torch.zeros(6, dtype=torch.int64)).dtype == torch.bfloat16
