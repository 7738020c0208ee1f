"""`transfergen explore`: a page on this machine to look at a trained generator's images."""

import signal
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from transfergen.commands import cli
from transfergen.errors import SignalError
from transfergen.runs import artefacts

if TYPE_CHECKING:
    from PIL import Image

    from transfergen.sampling.pretrained import PretrainedGenerator

SHOWN_HEIGHT = 480
"""Pixels that an image on the page is about as high as."""
NEAREST = 5
"""Training pictures shown beside an image."""
DIRECTIONS = 6
"""Directions in the latent space that have a slider."""
NO_TRUNCATION = 2.0
"""Position of the slider at which latents are not truncated."""
BY_SEED = -1
"""Choice of class that gives each seed the class it has among samples."""


def explore(config: DictConfig) -> None:
    """Serve the page on 127.0.0.1 until it is interrupted.

    Raises:
        ValueError: Gradio is not installed, or the generator cannot be loaded.
    """
    if config.run is None:
        raise ValueError(cli.NO_RUN)
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ValueError("explore needs one more package: pip install 'transfergen[explore]'") from error
    from transfergen.devices import choose_device
    from transfergen.runs.generator_files import choose_generator
    from transfergen.sampling.pretrained import PretrainedGenerator

    source = choose_generator(str(config.run), config.checkpoint)
    generator = PretrainedGenerator.from_pretrained(source).to(choose_device(config.device))
    try:
        run_dir, data = Path(str(config.run)).expanduser(), config.data
        search: Callable[[int], Image.Image] | str = training_pictures(generator, run_dir, data, config.references)
    except (ValueError, OSError) as error:
        search = f"The training pictures cannot be read: {error}"
    print(f"http://127.0.0.1:{config.port} (Ctrl-C ends it)", flush=True)
    try:
        page(generator, search).launch(
            server_name="127.0.0.1", server_port=config.port, share=False, inbrowser=config.browser, quiet=True
        )
    except SignalError as error:
        if error.number != signal.SIGINT:
            raise


main = partial(cli.run, "explore", explore)


def samples(generator: "PretrainedGenerator", seed: int, count: int, truncation: float, label: int) -> "Image.Image":
    """A grid of `count` images, of seeds from `seed` on, and of class `label` or `BY_SEED`."""
    cut = truncation if truncation < NO_TRUNCATION else None
    return generator.grid(range(seed, seed + count), truncation=cut, classes=_classes(label))


def between(
    generator: "PretrainedGenerator", first: int, second: int, part: float, label: int, other: int
) -> "Image.Image":
    """The image at a fraction `part`, in [0, 1], of the way from one seed and class, or `BY_SEED`, to others."""
    from transfergen.images import to_pil

    ends = ((first, label), (second, other))
    classes = [seed % generator.num_classes if y == BY_SEED else y for seed, y in ends] if generator.num_classes else []
    return to_pil(generator.interpolate([first, second], frames=[part], classes=classes)[0])


def mixed(generator: "PretrainedGenerator", coarse: int, fine: int, block: int, label: int) -> "Image.Image":
    """The image of one seed with the details of another, which begin at a block; of class `label`, or `BY_SEED`."""
    from transfergen.images import to_pil

    return to_pil(generator.mix_styles([coarse], [fine], block=block, classes=_classes(label))[0, 0])


def moved(generator: "PretrainedGenerator", seed: int, label: int, *steps: float) -> "Image.Image":
    """The image of a seed's latent that is moved along each direction, by so many standard deviations."""
    import torch

    from transfergen.images import to_pil

    offset = torch.tensor([steps], dtype=torch.float) @ generator.directions(len(steps))
    return to_pil(generator.vary(seed, offset, classes=_classes(label))[0])


def _classes(label: int) -> list[int]:
    return [] if label == BY_SEED else [label]


