"""Neural network layers as pure functions of parameters and input, channels last.

A new layer goes into the file of its family; every one is exported here.
"""

from aidotnet_py.nn.activations import LeakyReLU, ReLU, Sigmoid, Tanh
from aidotnet_py.nn.combinators import Residual, Sequential
from aidotnet_py.nn.convolution import AveragePool2D, Conv2D, Flatten, GlobalAveragePool2D, MaxPool2D
from aidotnet_py.nn.dense import Dense
from aidotnet_py.nn.dropout import Dropout
from aidotnet_py.nn.layer import Layer
from aidotnet_py.nn.networks import conv4, mlp, resnet12, resnet18
from aidotnet_py.nn.normalization import BatchNorm, GroupNorm, LayerNorm

__all__ = [
    "AveragePool2D",
    "BatchNorm",
    "Conv2D",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAveragePool2D",
    "GroupNorm",
    "Layer",
    "LayerNorm",
    "LeakyReLU",
    "MaxPool2D",
    "ReLU",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "conv4",
    "mlp",
    "resnet12",
    "resnet18",
]
