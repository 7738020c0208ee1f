import pytest
import torch
from torch.nn import functional as F

from transfergen.networks.generators.fastgan import FastGAN
from transfergen.networks.generators.resnet import ResNet


@pytest.mark.parametrize(("architecture", "width"), [(FastGAN, 4), (ResNet, 2)])
def test_it_learns_fixed_images_and_every_parameter_takes_part(architecture, width):
    generator = architecture(resolution=32, z_dim=8, width=width).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(generator.parameters(), lr=3e-3)
    z, images = torch.randn(8, 8), F.interpolate(torch.rand(8, 3, 4, 4) * 2 - 1, 32, mode="bilinear")
    losses = []
    for _ in range(40):
        with torch.autocast("cpu", torch.bfloat16):
            fake = generator(z)
        loss = F.mse_loss(fake.float(), images)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        assert all(p.grad.any() for p in generator.parameters())
    assert losses[-1] < 0.3 * losses[0]
