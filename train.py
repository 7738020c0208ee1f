"""Train a generator: `python train.py --help`."""

from transfergen.commands.train import main

if __name__ == "__main__":
    main()
