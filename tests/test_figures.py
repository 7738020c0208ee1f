"""Measured figures on the pages are those that the benchmarks' results hold."""

import json
import re

import pytest
from runs import ROOT

RESULTS = ROOT / "benchmarks" / "results"
ALL_MEASURES = (
    *("images", "kernel_distance", "frechet_distance", "precision", "recall"),
    *("pixel_kernel_distance", "pixel_recall", "high_frequency_ratio"),
)
TABLES = {
    ("docs/vgg19.md", "| 64x64 | real images"): ("", *ALL_MEASURES),
    ("docs/vgg19.md", "| 64x64, longer | real images"): ("", *ALL_MEASURES),
    ("docs/vgg19.md", "| 64x64, 1,000 images | real images"): ("", *ALL_MEASURES),
    ("docs/vgg19.md", "| real images"): ALL_MEASURES,
    ("docs/vgg19.md", "| images of a longer run"): ALL_MEASURES,
    ("docs/time-to-quality.md", "| training images | machine"): (
        *("training_images", "", "", "seed", "kernel_distance", "minutes", "images"),
        *("frechet_distance", "precision", "recall"),
    ),
}
"""For each table, by its page and first words: the measure in each column; "" for a column that is not compared."""
CURVES = {
    ("docs/public-generators.md", "| pictures | | 1,008"): "public_generator",
    ("docs/public-generators.md", "| pictures | heads not told | 1,008"): "public_generator",
    ("docs/public-generators.md", "| pictures | `transfer.generator` | 1,008"): "public_generator",
    ("docs/transfer.md", "| | 1,008"): "fine_tuning",
}
"""Tables whose cells are `kernel distance (recall)` and whose titles are numbers of images, with their benchmark."""


MATCHED = {
    "discriminator=dcgan": {"32x32": r"dcgan_matched(_\de-4)?", "64x64": "vgg_disc_matched"},
    "model=vgg_disc": {"32x32": "vgg_disc", "64x64": "vgg_disc"},
    "experiment=cifar10": {"32x32": "cifar10"},
}
"""By what the columns of the README's table name: the variants of the benchmark at each resolution."""


def points(benchmark):
    """Every measurement of a benchmark: its figures by name, kernel distances times 1000."""
    for result in json.loads((RESULTS / f"{benchmark}.json").read_text()):
        of_run = {key: result[key] for key in ("training_images", "seed", "resolution", "model") if key in result}
        for values in zip(*result["points"].values(), strict=True):
            point = of_run | dict(zip(result["points"], values, strict=True))
            if "seconds" in point:
                point["minutes"] = point["seconds"] / 60
            yield {key: 1000 * value if "kernel" in key else value for key, value in point.items()}


def rows(page, start):
    """The rows of a table as lists of cells, the titles first. `start` is the beginning of its first line."""
    lines = (ROOT / page).read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(start))
    table = lines[first : lines.index("", first)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in (table[0], *table[2:])]


def says(text, value, name):
    """Whether a number on a page is this value, rounded. Numbers of images may be off by a hundredth."""
    digits = text.replace(",", "")
    slack = 0.01 * value if name == "images" else 0.5 * 10.0 ** -len(digits.partition(".")[2])
    return abs(float(digits) - value) <= slack + 1e-9


def first_number(cell):
    return re.search(r"[\d,]*\.?\d+", cell)[0]


@pytest.mark.parametrize(("page", "start"), TABLES)
def test_each_row_is_one_measurement(page, start):
    names, measured = TABLES[page, start], [*points("time_to_quality"), *points("snapshots")]
    for row in rows(page, start)[1:]:
        figures = {name: first_number(cell) for name, cell in zip(names, row, strict=True) if name}
        assert any(
            all(name in point and says(text, point[name], name) for name, text in figures.items()) for point in measured
        ), row


@pytest.mark.parametrize("page", ["README.md", "README.zh.md"])
def test_each_cell_of_the_readme_is_one_measurement_within_the_row_s_budget(page):
    titles, *lines = rows(page, "| pixels |" if page == "README.md" else "| 像素 |")
    for pixels, pictures, budget, *cells in lines:
        for title, cell in zip(titles[3:], cells, strict=True):
            of_column = MATCHED[re.search(r"`(.*)`", title)[1]]
            figures = re.findall(r"[\d.]+", cell)
            assert not cell or any(
                re.fullmatch(of_column[pixels] + r"( max_images=\S+)?", p["model"])
                and p["resolution"] == int(pixels.partition("x")[0])
                and says(pictures, p["training_images"], "training_images")
                and within(budget, p)
                and all(map(says, figures, (p["kernel_distance"], p["recall"]), ("kernel_distance", "recall")))
                for p in points("time_to_quality")
            ), (pixels, pictures, budget, title)


def within(budget, point):
    """Whether a measurement is of `10 minutes` at most, or of `10,000 images`."""
    count = first_number(budget)
    if "minutes" in budget or "分钟" in budget:
        return point["minutes"] < float(count) + 0.5
    return says(count, point["images"], "images")


@pytest.mark.parametrize(("page", "start"), CURVES)
def test_each_distance_with_its_recall_is_one_measurement(page, start):
    titles, *lines = rows(page, start)
    measured = list(points(CURVES[page, start]))
    for row in lines:
        pictures = {"training_images": first_number(row[0])} if titles[0] == "pictures" else {}
        for title, cell in zip(titles, row, strict=True):
            if title.replace(",", "").isdigit() and cell:
                distance, recall = re.fullmatch(r"([\d.]+) \(([\d.]+)\)", cell).groups()
                figures = {**pictures, "images": title, "kernel_distance": distance, "recall": recall}
                assert any(all(says(text, p[name], name) for name, text in figures.items()) for p in measured), row
