"""Folders of images: the loader, the layouts that it reads, and the decoded images on disk."""
