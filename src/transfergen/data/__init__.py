"""Pictures in, batches of uint8 pixels out. A data source is a function `(path, split) -> Pictures`."""
