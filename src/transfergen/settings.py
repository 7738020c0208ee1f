"""The types and ranges of all settings: types from the signatures that take them, ranges from one table."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from omegaconf import DictConfig, ListConfig

_UNTYPED_PATHS = (
    "run fake real save_stats out invert latent web_runtime sweep resume data.path data.cache_dir "
    "init_from.generator init_from.discriminator"
)
_TYPED_PATHS = (
    "data.source.test_path backbone.weights metrics.weights transfer.teacher transfer.source hydra.run.dir "
    "hydra.sweep.dir"
)
PATHS = {*_UNTYPED_PATHS.split(), *_TYPED_PATHS.split()}
"""The settings that hold a path, or a name on the hub."""

TAKEN_BY = {
    "trainer": ("lightning:Trainer", "transfergen.training.trainer:build_trainer"),
    "samples": ("transfergen.training.callbacks:SampleGrid",),
    "evaluation": ("transfergen.training.callbacks:Evaluation",),
}
"""Groups of settings without a `_target_`, and the functions and classes that take these settings as arguments."""

_TYPES: dict[Any, str] = {
    int: "seed num count batch_size devices directions frames fps steps neighbours references port trials "
    "checkpoint_every_images optimizer.d_steps optimizer.accumulate",
    int | None: "max_images snapshot_every_images lr_decay.start_images lr_decay.end_images data.resolution block",
    float: "perceptual init_from.truncation lr_decay.final_factor ema.halflife_images ema.rampup "
    "optimizer.extrapolation",
    float | None: "truncation data.max_damaged data.max_megapixels",
    bool: "channels_last generator_checkpointing memory_report overwrite browser optimizer.simultaneous",
    str | None: _UNTYPED_PATHS,
    Sequence[int]: "seeds coarse fine",
    Sequence[int | str]: "interpolate",
    Sequence[int | str | Mapping[int | str, float]]: "classes init_from.classes",
    Sequence[str]: "runs trust extra",
    Sequence[Mapping[str, str]]: "init_from.keys",
    Mapping: "optimizer.discriminator optimizer.generator logger.tensorboard logger.csv logger.wandb logger.mlflow",
    Literal["last", "best"] | int: "checkpoint",
    Literal["train", "test"]: "split",
    Literal["auto", "gpu", "cpu", "cuda", "mps"]: "device",
    Literal["crop", "pad", "stretch", None]: "data.fit",
    Sequence[int] | None: "data.aspect",
    Literal[1, 3, 4, None]: "data.channels",
    Literal["studiogan", "biggan_pytorch", "biggan_deep", None]: "init_from.layout",
    Literal[128, 256, 512]: "init_from.resolution",
    Literal["error", "skip", None]: "data.damaged",
}
TYPES = {key: kind for kind, keys in _TYPES.items() for key in keys.split()}
"""The types of the settings that no signature tells."""

_RANGES: list[tuple[str, Callable[[Any], bool], str]] = [
    (
        "1 or more",
        lambda value: value >= 1,
        "num batch_size devices frames fps steps references trials samples.count width hidden channels pool z_dim size "
        "input_size every every_images unfreeze_every_images checkpoint_every_images snapshot_every_images max_images "
        "end_images d_steps accumulate checkpoint last_k generator_last_k num_nodes threads log_every_n_steps train "
        "test adapt_images resolution aspect multiples block",
    ),
    ("2 or more", lambda value: value >= 2, "count data.batch_size"),
    (
        "0 or more",
        lambda value: value >= 0,
        "lr directions neighbours start_images extrapolation halflife_images rampup max_memory_mib num_workers "
        "num_classes class_dim orthogonal weight_decay interpolated r1 r2 beta free_bits warmup_images perceptual "
        "adversarial output mmd coral reversal consistency ewc freeze_d cache_mib fallback_lr_scale "
        "discriminator.count taps statistics",
    ),
    (
        "above 0",
        lambda value: value > 0,
        "eps truncation max_megapixels sigma clip trunk_lr_scale generator_lr_scale weight limit_train_batches",
    ),
    ("0 to 1", lambda value: 0 <= value <= 1, "final_factor max_damaged colour translation cutout p max_p"),
    ("0 to below 1", lambda value: 0 <= value < 1, "betas beta2 momentum dropout"),
    ("between 0 and 1", lambda value: 0 < value < 1, "holdout target"),
    ("0 to 4294967295", lambda value: 0 <= value < 2**32, "seed seeds interpolate coarse fine"),
    ("1 to 65535", lambda value: 1 <= value <= 65535, "port"),
    ("-1 or more", lambda value: value >= -1, "max_epochs max_steps trainer.devices"),
]
RANGES = {name: (words, allows) for words, allows, names in _RANGES for name in names.split()}
"""The range of a number, by the full key of one setting, or by the last part of the key of several."""

_LISTS = (Sequence, list, tuple)
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null"}


@cache
def hints(target: Any) -> Mapping[str, Any]:
    """The type hints of what a function or a class takes, by name, with `**` among the names if it takes any.

    A class of this package with `**` hands unknown arguments on to its base, whose hints are then among these. Hints
    that cannot be evaluated stay text.
    """
    try:
        parameters = inspect.signature(target, eval_str=True).parameters.values()
    except NameError:
        parameters = inspect.signature(target).parameters.values()
    known = {each.name: each.annotation for each in parameters if each.kind is not each.VAR_KEYWORD}
    if len(known) == len(parameters):
        return known
    ours = inspect.isclass(target) and target.__module__.startswith("transfergen.")
    return {**(hints(target.__mro__[1]) if ours else {"**": Any}), **known}


def check_value(key: str, value: Any, hint: Any) -> None:
    """Check the value of a setting against a type hint, and each number in it against its range.

    Raises:
        ValueError: it has another type, or is out of range. The message begins with the override, `key=value`.
    """
    if value is None and key.endswith("num_classes"):
        return  # the number of classes in the data, which is filled in
    words, allows = RANGES.get(key) or RANGES.get(key.rpartition(".")[2]) or ("", lambda _: True)
    numbers = [item for item in (value if isinstance(value, ListConfig) else [value]) if _is_number(item)]
    if not _fits(value, hint) or not all(allows(number) for number in numbers):
        described = " or ".join(dict.fromkeys(_described(hint))) or "one of its group's options"
        range_of = f", {words}" if words and "number" in described else ""
        raise ValueError(f"{key}={'null' if value is None else value}: choose {described}{range_of}")


def _fits(value: Any, hint: Any) -> bool:
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        return any(_fits(value, each) for each in inner)
    if kind is Literal:
        return value in inner and not isinstance(value, bool)
    if kind in _WORDS:
        return _is_number(value) and isinstance(value, int | kind) if kind in (int, float) else isinstance(value, kind)
    if kind in _LISTS:
        items = value if isinstance(value, ListConfig) else ()
        each = inner if kind is tuple and Ellipsis not in inner else inner[:1] * len(items)
        return items is value and len(each) == len(items) and all(map(_fits, items, each))
    if kind is Mapping and inner:
        return isinstance(value, DictConfig) and all(all(map(_fits, pair, inner)) for pair in value.items())
    # What is left is Any, a type variable, text or no annotation; or a class, which is built from a node of the config.
    return not inspect.isclass(kind) or kind is inspect.Parameter.empty or isinstance(value, DictConfig)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _described(hint: Any) -> list[str]:
    """The alternatives in words; none for what is built from a node of the config."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, UnionType):
        # An equal hint that was made before, in another order, may stand for this one in the cache of `typing`.
        return [words for each in sorted(inner, key=lambda kind: kind is not float) for words in _described(each)]
    if kind is Literal:
        return [f"one of {', '.join('null' if each is None else str(each) for each in inner)}"]
    if kind in _LISTS:
        each = " or ".join(_described(inner[0])) if inner else ""
        return ["a list, as in [a,b]" + (f", each {each}" if each else "")]
    if kind is Mapping and inner:
        key, item = (" or ".join(_described(each)) for each in inner)
        return [f"a mapping, as in {{a: b}}, from {key} to {item}"]
    return [_WORDS[kind]] if kind in _WORDS else []
