"""Networks, one architecture a file. They know nothing of Lightning or Hydra."""