def enlarged(picture: "Image.Image") -> "Image.Image":
    """A small picture at a whole multiple of its size, so that its pixels stay sharp."""
    times = max(1, SHOWN_HEIGHT // picture.height)
    return picture.resize((picture.width * times, picture.height * times), 0)


def training_pictures(
    generator: "PretrainedGenerator", run_dir: Path, overrides: DictConfig, references: int
) -> "Callable[[int], Image.Image]":
    """A function from a seed to its image, with the nearest training pictures, by 16x16 pixels, to its right.

    Args:
        generator: that of the run.
        run_dir: its config says where the training pictures are.
        overrides: where they are, if they have moved.
        references: training pictures that are searched, at most.

    Raises:
        ValueError: the pictures cannot be read.
    """
    if not (run_dir / artefacts.CONFIG).is_file():
        raise ValueError("this generator comes without its training; give run=RUN_DIR, a folder that a training left")
    import torch

    from transfergen.evaluation.compare_run import read_data
    from transfergen.evaluation.extractors import PixelFeatures
    from transfergen.evaluation.neighbours import nearest
    from transfergen.images import to_float, to_grid, to_uint8

    _, data = read_data(run_dir, overrides)
    batch = data.train_set.sample_images(references)
    extractor = PixelFeatures()
    real = torch.cat([extractor(to_float(part, generator.image_shape.size)) for part in torch.split(batch.pixels, 256)])

    def search(seed: int) -> "Image.Image":
        pixels = generator.pixels([seed])
        _, found = nearest(extractor(to_float(pixels)), real, k=NEAREST)
        beside = to_uint8(to_float(batch.pixels[found[0]], generator.image_shape.size))
        return to_grid(torch.cat([pixels, beside]), columns=1 + NEAREST)

    return search


def page(generator: "PretrainedGenerator", search: "Callable[[int], Image.Image] | str") -> Any:
    """Gradio's page, with a tab for each kind of image.

    Args:
        generator: makes the images.
        search: see `training_pictures`; or a message that says why there is none.
    """
    import gradio as gr

    with gr.Blocks(title="transfergen", analytics_enabled=False) as blocks:
        name = type(generator.network).__name__
        gr.Markdown("# transfergen")
        _text(f"{name}, {generator.image_shape}, {generator.origin}")
        with gr.Tab("Samples"):
            seed = gr.Number(0, label="first seed", precision=0, elem_id="seed")
            count = gr.Slider(1, 64, 16, step=1, label="images")
            truncation = gr.Slider(0.1, NO_TRUNCATION, NO_TRUNCATION, label=f"truncation ({NO_TRUNCATION:g}: none)")
            settings = [seed, count, truncation, _class_choice(generator)]
            button = gr.Button("Show", variant="primary", elem_id="show")
            grid = _image("grid")
            _connect((button.click, blocks.load), partial(samples, generator), settings, grid)
        with gr.Tab("Between two"):
            ends = [gr.Number(value, label=f"{side} seed", precision=0) for value, side in ((1, "from"), (2, "to"))]
            part = gr.Slider(0, 1, 0.5, step=0.05, label="part of the way", elem_id="part")
            settings = [*ends, part, _class_choice(generator, "from class"), _class_choice(generator, "to class")]
            middle = _image("between")
            _connect(_changes(blocks, settings), partial(between, generator), settings, middle)
        if generator.latent_blocks:
            with gr.Tab("Styles"):
                _styles(generator, blocks)
        with gr.Tab("Directions"):
            _directions(generator, blocks)
        with gr.Tab("Nearest training pictures"):
            if isinstance(search, str):
                _text(search)
            else:
                query = gr.Number(0, label="seed", precision=0)
                button = gr.Button("Search", variant="primary")
                beside = _image("nearest")
                _connect((button.click,), search, query, beside)
    return blocks


def _styles(generator: "PretrainedGenerator", page: Any) -> None:
    """Two seeds, and a slider for the block at which the details of the second begin."""
    import gradio as gr

    last = generator.latent_blocks
    seeds = [gr.Number(value, label=f"{side} seed", precision=0) for value, side in ((1, "coarse"), (2, "fine"))]
    block = gr.Slider(1, last, (last + 1) // 2, step=1, label="first block of the fine seed", elem_id="block")
    settings = [*seeds, block, _class_choice(generator)]
    _connect(_changes(page, settings), partial(mixed, generator), settings, _image("mixed"))


def _directions(generator: "PretrainedGenerator", page: Any) -> None:
    """A slider for each direction beside the image, or why there are none."""
    import gradio as gr

    try:
        count = len(generator.directions(min(DIRECTIONS, generator.z_dim)))
    except ValueError as error:
        _text(str(error))
        return
    with gr.Row():
        with gr.Column():
            settings = [gr.Number(0, label="seed", precision=0), _class_choice(generator)]
            names = [f"direction {i}" for i in range(1, count + 1)]
            settings += [gr.Slider(-3, 3, 0, step=0.1, label=name, elem_id=name.replace(" ", "")) for name in names]
        with gr.Column():
            image = _image("moved")
    _connect(_changes(page, settings), partial(moved, generator), settings, image)


def _changes(page: Any, settings: list[Any]) -> list[Any]:
    """The events after which an image is made anew: the page is loaded, or a setting changes."""
    return [page.load, *(control.change for control in settings)]


def _connect(events: Iterable[Any], make: "Callable[..., Image.Image]", inputs: Any, image: Any) -> None:
    """After each of the events, show the picture that is made of the inputs."""
    for event in events:
        event(lambda *values: enlarged(make(*values)), inputs, image, api_visibility="private")


def _class_choice(generator: "PretrainedGenerator", label: str = "class") -> Any:
    import gradio as gr

    names = [("by seed", BY_SEED), *((str(i), i) for i in range(generator.num_classes))]
    return gr.Dropdown(names, value=BY_SEED, label=label, visible=generator.num_classes > 0)


def _text(words: str) -> Any:
    """Plain text for words that may come from a file; as Markdown, they could fetch an image from elsewhere."""
    import gradio as gr

    return gr.Textbox(words, show_label=False, interactive=False, container=False, lines=1, max_lines=20)


def _image(name: str) -> Any:
    import gradio as gr

    return gr.Image(show_label=False, elem_id=name, format="png", buttons=["download", "fullscreen"])
