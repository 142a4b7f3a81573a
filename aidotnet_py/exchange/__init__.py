"""Weights of PyTorch in and out, and models out as ONNX graphs or modules of NumPy; neither library is needed here."""

from aidotnet_py.exchange.numpy_module import export_numpy
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
    "export_numpy",
    "export_onnx",
    "load_state_dict",
    "save_state_dict",
    "state_dict",
]
