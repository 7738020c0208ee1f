"""Image generation by transfer learning."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transfergen.sampling.pretrained import PretrainedGenerator as Generator  # noqa: F401


def __getattr__(name: str) -> Any:
    """Import `Generator` on first use: it needs torch, whose import takes seconds."""
    if name == "Generator":
        from transfergen.sampling.pretrained import PretrainedGenerator

        return PretrainedGenerator
    raise AttributeError(f"module transfergen has no attribute {name}")
