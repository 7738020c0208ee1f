"""Pretrained trunks: `backbone(images) -> list of feature maps`, with `channels` and `strides`."""
