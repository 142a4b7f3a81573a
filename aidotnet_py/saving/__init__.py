"""Learners and models from files alone: `save` and `load`."""

from aidotnet_py.saving.files import load, save
from aidotnet_py.saving.rebuilding import Rebuilder

__all__ = ["Rebuilder", "load", "save"]
