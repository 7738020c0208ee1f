import pytest
import torch

from transfergen.networks.encoders.dcgan import DCGANEncoder


@pytest.mark.parametrize("resolution", [32, 64, 128, 256])
def test_images_become_a_mean_and_a_log_variance_for_each_dimension_of_the_latent(resolution):
    encoder = DCGANEncoder(resolution=resolution, z_dim=7, width=4)
    mean, log_variance = encoder(torch.randn(2, 3, resolution, resolution))
    assert mean.shape == log_variance.shape == (2, 7)
    (mean.sum() + 2 * log_variance.sum()).backward()
    assert all(p.grad is not None for p in encoder.parameters())
    assert not torch.equal(mean, log_variance)
