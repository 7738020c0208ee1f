"""The judge: a small residual classifier of CIFAR-10, in whose features the benchmarks measure distances.

It is trained here on the labels, so no discriminator shares weights with it. That happens once, on the CPU, when a
benchmark first needs it; its weights stay in the cache folder.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from transfergen.data.huggingface import huggingface
from transfergen.data.store import Store, build_store
from transfergen.image_shape import ImageShape
from transfergen.images import to_float
from transfergen.networks.acceleration.prepared_kernel import has_kernels
from transfergen.runs.artefacts import write

CACHE = Path("~/.cache/transfergen/judge.safetensors").expanduser()
RESOLUTION = 32
LEAST_ACCURACY = 0.75


class Residual(nn.Module):
    """Residual block: maps (B, C, h, w) -> maps (B, C', h / stride, w / stride). He 2016, arXiv:1512.03385."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out))
        self.b = nn.Sequential(nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False), nn.BatchNorm2d(c_out))
        self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        """The sum of two convolutions and the shortcut."""
        return F.relu(self.b(F.relu(self.a(x))) + self.shortcut(x))


class Judge(nn.Module):
    """Images (B, 3, 32, 32) in [-1, 1] -> features (B, 256)."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 32, 3, 1, 1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            Residual(32, 64, 2),
            Residual(64, 128, 2),
            Residual(128, 256, 2),
        )
        self.head = nn.Linear(256, 10)

    def forward(self, images: Tensor) -> Tensor:
        """The last maps, averaged over positions."""
        return self.trunk(images).mean(dim=(2, 3))

    def classify(self, images: Tensor) -> Tensor:
        """Images (B, 3, 32, 32) in [-1, 1] -> logits (B, 10)."""
        return self.head(self(images))


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image with probability 1/2, and translate it by up to 4 pixels, filled by reflection."""
    count, size = len(images), images.shape[-1]
    flip = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    padded = F.pad(torch.where(flip, images.flip(3), images), (4, 4, 4, 4), mode="reflect")
    dy, dx = torch.randint(0, 9, (2, count), generator=generator)
    rows = (dy[:, None] + torch.arange(size))[:, None, :, None]
    columns = (dx[:, None] + torch.arange(size))[:, None, None, :]
    return padded[torch.arange(count)[:, None, None, None], torch.arange(3)[None, :, None, None], rows, columns]


@torch.no_grad()
def accuracy(judge: Judge, test_set: Store) -> float:
    """The fraction of test images that it classifies correctly."""
    batches = (test_set[indices] for indices in np.array_split(np.arange(len(test_set)), 1 + len(test_set) // 500))
    correct = [judge.classify(to_float(batch.pixels)).argmax(1) == batch.labels for batch in batches]
    return float(torch.cat(correct).float().mean())


def train(train_set: Store, test_set: Store, *, epochs: int = 14, batch: int = 128, seed: int = 0) -> Judge:
    """SGD with a one-cycle learning rate and label smoothing."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    judge = Judge().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(judge.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = len(train_set) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=epochs * steps)
    for epoch in range(epochs):
        judge.train()
        order = torch.randperm(len(train_set), generator=generator)
        for indices in order[: steps * batch].split(batch):
            pixels, labels, _ = train_set[indices.numpy()]
            with torch.autocast("cpu", torch.bfloat16, enabled=has_kernels(torch.bfloat16)):
                logits = judge.classify(augment(to_float(pixels), generator))
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        judge.eval()
        print(f"judge: epoch {epoch + 1} of {epochs}, test accuracy {accuracy(judge, test_set):.4f}", flush=True)
    return judge


def load_or_train(data: str) -> tuple[Judge, float]:
    """The judge, frozen and in eval mode, and its test accuracy.

    Args:
        data: CIFAR-10, a folder or a name on the Hugging Face hub.

    Raises:
        ValueError: the accuracy is below 0.75.
    """
    train_set, test_set = (
        build_store(
            huggingface(data, split),
            shape=ImageShape(3, RESOLUTION, RESOLUTION),
            fit="crop",
            max_memory_mib=4096,
            cache_dir=CACHE.parent,
        )
        for split in ("train", "test")
    )
    if CACHE.exists():
        judge = Judge()
        judge.load_state_dict(load_file(CACHE))
        judge.eval()
    else:
        judge = train(train_set, test_set)
        write(CACHE, save({name: tensor.contiguous() for name, tensor in judge.state_dict().items()}))
    reached = accuracy(judge, test_set)
    if reached < LEAST_ACCURACY:
        raise ValueError(f"the judge's test accuracy is {reached:.4f}, below {LEAST_ACCURACY}; delete {CACHE}")
    return judge.requires_grad_(False), reached
