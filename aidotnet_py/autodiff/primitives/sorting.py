"""The order of elements along the last axis."""

# Rules are lambdas, whose parameters no annotation can reach; what they call is typed.
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

from typing import Any

import numpy as np

from aidotnet_py.autodiff.primitive import Primitive, no_flops
from aidotnet_py.autodiff.tracing.emission import emit
from aidotnet_py.autodiff.tracing.tracer import Tracer
from aidotnet_py.autodiff.types import ArrayType

__all__ = ["argsort"]

_argsort = Primitive(
    name="argsort",
    shape=lambda x: ArrayType(x.shape, np.dtype(np.int64)),
    run=lambda backend, out, x: backend.argsort(x, out=out),
    jvp=None,
    transpose=None,
    batch=lambda inputs, batched, size: argsort(inputs[0]),
    flops=no_flops,
)


def argsort(x: Any) -> Tracer:
    """Return the indices that sort the last axis upwards; equal elements keep their order, NaN comes last."""
    return emit(_argsort, x)
