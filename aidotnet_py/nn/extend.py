"""What layers of one's own need beside `Layer`: the parameters of inner layers, and noise in training."""

from aidotnet_py.nn.layer import initialized, parts, with_prefix
from aidotnet_py.nn.noise import noise_for

__all__ = ["initialized", "noise_for", "parts", "with_prefix"]
