"""How close generated images are to real ones: pure functions on features."""
