"""Omniglot: the loader, and the images that it reads."""
