"""DINO's and DINOv2's networks as their authors publish them: the layout of the files, and what they compute."""

import numpy as np
import torch
from torch.nn import functional as F

DINO, DINOV2, DINOV2_LARGE = (
    "vit_small_patch16_224.dino",
    "vit_small_patch14_dinov2.lvd142m",
    "vit_large_patch14_dinov2.lvd142m",
)
SIZES = {  # width, heads, transformer blocks, side of a patch, patches a side
    DINO: (384, 6, 12, 16, 14),
    DINOV2: (384, 6, 12, 14, 37),
    DINOV2_LARGE: (1024, 16, 24, 14, 37),
}


def layout(name, depth=None):
    """Names and shapes in the published file, of `depth` transformer blocks or of all."""
    width, _, blocks, patch, side = SIZES[name]
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 1 + side**2, width)}
    linear = {"patch_embed.proj": (width, 3, patch, patch)}
    vectors = ["norm.weight", "norm.bias"]
    for i in range(blocks if depth is None else depth):
        linear |= {
            f"blocks.{i}.attn.qkv": (3 * width, width),
            f"blocks.{i}.attn.proj": (width, width),
            f"blocks.{i}.mlp.fc1": (4 * width, width),
            f"blocks.{i}.mlp.fc2": (width, 4 * width),
        }
        vectors += [f"blocks.{i}.norm{j}.{part}" for j in (1, 2) for part in ("weight", "bias")]
        vectors += [f"blocks.{i}.ls{j}.gamma" for j in (1, 2) if "dinov2" in name]
    for layer, shape in linear.items():
        shapes |= {f"{layer}.weight": shape, f"{layer}.bias": shape[:1]}
    return shapes | dict.fromkeys(vectors, (width,)) | ({"mask_token": (1, width)} if "dinov2" in name else {})


def random_file(path, name, depth):
    """Write a file of random weights in this layout; returns them."""
    state = {
        key: torch.randn(shape) * (0.1 if len(shape) in (2, 4) else 0.5) for key, shape in layout(name, depth).items()
    }
    torch.save(state, path)
    return state


def tokens(state, images, name):
    """Normalised images (B, 3, R, R) -> tokens after the embedding and after each transformer block; class token first.

    Written down from the papers and the authors' code, without timm.
    """
    width, heads, _, patch, side = SIZES[name]
    x = F.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=patch)
    resize = interpolation(side, x.shape[-1])
    grid = state["pos_embed"][0, 1:].view(side, side, width)
    positions = torch.einsum("ai,bj,ijc->abc", resize, resize, grid).reshape(-1, width)
    positions = torch.cat([state["pos_embed"][0, :1], positions])
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), x.flatten(2).mT], dim=1) + positions
    found = [x]
    for i in range(sum(key.endswith("norm1.weight") for key in state)):
        block = {key.removeprefix(f"blocks.{i}."): t for key, t in state.items() if key.startswith(f"blocks.{i}.")}
        of = lambda layer, x, block=block: F.linear(x, block[f"{layer}.weight"], block[f"{layer}.bias"])  # noqa: E731
        q, k, v = of("attn.qkv", norm(block, "norm1", x)).unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        attended = (q @ k.mT * (width / heads) ** -0.5).softmax(-1) @ v
        x = x + of("attn.proj", attended.transpose(1, 2).flatten(2)) * block.get("ls1.gamma", 1)
        x = x + of("mlp.fc2", F.gelu(of("mlp.fc1", norm(block, "norm2", x)))) * block.get("ls2.gamma", 1)
        found.append(x)
    return found


def norm(state, layer, x):
    return F.layer_norm(x, x.shape[-1:], state[f"{layer}.weight"], state[f"{layer}.bias"], 1e-6)


def interpolation(n, side):
    """The matrix (side, n) that resizes position embeddings along one direction, by hand: cubic, a = -3/4."""
    matrix = np.zeros((side, n))
    if side == n:
        return torch.eye(n)
    for i in range(side):
        at = (i + 0.5) * n / (side + 0.1) - 0.5
        for j in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            t = abs(at - j)
            near, far = 1.25 * t**3 - 2.25 * t**2 + 1, -0.75 * (t**3 - 5 * t**2 + 8 * t - 4)
            matrix[i, min(max(j, 0), n - 1)] += near if t <= 1 else far
    return torch.from_numpy(matrix).float()
