"""Weights of PyTorch in and out, and networks out as ONNX graphs; neither library is needed to import this."""

from aidotnet_py.exchange.onnx_graph import export_onnx
from aidotnet_py.exchange.pytorch import (
    METAOPTNET_RESNET12,
    TORCHVISION_RESNET18,
    load_state_dict,
    save_state_dict,
    state_dict,
)

__all__ = [
    "METAOPTNET_RESNET12",
    "TORCHVISION_RESNET18",
    "export_onnx",
    "load_state_dict",
    "save_state_dict",
    "state_dict",
]
