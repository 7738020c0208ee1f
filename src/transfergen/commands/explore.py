"""`transfergen explore`: a page on this machine to look at a trained generator's images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from transfergen.commands import cli

if TYPE_CHECKING:
    from PIL import Image

    from transfergen.sampling.pretrained import PretrainedGenerator

LARGE = 480
"""Pixels of height on the page, about."""
NEAREST = 5


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command on these arguments, by default those of the process."""
    cli.run("explore", _task, arguments)


def _task(config: DictConfig) -> None:
    if config.run is None:
        raise ValueError("run=RUN_DIR is missing: the folder of a training run, or a model of the hub")
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ValueError("explore needs a package more: pip install 'transfergen[explore]'") from error
    from transfergen.devices import choose_device
    from transfergen.sampling.pretrained import PretrainedGenerator

    run = Path(str(config.run)).expanduser()
    generator = PretrainedGenerator.from_pretrained(run if run.exists() else str(config.run)).to(
        choose_device(config.device)
    )
    try:
        search: Callable[[int], Image.Image] | str = training_pictures(generator, run, config.references)
    except (ValueError, OSError) as error:
        search = f"The training pictures cannot be read: {error}"
    print(f"http://127.0.0.1:{config.port} (Ctrl-C ends it)", flush=True)
    page(generator, search).launch(
        server_name="127.0.0.1", server_port=config.port, share=False, inbrowser=config.browser, quiet=True
    )


def samples(
    generator: "PretrainedGenerator", seed: int, count: int, truncation: float, label: int | None
) -> "Image.Image":
    """A grid of `count` images, of seeds from `seed` on. `truncation` 2 cuts off nothing."""
    classes = [] if label is None else [label]
    return generator.grid(
        range(seed, seed + count), truncation=None if truncation >= 2 else truncation, classes=classes
    )


def between(generator: "PretrainedGenerator", first: int, second: int, part: float, label: int | None) -> "Image.Image":
    """The image at this part, from 0 to 1, of the way from one seed to another."""
    from transfergen.images import to_pil

    frames = generator.interpolate([first, second], frames=20, label=label or 0)
    return to_pil(frames[round(part * 20)])


def enlarged(picture: "Image.Image") -> "Image.Image":
    """A small picture at a multiple of its size, so that its pixels are seen as they are."""
    times = max(1, LARGE // picture.height)
    return picture.resize((picture.width * times, picture.height * times), 0)


def training_pictures(generator: "PretrainedGenerator", run: Path, references: int) -> "Callable[[int], Image.Image]":
    """A function from a seed to its image beside the training pictures that are nearest to it, by 16x16 pixels.

    Raises:
        ValueError: the run's pictures cannot be read.
    """
    import torch
    from omegaconf import OmegaConf

    from transfergen.config import instantiate
    from transfergen.evaluation.extractors import PixelFeatures
    from transfergen.evaluation.neighbours import nearest
    from transfergen.images import to_float, to_grid, to_uint8
    from transfergen.runs import artefacts

    path = run / artefacts.CONFIG
    if not path.is_file():
        raise ValueError(f"run={run}: no {artefacts.CONFIG} in it")
    data = instantiate(OmegaConf.load(path).data)
    data.prepare_data()
    data.setup()
    batch = data.train_set.sample_images(references)
    extractor = PixelFeatures()
    real = torch.cat([extractor(to_float(part, generator.resolution)) for part in torch.split(batch.pixels, 256)])

    def search(seed: int) -> "Image.Image":
        pixels = generator.pixels([seed])
        _, found = nearest(extractor(to_float(pixels)), real, k=NEAREST)
        beside = to_uint8(to_float(batch.pixels[found[0]], generator.resolution))
        return to_grid(torch.cat([pixels, beside]), columns=1 + NEAREST)

    return search


def page(generator: "PretrainedGenerator", search: "Callable[[int], Image.Image] | str") -> Any:
    """Gradio's page.

    Args:
        generator: of which images are.
        search: see `training_pictures`; or why there is none.
    """
    import gradio as gr

    def label() -> Any:
        names = [(str(i), i) for i in range(generator.num_classes)]
        shown = bool(generator.num_classes)
        return gr.Dropdown(names, value=None, label="class", visible=shown, elem_id="label")

    def image(name: str) -> Any:
        return gr.Image(show_label=False, elem_id=name, format="png", buttons=["download", "fullscreen"])

    with gr.Blocks(title="transfergen", analytics_enabled=False) as blocks:
        seen = generator.about.get("images_seen")
        about = f"{generator.resolution} px" + (f", trained on {seen:,} images" if seen else "")
        gr.Markdown(f"# transfergen\n{type(generator.network).__name__}, {about}")
        with gr.Tab("Samples"):
            seed = gr.Number(0, label="first seed", precision=0, elem_id="seed")
            count = gr.Slider(1, 64, 16, step=1, label="images")
            truncation = gr.Slider(0.1, 2, 2, label="truncation (2: none)")
            wanted = label()
            button = gr.Button("Show", variant="primary", elem_id="show")
            grid = image("grid")
            given: list[Any] = [seed, count, truncation, wanted]
            show = lambda *values: enlarged(samples(generator, *values))  # noqa: E731
            button.click(show, given, grid, api_visibility="private")
            blocks.load(show, given, grid, api_visibility="private")
        with gr.Tab("Between two"):
            ends = [gr.Number(value, label=f"{side} seed", precision=0) for value, side in ((1, "from"), (2, "to"))]
            part = gr.Slider(0, 1, 0.5, step=0.05, label="part of the way", elem_id="part")
            other = label()
            middle = image("between")
            for control in (*ends, part, other):
                control.change(
                    lambda *values: enlarged(between(generator, *values)),
                    [*ends, part, other],
                    middle,
                    api_visibility="private",
                )
        with gr.Tab("Nearest training pictures"):
            if isinstance(search, str):
                gr.Markdown(search)
            else:
                query = gr.Number(0, label="seed", precision=0)
                button = gr.Button("Search", variant="primary")
                beside = image("nearest")
                find = lambda seed: enlarged(search(seed))  # noqa: E731
                button.click(find, query, beside, api_visibility="private")
    return blocks
