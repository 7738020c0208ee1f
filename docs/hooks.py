"""MkDocs hooks: pages from outside docs/, the notebook, the pages of the API reference, and formulas as MathML.

The site works from a folder, without a network: formulas need no script, and nothing comes from another host.
"""

import json
import posixpath
import re
from html import unescape
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "transfergen"
OUTSIDE = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")

LINK = re.compile(r"(\]\()([^)\s:#]+)([)#])")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
LETTERS = {  # browsers ignore these variants of letters, but know the letters of their own
    '<mi mathvariant="double-struck">E</mi>': "<mi>&#x1D53C;</mi>",
    '<mi mathvariant="script">N</mi>': "<mi>&#x1D4A9;</mi>",
    "<mi>&#x0007E;</mi>": "<mo>&#x223C;</mo>",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the repository's own pages, the notebook, and a page of the API reference for each room of the package."""
    files.append(File.generated(config, "quickstart.md", content=notebook_page(ROOT / "docs" / "quickstart.ipynb")))
    for name in OUTSIDE:
        files.append(_outside(name, config))
    for room in rooms():
        title, options = f"transfergen.{room}", "    options:\n      show_submodules: true\n"
        files.append(File.generated(config, f"reference/{room}.md", content=f"# {title}\n\n::: {title}\n{options}"))
    return files


def notebook_page(path: Path) -> str:
    """A notebook as Markdown: its words, its code, and what the code printed and showed."""
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code":
            language, source = ("bash", source[7:]) if source.startswith("%%bash\n") else ("python", source)
            source = f"```{language}\n{source}\n```"
        parts.append(source)
        for output in cell.get("outputs", ()):
            if png := "".join(output.get("data", {}).get("image/png", "")).replace("\n", ""):
                parts.append(f'<img alt="the images" src="data:image/png;base64,{png}">')
            elif text := "".join(output.get("text", "")):
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts)


def rooms() -> list[str]:
    """The packages of transfergen and its modules at the top, without those that begin with an underscore."""
    names = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} | {path.stem for path in PACKAGE.glob("*.py")}
    return sorted(name for name in names if not name.startswith("_"))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links that hold in the repository hold in the site, where docs/ is the root; add plots that they show."""
    inside = (ROOT / "docs" / page.file.src_uri).exists()
    folder = posixpath.dirname(posixpath.join("docs" * inside, page.file.src_uri))

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[2])).removeprefix("docs/")
        target = {"README.md": "index.md", "quickstart.ipynb": "quickstart.md"}.get(target, target)
        if target.endswith((".png", ".jpg")) and files.get_file_from_path(target) is None and (ROOT / target).exists():
            files.append(_outside(target, config))
        return link[1] + posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or ".") + link[3]

    return LINK.sub(moved, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn LaTeX into MathML, which browsers draw by themselves."""
    return FORMULA.sub(lambda found: _mathml(found[2], block=found[1] == "div"), html)


def _outside(name: str, config: MkDocsConfig) -> File:
    """A file that lies in the repository, but not in docs/."""
    return File.generated(config, name, abs_src_path=str(ROOT / name))


def _mathml(latex: str, *, block: bool) -> str:
    latex = re.sub(r"\\log(?= [^(])", r"\\log\\,", unescape(latex).strip())
    if block:  # what is under min and sup is drawn below them
        latex = re.sub(r"\\(min|max|sup)_", r"\\\1\\limits_", latex)
    mathml = convert(latex, display="block" if block else "inline")
    for variant, letter in LETTERS.items():
        mathml = mathml.replace(variant, letter)
    return mathml
