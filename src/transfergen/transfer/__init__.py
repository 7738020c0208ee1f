"""How a pretrained network takes part in training: what trains, when."""
