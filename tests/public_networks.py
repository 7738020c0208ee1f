"""Networks of other projects, with random weights.

BigGAN's residual networks are as StudioGAN and BigGAN-PyTorch name and store them, by their published structure;
BigGAN-deep is the package's that its released files are for.
"""

from itertools import pairwise

import torch
from pytorch_pretrained_biggan import BigGAN, BigGANConfig
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm

_FIRST = [[False, 16, 16], [True, 16, 16], [False, 16, 16], [True, 16, 8], [False, 8, 8]]
DEEP_LAYERS = {
    128: [*_FIRST, [True, 8, 4], [False, 4, 4], [True, 4, 2], [False, 2, 2], [True, 2, 1]],
    256: [*_FIRST, [True, 8, 8], [False, 8, 8], [True, 8, 4], [False, 4, 4], [True, 4, 2], [False, 2, 2], [True, 2, 1]],
}
DEEP_LAYERS[512] = [*DEEP_LAYERS[256], [False, 1, 1], [True, 1, 1]]
"""(doubled, channels in, channels out) of each block, in units of the width."""
G_WIDTHS = {32: (4, 4, 4, 4), 64: (16, 8, 4, 2, 1), 128: (16, 16, 8, 4, 2, 1)}
D_WIDTHS = {32: (2, 2, 2, 2), 64: (1, 2, 4, 8, 16), 128: (1, 2, 4, 8, 16, 16)}


class BatchNorm(nn.Module):
    """BigGAN-PyTorch's batch normalisation, in eval mode."""

    def __init__(self, channels, *, conditions=0):
        super().__init__()
        self.register_buffer("stored_mean", torch.randn(channels))
        self.register_buffer("stored_var", torch.rand(channels) + 0.5)
        if conditions:
            self.gain, self.bias = (SNLinear(conditions, channels, bias=False) for _ in range(2))
        else:
            self.gain, self.bias = nn.Parameter(torch.rand(channels) + 0.5), nn.Parameter(torch.randn(channels))

    def forward(self, maps, *condition):
        normed = F.batch_norm(maps, self.stored_mean, self.stored_var, eps=1e-5)
        return modulated(normed, self, *condition) if condition else per_channel(normed, self.gain, self.bias)


class SN:
    """BigGAN-PyTorch's spectral norm: each pass takes one step of the power iteration, which eval mode forgets."""

    def begin(self):
        self.register_buffer("u0", torch.randn(1, len(self.weight)))
        self.register_buffer("sv0", torch.ones(1))
        return self

    def normed(self):
        matrix = self.weight.flatten(1)
        v = F.normalize(self.u0 @ matrix)
        u = F.normalize(v @ matrix.T)
        return self.weight / (v @ matrix.T @ u.T).squeeze()


class SNConv2d(nn.Conv2d, SN):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.begin()

    def forward(self, maps):
        return F.conv2d(maps, self.normed(), self.bias, padding=self.padding)


class SNLinear(nn.Linear, SN):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.begin()

    def forward(self, x):
        return F.linear(x, self.normed(), self.bias)


class SNEmbedding(nn.Embedding, SN):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.begin()

    def forward(self, y):
        return self.normed()[y]


class ConditionalBatchNorm(nn.Module):
    """StudioGAN's conditional batch normalisation."""

    def __init__(self, channels, *, conditions):
        super().__init__()
        self.bn = nn.BatchNorm2d(channels, eps=1e-4, affine=False)
        self.gain, self.bias = (spectral_norm(nn.Linear(conditions, channels, bias=False)) for _ in range(2))

    def forward(self, maps, condition):
        return modulated(self.bn(maps), self, condition)


def modulated(normed, layer, condition):
    return normed * (1 + layer.gain(condition))[:, :, None, None] + layer.bias(condition)[:, :, None, None]


def per_channel(normed, gain, bias):
    return normed * gain[:, None, None] + bias[:, None, None]


class StudioGAN:
    """StudioGAN's names of layers, and its own kinds of layers."""

    first, second, shortcut, attention, gain = "conv2d1", "conv2d2", "conv2d0", "conv1x1_{}", "sigma"
    query, key, value, out = "theta", "phi", "g", "attn"
    linear, shared, last_norm, last, d_linear, embedding = "linear0", "shared", "bn4", "conv2d5", "linear1", "embedding"
    gain_shape = (1,)

    conditional = ConditionalBatchNorm

    @staticmethod
    def wrap(layer):
        return spectral_norm(layer)

    @staticmethod
    def norm(channels):
        return nn.BatchNorm2d(channels, eps=1e-4)

    @staticmethod
    def place(blocks):
        """Each block, and the self-attention, in a list of its own."""
        return nn.ModuleList(nn.ModuleList([block]) for block in blocks)


