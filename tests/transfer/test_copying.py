import re

import pytest
import torch

from transfergen.networks.discriminators.resnet import ResNetDiscriminator
from transfergen.networks.generators.resnet import ResNet
from transfergen.transfer.copying import copy_weights, start_weights


def test_differences_are_reported_and_new_classes_start_from_the_mean_of_the_old(caplog):
    old = ResNetDiscriminator(resolution=32, width=4, num_classes=3)
    new = ResNetDiscriminator(resolution=32, width=4, num_classes=5)
    fresh = new.embedding.weight.clone()
    report = copy_weights({**old.state_dict(), "extra": torch.zeros(2)}, new, "init_from.discriminator=x")
    assert any(re.match(r"embedding\S+: 3 classes in the source, 5 here", line) for line in report)
    assert "extra (2,): in the source only" in report
    original = new.embedding.parametrizations.weight.original
    expected = old.embedding.parametrizations.weight.original.mean(dim=0)
    torch.testing.assert_close(original, expected.expand_as(original))
    assert not torch.equal(new.embedding.weight, fresh)
    message = caplog.records[-1].getMessage()
    assert message.startswith("init_from.discriminator=x: ")
    assert all(line in message for line in report)


def test_layers_of_another_shape_keep_their_values():
    old, new = ResNet(resolution=32, z_dim=8, width=4), ResNet(resolution=32, z_dim=16, width=4)
    linear = new.linear.weight.clone()
    report = copy_weights(old.state_dict(), new, "init_from.generator=x")
    shapes = f"{tuple(old.linear.weight.shape)} in the source, {tuple(linear.shape)} here"
    assert report == [f"linear.weight: {shapes}: keeps its fresh values"]
    assert torch.equal(new.linear.weight, linear)
    assert torch.equal(new.to_rgb[-2].weight, old.to_rgb[-2].weight)


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ([3], "the source has 3 classes, counted from 0"),
        ([0, 1, 2], "give one, or as many as the run has classes: 2"),
    ],
)
def test_classes_to_start_from_that_do_not_fit_are_refused(chosen, words):
    with pytest.raises(ValueError, match=rf"^init_from\.classes={re.escape(str(chosen))}: {words}"):
        start_weights(chosen, 2, 3)
