"""The contract of all discriminators, on one toy trunk."""

import pytest
import torch
from torch import nn
from trunks import trunk

from transfergen.networks.discriminators.base import channel_statistics
from transfergen.networks.discriminators.dcgan import DCGANDiscriminator
from transfergen.networks.discriminators.projected import ProjectedDiscriminator
from transfergen.networks.discriminators.single_head import SingleHeadDiscriminator
from transfergen.networks.discriminators.vgg import VGGDiscriminator
from transfergen.networks.discriminators.vision_aided import VisionAidedDiscriminator


def vision_aided():
    d = VisionAidedDiscriminator(
        DCGANDiscriminator(resolution=32, width=4),
        {"near": trunk((4, 6)), "far": trunk()},
        resolution=32,
        channels=4,
        width=4,
    )
    d.joined = ["near", "far"]
    return d


BUILD = {
    "dcgan": lambda: DCGANDiscriminator(resolution=32, width=4),
    "vgg": lambda: VGGDiscriminator(trunk(), resolution=32, width=4, hidden=16),
    "single_head": lambda: SingleHeadDiscriminator(trunk(), resolution=32, hidden=16),
    "projected": lambda: ProjectedDiscriminator(trunk(), resolution=32, channels=4, width=4),
    "vision_aided": vision_aided,
}
PRETRAINED = ["vgg", "single_head", "projected", "vision_aided"]


def frozen(name):
    d = BUILD[name]()
    d.freeze(d.blocks)
    return d


@pytest.fixture
def images():
    return torch.rand(4, 3, 32, 32) * 2 - 1


@pytest.mark.parametrize("name", BUILD)
def test_logits_are_as_many_as_declared_and_each_is_in_one_group(name, images):
    d = BUILD[name]()
    columns = range(d.num_logits)
    assert [i for group, _ in d.logit_groups() for i in columns[group]] == list(columns)  # before anything is scored
    assert d(images).shape == (4, d.num_logits)


@pytest.mark.parametrize("name", ["dcgan", "projected", "vision_aided"])
def test_a_trunk_that_cannot_train_refuses_to_be_unfrozen(name):
    d = BUILD[name]()
    d.freeze(d.blocks)
    for blocks in {0, d.blocks - 1, d.blocks + 1} - {d.blocks}:
        with pytest.raises(ValueError, match=rf"^blocks={blocks}: "):
            d.freeze(blocks)


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_frozen_trunk_is_in_eval_mode_from_the_start_and_train_cannot_undo_it(name, images):
    d = frozen(name)
    blocks = [block for backbone in d.backbones for block in backbone.blocks]
    before = [tensor.clone() for block in blocks for tensor in block.state_dict().values()]
    for undo in (lambda: None, d.train, nn.Sequential(d).train):
        undo()
        assert d.training
        assert not any(module.training for block in blocks for module in block.modules())
        d(images)
    after = [tensor for block in blocks for tensor in block.state_dict().values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", PRETRAINED)
def test_images_and_trainable_weights_get_gradients_and_no_others(name, images):
    d = frozen(name)
    images.requires_grad_()
    (d(images).square().mean(dim=1) * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert images.grad.abs().amax((1, 2, 3)).min() > 0
    assert {p for p in d.parameters() if p.grad is not None} == set(d.trainable_parameters())
    assert not {p for backbone in d.backbones for p in backbone.parameters()} & set(d.trainable_parameters())


@pytest.mark.parametrize("build", [VGGDiscriminator, SingleHeadDiscriminator, ProjectedDiscriminator])
def test_a_missing_trunk_is_refused(build):
    with pytest.raises(ValueError, match=r"^backbone=none: .* pretrained network"):
        build({})  # what backbone=none gives


@pytest.mark.parametrize("batch_size", [1, 2])
def test_statistics_of_channels_by_hand(batch_size):
    shallow = torch.tensor([1.0, 3.0, 5.0, 7.0]).view(2, 1, 1, 2)
    means, stds = channel_statistics(lambda m: [torch.cat([m, m * 0], dim=1), m * 0], shallow, batch_size=batch_size)
    torch.testing.assert_close(means[0], torch.tensor([4.0, 0.0]))
    std = (20 / 3) ** 0.5
    torch.testing.assert_close(stds[0], torch.tensor([std, std / 2 * 1e-3]))  # a dead channel is not blown up to NaN
    assert means[1].tolist() == [0.0]


@pytest.mark.parametrize("batch_size", [1, 3, 5, 8])
def test_statistics_of_channels_are_those_of_all_images_at_once(batch_size):
    images, seen = torch.rand(5, 3, 8, 8), []

    def features(part):
        seen.append(len(part))
        return [part * 100 + 3, part[:, :2, ::2]]

    means, stds = channel_statistics(features, images, batch_size=batch_size)
    assert max(seen) <= batch_size
    for m, mean, std in zip(features(images), means, stds, strict=True):
        torch.testing.assert_close(mean, m.mean((0, 2, 3)))
        torch.testing.assert_close(std, m.std((0, 2, 3)))