class BigGANPyTorch:
    first, second, shortcut, attention, gain = "conv1", "conv2", "conv_sc", "{}", "gamma"
    query, key, value, out = "theta", "phi", "g", "o"
    linear, shared, last_norm, last, d_linear, embedding = "linear", "shared", "0", "2", "linear", "embed"
    gain_shape = ()

    conditional = BatchNorm
    norm = BatchNorm

    @staticmethod
    def wrap(layer):
        """The same layer with its spectral norm."""
        if isinstance(layer, nn.Embedding):
            return SNEmbedding(*layer.weight.shape)
        bias = layer.bias is not None
        if isinstance(layer, nn.Linear):
            return SNLinear(layer.in_features, layer.out_features, bias=bias)
        return SNConv2d(layer.in_channels, layer.out_channels, layer.kernel_size, padding=layer.padding, bias=bias)

    @staticmethod
    def place(blocks):
        """Self-attention in the list of the block before it."""
        lists = []
        for block in blocks:
            if isinstance(block, Attention):
                lists[-1].append(block)
            else:
                lists.append([block])
        return nn.ModuleList(map(nn.ModuleList, lists))


class Attention(nn.Module):
    def __init__(self, project, channels):
        super().__init__()
        self.project = project
        for name, c_in, c_out in (
            (project.query, channels, channels // 8),
            (project.key, channels, channels // 8),
            (project.value, channels, channels // 2),
            (project.out, channels // 2, channels),
        ):
            self.add_module(project.attention.format(name), project.wrap(nn.Conv2d(c_in, c_out, 1, bias=False)))
        self.register_parameter(project.gain, nn.Parameter(torch.full(project.gain_shape, 0.7)))

    def forward(self, maps):
        project, size = self.project, maps.shape[2:]
        layer = lambda name: self.get_submodule(project.attention.format(name))  # noqa: E731
        query = layer(project.query)(maps).flatten(2)
        key, value = (F.max_pool2d(layer(name)(maps), 2).flatten(2) for name in (project.key, project.value))
        weights = torch.softmax(query.transpose(1, 2) @ key, dim=-1)
        gathered = layer(project.out)((value @ weights.transpose(1, 2)).unflatten(2, size))
        return maps + self.get_parameter(project.gain) * gathered


class UpBlock(nn.Module):
    def __init__(self, project, c_in, c_out, conditions):
        super().__init__()
        self.project = project
        self.bn1, self.bn2 = (
            project.conditional(c_in, conditions=conditions),
            project.conditional(c_out, conditions=conditions),
        )
        self.add_module(project.first, project.wrap(nn.Conv2d(c_in, c_out, 3, padding=1)))
        self.add_module(project.second, project.wrap(nn.Conv2d(c_out, c_out, 3, padding=1)))
        self.add_module(project.shortcut, project.wrap(nn.Conv2d(c_in, c_out, 1)))

    def forward(self, maps, condition):
        first, second, shortcut = (
            self.get_submodule(name) for name in (self.project.first, self.project.second, self.project.shortcut)
        )
        residual = first(F.interpolate(F.relu(self.bn1(maps, condition)), scale_factor=2))
        residual = second(F.relu(self.bn2(residual, condition)))
        return residual + shortcut(F.interpolate(maps, scale_factor=2))


class PublicGenerator(nn.Module):
    """Attention follows the block whose maps are of the size `attention`, in pixels."""

    def __init__(self, project, resolution, *, width, classes=3, class_dim=5, chunk=2, attention=16):
        super().__init__()
        widths = [multiple * width for multiple in G_WIDTHS[resolution]]
        self.project, self.chunk, self.z_dim = project, chunk, chunk * len(widths)
        self.add_module(project.linear, project.wrap(nn.Linear(chunk, 16 * widths[0])))
        self.add_module(project.shared, nn.Embedding(classes, class_dim))
        blocks = []
        for i, (c_in, c_out) in enumerate(pairwise(widths)):
            blocks.append(UpBlock(project, c_in, c_out, class_dim + chunk))
            if 8 * 2**i == attention:
                blocks.append(Attention(project, c_out))
        self.blocks = project.place(blocks)
        norm, last = project.norm(widths[-1]), project.wrap(nn.Conv2d(widths[-1], 3, 3, padding=1))
        if project is StudioGAN:
            self.bn4, self.conv2d5 = norm, last
        else:
            self.output_layer = nn.Sequential(norm, nn.ReLU(), last)
        randomize(self)

    def forward(self, z, y):
        start, *chunks = z.split(self.chunk, dim=1)
        embedded = self.get_submodule(self.project.shared)(y)
        maps = self.get_submodule(self.project.linear)(start).unflatten(1, (-1, 4, 4))
        for block in (block for row in self.blocks for block in row):
            if isinstance(block, Attention):
                maps = block(maps)
            else:
                maps = block(maps, torch.cat([embedded, chunks.pop(0)], dim=1))
        if self.project is StudioGAN:
            return torch.tanh(self.conv2d5(F.relu(self.bn4(maps))))
        return torch.tanh(self.output_layer(maps))


class DownBlock(nn.Module):
    def __init__(self, project, c_in, c_out, *, halved, first):
        super().__init__()
        self.project, self.halved, self.is_first = project, halved, first
        self.add_module(project.first, project.wrap(nn.Conv2d(c_in, c_out, 3, padding=1)))
        self.add_module(project.second, project.wrap(nn.Conv2d(c_out, c_out, 3, padding=1)))
        self.has_shortcut = halved or c_in != c_out
        if self.has_shortcut:
            self.add_module(project.shortcut, project.wrap(nn.Conv2d(c_in, c_out, 1)))

    def forward(self, maps):
        pool = (lambda x: F.avg_pool2d(x, 2)) if self.halved else (lambda x: x)
        first, second = self.get_submodule(self.project.first), self.get_submodule(self.project.second)
        residual = pool(second(F.relu(first(maps if self.is_first else F.relu(maps)))))
        return residual + pool(self.get_submodule(self.project.shortcut)(maps) if self.has_shortcut else maps)


class PublicDiscriminator(nn.Module):
    def __init__(self, project, resolution, *, width, classes=3, attention=16):
        super().__init__()
        widths = [3, *(multiple * width for multiple in D_WIDTHS[resolution])]
        halvings = 2 if resolution == 32 else len(widths) - 2
        blocks = []
        for i, (c_in, c_out) in enumerate(pairwise(widths)):
            blocks.append(DownBlock(project, c_in, c_out, halved=i < halvings, first=i == 0))
            if resolution >> (i + 1) == attention:
                blocks.append(Attention(project, c_out))
        self.project, self.blocks = project, project.place(blocks)
        self.add_module(project.d_linear, project.wrap(nn.Linear(widths[-1], 1)))
        self.add_module(project.embedding, project.wrap(nn.Embedding(classes, widths[-1])))
        randomize(self)

    def forward(self, images, y):
        maps = images
        for block in (block for row in self.blocks for block in row):
            maps = block(maps)
        vectors = F.relu(maps).sum(dim=(2, 3))
        embedded = self.get_submodule(self.project.embedding)(y)
        return self.get_submodule(self.project.d_linear)(vectors) + (embedded * vectors).sum(1, keepdim=True)


@torch.no_grad()
def iterate(network):
    """Take two steps of the power iteration in each of torch's older spectral norms; its vectors begin as noise."""
    for module in network.modules():
        for hook in module._forward_pre_hooks.values():
            for _ in range(2):
                hook.compute_weight(module, do_power_iteration=True)


@torch.no_grad()
def randomize(network):
    """Statistics and biases that matter, and vectors of spectral norm that have not converged."""
    iterate(network)
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if name.endswith(("running_mean", "bias")):
            tensor.normal_(std=0.3)
        elif name.endswith(("running_var", "bn4.weight")):
            tensor.uniform_(0.5, 1.5)
    network.eval()


def biggan_deep(resolution=128, **settings):
    """The package's network with random weights and statistics."""
    torch.manual_seed(1)
    network = BigGAN(BigGANConfig(output_dim=resolution, layers=DEEP_LAYERS[resolution], **settings)).eval()
    iterate(network)
    for name, buffer in network.named_buffers():
        if name.endswith("running_means"):
            buffer.normal_(std=0.1)
        elif name.endswith("running_vars"):
            buffer.uniform_(0.5, 1.5)
    for name, parameter in network.named_parameters():
        if name.endswith("gamma") or name == "generator.bn.weight":
            torch.nn.init.ones_(parameter)
        elif name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
    torch.nn.init.normal_(network.generator.conv_to_rgb.weight_orig, std=3.0)  # else all images are grey
    return network
