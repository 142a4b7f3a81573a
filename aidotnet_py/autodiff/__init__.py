"""Automatic differentiation of array functions: trace to a Program, transform it, replay it over planned buffers.

A new primitive goes into its family's file in `primitives`, a function made of primitives into
`functions.beyond_numpy`, NumPy's name for it into `functions.numpy_dispatch`.
"""

from aidotnet_py.autodiff.api import grad, hessian, hvp, jacobian, jvp, linearize, value_and_grad, vjp, vmap
from aidotnet_py.autodiff.functions.assignment import at
from aidotnet_py.autodiff.functions.beyond_numpy import (
    average_pool2d,
    batch_norm,
    conv2d,
    erf,
    layer_norm,
    log_softmax,
    logsumexp,
    max_pool2d,
    one_hot,
    relu,
    sigmoid,
    softmax,
    softplus,
    stop_gradient,
)
from aidotnet_py.autodiff.primitive import reserve_names
from aidotnet_py.autodiff.profiling import Profile, ProfileRow, profile
from aidotnet_py.autodiff.program import Program
from aidotnet_py.autodiff.traced_program import trace

__all__ = [
    "Profile",
    "ProfileRow",
    "Program",
    "at",
    "average_pool2d",
    "batch_norm",
    "conv2d",
    "erf",
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "layer_norm",
    "linearize",
    "log_softmax",
    "logsumexp",
    "max_pool2d",
    "one_hot",
    "profile",
    "relu",
    "sigmoid",
    "softmax",
    "softplus",
    "stop_gradient",
    "trace",
    "value_and_grad",
    "vjp",
    "vmap",
]

# All primitives of the engine are declared by now.
reserve_names()
