"""A Program whose lengths and numbers depend on the batch size."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from aidotnet_py.autodiff.extend import ArrayType

__all__ = ["ROUNDING", "AnySizeEquation", "AnySizeProgram", "Length", "Number", "NumberOfSize", "SizeDependent"]

#: Numbers in a Program are rounded to its dtype, of float32 at most by 6e-8 of themselves.
ROUNDING = 1e-6


@dataclass(frozen=True)
class SizeDependent:
    """The length ``slope · n + offset`` at batch size n."""

    slope: int
    offset: int


@dataclass(frozen=True)
class NumberOfSize:
    """The number ``slope · n + offset`` at batch size n, or one divided by it, as in a mean over examples."""

    slope: float
    offset: float
    is_inverse: bool


Length: TypeAlias = int | SizeDependent
Number: TypeAlias = int | float | bool | SizeDependent | NumberOfSize


@dataclass(frozen=True)
class AnySizeEquation:
    """An equation whose numbers may depend on the batch size.

    Attributes
    ----------
    primitive : str
        The name of the primitive.
    inputs : tuple of int or (number, dtype)
        The places of variables among inputs, constants and outputs of equations, in that order; or numbers.
    parameters : dict
        Those of the equation; lengths in it may be `SizeDependent`.
    shape, dtype
        Of the output.
    """

    primitive: str
    inputs: tuple[int | tuple[Number, np.dtype[Any]], ...]
    shape: tuple[Length, ...]
    dtype: np.dtype[Any]
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class AnySizeProgram:
    """A function's equations at any batch size.

    Attributes
    ----------
    inputs : tuple of ArrayType
        Their types at some batch size.
    constants : tuple of numpy.ndarray
        Arrays that the function uses beside its arguments.
    equations : tuple of AnySizeEquation
        In the order of execution.
    output : int
        The place of the result.
    output_shape : tuple of Length
        Its shape.
    output_dtype : dtype
        Its dtype.
    refused : tuple of int
        Batch sizes that the function refuses, among those that were tried.
    """

    inputs: tuple[ArrayType, ...]
    constants: tuple[NDArray[Any], ...]
    equations: tuple[AnySizeEquation, ...]
    output: int
    output_shape: tuple[Length, ...]
    output_dtype: np.dtype[Any]
    refused: tuple[int, ...] = ()
