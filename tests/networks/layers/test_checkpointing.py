import copy

import pytest
import torch
from torch import nn

from transfergen.networks.generators.biggan_deep import BigGANDeep
from transfergen.networks.generators.dcgan import DCGAN
from transfergen.networks.generators.fastgan import FastGAN
from transfergen.networks.generators.resnet import ResNet
from transfergen.networks.layers.checkpointing import checkpointed

BIGGAN = {"num_classes": 3, "class_dim": 6, "hierarchical": True, "attention": 16, "spectral_norm": True}
GENERATORS = {
    "dcgan": lambda: DCGAN(resolution=32, z_dim=8, width=4),
    "fastgan": lambda: FastGAN(resolution=32, z_dim=8, width=4),
    "biggan_deep": lambda: BigGANDeep(z_dim=8, width=4, num_classes=3, class_dim=6),
    "biggan": lambda: ResNet(resolution=32, z_dim=8, width=4, **BIGGAN),
}


def passed_twice(generator, z, y, generate):
    """The images, gradients and buffers of two passes, whose gradients come after both, with noise and without."""
    torch.manual_seed(1)
    images = [generate(each, y) for each in z]
    after = [torch.rand(1)]  # what is drawn next
    torch.stack([(i * w).sum() for i, w in zip(images, torch.randn(2, *images[0].shape), strict=True)]).sum().backward()
    gradients = [p.grad for p in generator.parameters()]
    return [*images, *after, *gradients, *generator.buffers(), torch.rand(1)]


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("name", GENERATORS)
def test_bits_are_the_same_with_less_kept(name, whole, autocast):
    """Batch statistics, power iterations and noise of the second pass are those of the first, and count once."""
    plain = GENERATORS[name]()
    for parameter in plain.parameters():  # noise, for one, starts from a factor of 0
        nn.init.normal_(parameter, std=0.3)
    lean = copy.deepcopy(plain)
    lean.checkpointing = True
    z, y = torch.randn(2, 4, 8), torch.tensor([0, 2, 1, 1])
    generate = (lambda *inputs: checkpointed(lean, *inputs)) if whole else lean
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        expected, found = passed_twice(plain, z, y, plain), passed_twice(lean, z, y, generate)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize("name", GENERATORS)
def test_a_checkpointed_generator_keeps_less_than_half(name):
    generator, kept = GENERATORS[name](), []
    z, y = torch.randn(16, 8), torch.tensor([0, 2, 1, 1] * 4)
    for checkpointing in (False, True):
        generator.checkpointing, saved = checkpointing, {}

        def keep(tensor, saved=saved):
            saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            images = generator(z, y)
        kept.append(sum(saved.values()) - sum(p.nbytes for p in generator.parameters()))
        del images
    assert kept[1] < kept[0] / 2


def test_without_gradients_nothing_is_kept_for_a_second_pass():
    layer = nn.BatchNorm2d(3)
    with torch.no_grad():
        maps = checkpointed(layer, torch.randn(2, 3, 4, 4))
    assert not maps.requires_grad
    assert layer.num_batches_tracked == 1
