"""A training: `fit.py` is the program, `adversarial_step.py` one batch of the game."""
