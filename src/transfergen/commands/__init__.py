"""The commands of `transfergen`: each reads its config, makes one call and says what came out."""
