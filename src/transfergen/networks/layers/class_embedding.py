"""An embedding of classes that also takes mixtures of them."""

from torch import Tensor, nn


class ClassEmbedding(nn.Embedding):
    """Classes (B,) int64 -> their vectors (B, D); weights (B, N) float of the N classes -> weighted sums (B, D)."""

    def forward(self, y: Tensor) -> Tensor:
        """Classes (B,) or weights (B, N) -> vectors (B, D)."""
        return y @ self.weight if y.is_floating_point() else super().forward(y)
