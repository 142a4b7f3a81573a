"""A model at a glance: its layers or arrays, their shapes, and how many parameters each has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aidotnet_py.markup import table
from aidotnet_py.nn import Layer, Residual, Sequential
from aidotnet_py.nn.layer import Shape, shape_of_examples

__all__ = ["ModelSummary", "SummaryRow", "array_rows", "layer_rows"]

# Longest representation of a layer in a row.
_LONGEST = 60


@dataclass(frozen=True)
class SummaryRow:
    """A layer or an array of a model.

    Attributes
    ----------
    name : str
        As in the names of parameters, such as ``0_conv2d``.
    layer : str
        The layer and its settings; empty for an array.
    shape : str
        The shape of the layer's outputs, n being the number of examples; of an array, its own.
    parameters : int
        How many parameters it has.
    """

    name: str
    layer: str
    shape: str
    parameters: int


@dataclass(frozen=True, repr=False)
class ModelSummary:
    """What ``summary`` of a model returns; it prints as a table, and shows as one in a notebook.

    Attributes
    ----------
    title : str
        The model's name.
    rows : tuple of SummaryRow
        In the order of the parameter vector.
    dtype : str
        The dtype of the parameters.
    """

    title: str
    rows: tuple[SummaryRow, ...]
    dtype: str

    @property
    def parameters(self) -> int:
        """How many parameters the model has."""
        return sum(row.parameters for row in self.rows)

    @property
    def nbytes(self) -> int:
        """Bytes of the parameters."""
        return self.parameters * np.dtype(self.dtype).itemsize

    def _cells(self) -> tuple[list[str], list[list[str]], str]:
        """Return header, rows and last line, without a column that is empty throughout."""
        has_layers = any(row.layer for row in self.rows)
        header = ["name", *(["layer"] if has_layers else []), "output" if has_layers else "shape", "parameters"]
        cells = [
            [row.name, *([row.layer] if has_layers else []), row.shape, f"{row.parameters:,}"] for row in self.rows
        ]
        return header, cells, f"{self.parameters:,} parameters, {self.nbytes:,} bytes in {self.dtype}"

    def __repr__(self) -> str:
        header, cells, total = self._cells()
        widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
        lines = [
            "  ".join([*(cell.ljust(n) for cell, n in zip(row[:-1], widths, strict=False)), row[-1].rjust(widths[-1])])
            for row in [header, *cells]
        ]
        return "\n".join([self.title, *lines, total])

    def _repr_html_(self) -> str:
        header, cells, total = self._cells()
        return table(self.title, header, cells, total)


def array_rows(shapes: Mapping[str, Shape]) -> tuple[SummaryRow, ...]:
    """Return a row for each array of a model that is one function."""
    return tuple(SummaryRow(name, "", str(shape), math.prod(shape)) for name, shape in shapes.items())


def layer_rows(network: Layer, shape: Shape) -> tuple[SummaryRow, ...]:
    """Return a row for each layer of a network for inputs of this shape; what contains layers has none of its own."""
    rows: list[SummaryRow] = []
    _add_rows(rows, network, "", shape)
    return tuple(rows)


def _add_rows(rows: list[SummaryRow], layer: Layer, name: str, shape: Shape) -> Shape:
    """Add the rows of a layer, and return the shape of its outputs."""
    if isinstance(layer, Sequential):
        for inner, part in layer.layers.items():
            shape = _add_rows(rows, part, f"{name}{inner}.", shape)
        return shape
    if isinstance(layer, Residual):
        output = _add_rows(rows, layer.body, f"{name}body.", shape)
        if layer.shortcut is not None:
            _add_rows(rows, layer.shortcut, f"{name}shortcut.", shape)
        return output
    # Initial values are drawn to learn their shapes, and dropped.
    parameters, output = layer.initialize(np.random.default_rng(0), shape)
    text = repr(layer)
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    count = sum(value.size for value in parameters.values())
    rows.append(SummaryRow(name.removesuffix(".") or type(layer).__name__, text, shape_of_examples(output), count))
    return output
