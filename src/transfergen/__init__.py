"""Image generation by transfer learning."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transfergen.sampling.pretrained import PretrainedGenerator as Generator  # noqa: F401


def __getattr__(name: str) -> Any:
    """`Generator` is imported when it is asked for: it needs torch, which takes seconds."""
    if name == "Generator":
        from transfergen.sampling.pretrained import PretrainedGenerator

        return PretrainedGenerator
    raise AttributeError(f"module transfergen has no attribute {name}")
