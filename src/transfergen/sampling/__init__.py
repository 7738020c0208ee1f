"""A trained generator in use: loading, inverting, exporting, writing images."""
