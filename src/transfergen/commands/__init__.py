"""The commands of `transfergen`: each takes a config, makes one call and prints the outcome."""
