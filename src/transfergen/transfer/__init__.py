"""Transfer: which pretrained weights a training starts from, which of them train, and what else is learnt from them."""
