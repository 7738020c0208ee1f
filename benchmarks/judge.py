"""A judge that no generator trained against: a small residual classifier of CIFAR-10, trained here on its labels.

    python benchmarks/judge.py --data ../shared/data/cifar10

Its 256 features before the last layer are what benchmarks/time_to_quality.py measures distances in. The weights stay in
the cache folder, so it is trained once.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F

from transfergen.data.huggingface import huggingface
from transfergen.data.store import Store, build_store
from transfergen.images import to_float
from transfergen.runs.artefacts import write

CACHE = Path("~/.cache/transfergen/judge.safetensors").expanduser()
LEAST_ACCURACY = 0.75


class Residual(nn.Module):
    """Two convolutions and a shortcut, after an optional halving of the resolution."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out))
        self.b = nn.Sequential(nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False), nn.BatchNorm2d(c_out))
        self.shortcut = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C', h', w')."""
        return F.relu(self.b(F.relu(self.a(x))) + self.shortcut(x))


class Judge(nn.Module):
    """Images (B, 3, 32, 32) in [-1, 1] -> features (B, 256); `classify` gives the logits of the ten classes."""

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
        """The features."""
        return self.trunk(images).mean(dim=(2, 3))

    def classify(self, images: Tensor) -> Tensor:
        """The logits."""
        return self.head(self(images))


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image flipped or not, and moved by up to 4 pixels, the border mirrored."""
    count, size = len(images), images.shape[-1]
    flip = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    padded = F.pad(torch.where(flip, images.flip(3), images), (4, 4, 4, 4), mode="reflect")
    dy, dx = torch.randint(0, 9, (2, count), generator=generator)
    rows = (dy[:, None] + torch.arange(size))[:, None, :, None]
    columns = (dx[:, None] + torch.arange(size))[:, None, None, :]
    return padded[torch.arange(count)[:, None, None, None], torch.arange(3)[None, :, None, None], rows, columns]


@torch.no_grad()
def accuracy(judge: Judge, test: Store) -> float:
    """The part of the test images that it names rightly."""
    right = [judge.classify(to_float(torch.from_numpy(p).permute(0, 3, 1, 2))).argmax(1) for p in _chunks(test.pixels)]
    return float((torch.cat(right) == torch.from_numpy(test.labels)).float().mean())


def _chunks(pixels):  # noqa: ANN001, ANN202
    return [pixels[i : i + 500] for i in range(0, len(pixels), 500)]


def train(train_set: Store, test_set: Store, *, epochs: int = 14, batch: int = 128, seed: int = 0) -> Judge:
    """SGD with a one-cycle rate, label smoothing, flips and shifts."""
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
            with torch.autocast("cpu", torch.bfloat16):
                logits = judge.classify(augmented(to_float(pixels), generator))
            loss = F.cross_entropy(logits.float(), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        judge.eval()
        print(f"judge: epoch {epoch + 1} of {epochs}, test accuracy {accuracy(judge, test_set):.4f}", flush=True)
    return judge


def load_or_train(data: str) -> tuple[Judge, float]:
    """The judge in eval mode, and its test accuracy.

    Raises:
        ValueError: it names fewer than 75 % of the test images rightly.
    """
    train_set, test_set = (
        build_store(huggingface(data, split), resolution=32, fit="crop", max_memory_mib=4096, cache_dir=CACHE.parent)
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
        raise ValueError(f"the judge's test accuracy is {reached:.4f}, under {LEAST_ACCURACY}; delete {CACHE}")
    return judge.requires_grad_(False), reached


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/cifar10")
    print(f"test accuracy {load_or_train(parser.parse_args().data)[1]:.4f}")
