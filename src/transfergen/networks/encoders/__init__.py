"""Networks from images to the distributions of their latents."""
