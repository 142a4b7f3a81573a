"""Models for the algorithms to train, from plain functions to neural networks, and their interfaces."""

from aidotnet_py.models.function_model import FunctionModel
from aidotnet_py.models.interfaces import (
    ICloneable,
    IDifferentiableModel,
    IFullModel,
    IGradientComputable,
    IModel,
    IModelSerializer,
    INormalizedModel,
    IParameterizable,
    ISecondOrderGradientComputable,
)
from aidotnet_py.models.metadata import ModelMetadata
from aidotnet_py.models.neural_network_model import NeuralNetworkModel
from aidotnet_py.models.summary import ModelSummary, SummaryRow

__all__ = [
    "FunctionModel",
    "ICloneable",
    "IDifferentiableModel",
    "IFullModel",
    "IGradientComputable",
    "IModel",
    "IModelSerializer",
    "INormalizedModel",
    "IParameterizable",
    "ISecondOrderGradientComputable",
    "ModelMetadata",
    "ModelSummary",
    "NeuralNetworkModel",
    "SummaryRow",
]
