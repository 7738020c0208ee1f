"""From the command to the first training step, in a fresh process with warm caches: the median of several runs.

python benchmarks/startup.py
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRAIN = Path(__file__).parents[1] / "train.py"


def seconds_to_first_step(overrides: list[str]) -> float:
    """Wall time until the first point of the curves is written, which is after the first step."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(TRAIN), *overrides, f"hydra.run.dir={folder}", "samples.every_images=1000000000"]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        curves = Path(folder) / "csv" / "version_0" / "metrics.csv"
        while not curves.exists():
            if process.poll() is not None:
                raise SystemExit(f"training ended before its first step: {process.communicate()[1].strip()}")
            time.sleep(0.02)
        seconds = time.perf_counter() - start
        process.kill()
        process.communicate()
        return seconds


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("overrides", nargs="*", default=["experiment=quickstart"])
    args = parser.parse_args()
    seconds_to_first_step(args.overrides)  # warms the caches
    times = [seconds_to_first_step(args.overrides) for _ in range(args.runs)]
    print(f"{' '.join(args.overrides)}: {statistics.median(times):.1f} s to the first step, median of {args.runs}")
    print(json.dumps({"seconds_to_first_step": round(statistics.median(times), 1)}))


if __name__ == "__main__":
    main()
