"""Omniglot: the loader, and its images."""
