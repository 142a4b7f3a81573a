"""Models: what the algorithms train, from plain functions to neural networks, and what they must offer."""

from aidotnet_py.models.function_model import FunctionModel
from aidotnet_py.models.interfaces import (
    IDifferentiableModel,
    IFullModel,
    IGradientComputable,
    IModel,
    IModelSerializer,
    INormalizedModel,
    IParameterizable,
)
from aidotnet_py.models.metadata import ModelMetadata
from aidotnet_py.models.neural_network_model import NeuralNetworkModel

__all__ = [
    "FunctionModel",
    "IDifferentiableModel",
    "IFullModel",
    "IGradientComputable",
    "IModel",
    "IModelSerializer",
    "INormalizedModel",
    "IParameterizable",
    "ModelMetadata",
    "NeuralNetworkModel",
]
