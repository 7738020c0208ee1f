"""Features of images, and the distances, precision and recall that follow from them."""
