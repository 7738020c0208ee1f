"""The page of `transfergen explore`: tabs of controls, each beside the picture that they make."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from transfergen.commands.explore_pictures import BY_SEED, NO_TRUNCATION, between, enlarged, mixed, moved, samples

if TYPE_CHECKING:
    from PIL import Image

    from transfergen.sampling.pretrained import PretrainedGenerator

DIRECTIONS = 6
"""Directions in the latent space that have a slider."""
LAST_SEED = 2**32 - 1
"""The largest seed, as of `transfergen generate`."""


def page(generator: "PretrainedGenerator", search: "Callable[[int], Image.Image] | str", name: str) -> Any:
    """Gradio's page, with a tab for each kind of image.

    Args:
        generator: makes the images.
        search: see `training_pictures`; or a message that says why there is none.
        name: of the generator, as the setting `run` has it.
    """
    import gradio as gr

    with gr.Blocks(title="transfergen", analytics_enabled=False) as blocks:
        gr.Markdown("# transfergen")
        _text(f"{name}: {type(generator.network).__name__}, {generator.image_shape}, {generator.origin}")
        with gr.Tab("Samples"):
            _samples(generator, blocks)
        with gr.Tab("Between two"):
            image, controls = _beside("between")
            with controls:
                ends = [_seed(f"{side} seed", value) for value, side in ((1, "from"), (2, "to"))]
                part = _slider(0, 1, 0.5, step=0.05, label="part of the way", elem_id="part")
                settings = [*ends, part, _class_choice(generator, "from class"), _class_choice(generator, "to class")]
            _connect(_changes(blocks, settings), partial(between, generator), settings, image)
        if generator.latent_blocks:
            with gr.Tab("Styles"):
                _styles(generator, blocks)
        with gr.Tab("Directions"):
            _directions(generator, blocks)
        with gr.Tab("Nearest training pictures"):
            _nearest(search)
    return blocks


def _samples(generator: "PretrainedGenerator", page: Any) -> None:
    """A grid of images, and a button for those that come next."""
    import gradio as gr

    image, controls = _beside("grid")
    with controls:
        seed = _seed("first seed", 0, "Of the first image; row by row, each has the next seed.", name="seed")
        count = _slider(1, 64, 16, step=1, label="images", elem_id="count")
        truncation = _slider(0.1, NO_TRUNCATION, NO_TRUNCATION, label=f"truncation ({NO_TRUNCATION:g}: none)")
        settings = [seed, count, truncation, _class_choice(generator)]
        button = gr.Button("Next images", elem_id="next")
    _connect(_changes(page, settings), partial(samples, generator), settings, image)
    button.click(lambda first, number: (first or 0) + (number or 0), [seed, count], seed, api_visibility="private")


def _styles(generator: "PretrainedGenerator", page: Any) -> None:
    """Two seeds, and a slider for the block at which the details of the second begin."""
    last = generator.latent_blocks
    image, controls = _beside("mixed")
    with controls:
        coarse = _seed("coarse seed", 1, "Its forms: of all layers before the block.")
        fine = _seed("fine seed", 2, "Its details: of the block and all layers after it.")
        block = _slider(1, last, (last + 1) // 2, step=1, label="first block of the fine seed", elem_id="block")
        settings = [coarse, fine, block, _class_choice(generator)]
    _connect(_changes(page, settings), partial(mixed, generator), settings, image)


def _directions(generator: "PretrainedGenerator", page: Any) -> None:
    """A slider for each direction beside the image, or why there are none."""
    try:
        count = len(generator.directions(min(DIRECTIONS, generator.z_dim)))
    except ValueError as error:
        _text(str(error))
        return
    image, controls = _beside("moved")
    with controls:
        about = "The sliders move its latent, in standard deviations. Direction 1 changes most."
        settings = [_seed("seed", 0, about), _class_choice(generator)]
        names = [f"direction {i}" for i in range(1, count + 1)]
        settings += [_slider(-3, 3, 0, step=0.1, label=name, elem_id=name.replace(" ", "")) for name in names]
    _connect(_changes(page, settings), partial(moved, generator), settings, image)


def _nearest(search: "Callable[[int], Image.Image] | str") -> None:
    """The search, or why there is none."""
    import gradio as gr

    if isinstance(search, str):
        _text(search)
        return
    query = _seed("seed", 0, "Its image is the first of the row, the nearest training pictures are beside it.")
    button = gr.Button("Search", variant="primary")
    _connect((button.click, query.submit), search, [query], _image("nearest"))


def _changes(page: Any, settings: list[Any]) -> list[Any]:
    """The events after which an image is made anew: the page is loaded, or a setting changes."""
    return [page.load, *(control.change for control in settings)]


def _connect(events: Iterable[Any], make: "Callable[..., Image.Image]", controls: list[Any], image: Any) -> None:
    """After each of the events, show the picture that is made of the controls' values, one picture at a time.

    A number that is empty, until its next digit is typed, leaves the picture as it is.
    """
    import gradio as gr

    def shown(*values: Any) -> Any:
        seeds = [value for control, value in zip(controls, values, strict=True) if isinstance(control, gr.Number)]
        if None in values:
            return gr.skip()
        if not all(0 <= seed <= LAST_SEED for seed in seeds):
            raise gr.Error(f"A seed is a whole number from 0 to {LAST_SEED}.", print_exception=False)
        return enlarged(make(*values))

    for event in events:
        event(shown, controls, image, api_visibility="private", concurrency_id="generator")


def _beside(name: str) -> tuple[Any, Any]:
    """An image, and the column beside it for controls; in a narrow window it is below the image."""
    import gradio as gr

    with gr.Row():
        with gr.Column():
            image = _image(name)
        column = gr.Column()
    return image, column


def _seed(label: str, value: int, about: str | None = None, name: str | None = None) -> Any:
    import gradio as gr

    return gr.Number(value, label=label, info=about, precision=0, elem_id=name)


def _slider(least: float, most: float, value: float, *, label: str, **settings: Any) -> Any:
    """A slider. Beside it a number can be typed; one that is out of range is told on the page."""
    import gradio as gr

    slider: Any = gr.Slider(least, most, value, label=label, **settings)
    theirs = slider.preprocess

    def checked(typed: float | None) -> Any:
        if typed is not None and not least <= typed <= most:  # Gradio would print a traceback, too
            raise gr.Error(f"{label}: choose a number from {least:g} to {most:g}.", print_exception=False)
        return None if typed is None else theirs(typed)

    slider.preprocess = checked
    return slider


def _class_choice(generator: "PretrainedGenerator", label: str = "class") -> Any:
    import gradio as gr

    names = [("by seed", BY_SEED), *((name, i) for i, name in enumerate(generator.classes))]
    return gr.Dropdown(names, value=BY_SEED, label=label, visible=generator.num_classes > 0)


def _text(words: str) -> Any:
    """Plain text for words that may come from a file; as Markdown, they could fetch an image from elsewhere."""
    import gradio as gr

    return gr.Textbox(words, show_label=False, interactive=False, container=False, lines=1, max_lines=20)


def _image(name: str) -> Any:
    import gradio as gr

    return gr.Image(show_label=False, elem_id=name, format="png", buttons=["download", "fullscreen"])
