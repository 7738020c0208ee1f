"""Networks that other projects have published. `reading` is the way in, and each layout of files has a module."""
