"""Pictures in, batches of uint8 pixels out. A source is a function `(path, split) -> Pictures`."""
