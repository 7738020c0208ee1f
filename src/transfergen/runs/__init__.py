"""The files of a run directory: their names, checkpoints, resuming, curves."""
