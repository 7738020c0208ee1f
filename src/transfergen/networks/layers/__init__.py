"""Layers and initialisations that several networks share."""
