"""Train a generator: `python train.py --help`."""

from transfergen.__main__ import main

if __name__ == "__main__":
    main("train")
