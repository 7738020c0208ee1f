"""Takes out of an executed notebook what differs from machine to machine: `make notebook-outputs`.

    python docs/clean_notebook.py docs/quickstart.ipynb

Pictures and printed lines stay. Times, progress, colours, paths of this machine and what went to stderr go.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NOISE = re.compile(r"\x1b\[\d+m|^epoch \d+, .* images/s\n|^\[\d{4}-\d\d-\d\d .*\n", re.MULTILINE)
"""Colours, the lines of progress, and those of the log, which begin with the time."""


def clean(notebook: dict[str, Any]) -> None:
    """Clean a notebook, as its JSON has it, in place."""
    notebook["metadata"]["language_info"] = {"name": "python"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["metadata"] = {}
            shown = [output for output in cell["outputs"] if "data" in output]
            for output in shown:
                output["data"].pop("image/jpeg", None)  # the PNG once more
            printed = "".join(part for o in cell["outputs"] if o.get("name") == "stdout" for part in o["text"])
            lines = NOISE.sub("", printed).replace(f"{ROOT}/", "").splitlines(keepends=True)
            stream = {"name": "stdout", "output_type": "stream", "text": lines}
            cell["outputs"] = [stream, *shown] if lines else shown


if __name__ == "__main__":
    path = Path(sys.argv[1])
    notebook = json.loads(path.read_text())
    clean(notebook)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")
