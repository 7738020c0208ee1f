"""The container's files fit the repository. Docker itself is not needed."""

import re
import subprocess

from runs import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_all_that_is_copied_is_there_and_not_ignored():
    sources = [source for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE) for source in line.split()[:-1]]
    assert all((ROOT / source).exists() for source in sources)
    assert sorted(f"!{source}" for source in sources) == (ROOT / ".dockerignore").read_text().split()[1:-1]


def test_an_image_for_the_cpu_leaves_out_what_torch_needs_for_gpus_alone():
    program = re.search(r"awk '(.*?)'", DOCKERFILE)[1]
    lock = ROOT / "requirements.lock"
    kept = subprocess.run(["awk", program, lock], capture_output=True, text=True, check=True).stdout

    def blocks(text):
        return {block.partition("==")[0]: block for block in re.split(r"\n(?=\w)", text.strip())}

    before, after = blocks(lock.read_text()), blocks(kept)
    assert after.items() <= before.items()
    assert {"torch", "torchvision", "lightning"} <= after.keys()
    assert {name.split("-")[0] for name in before.keys() - after.keys()} == {"nvidia", "cuda", "triton"}
