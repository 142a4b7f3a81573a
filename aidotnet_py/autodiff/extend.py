"""The face of autodiff for other rooms and for extensions: primitives of one's own, programs and their execution.

Users find what they need in `aidotnet_py.autodiff`. Everything else in this folder may change without notice.
"""

from aidotnet_py.autodiff.execution import (
    Call,
    Copy,
    Executable,
    Idle,
    Queue,
    Repeat,
    Run,
    Schedule,
    Step,
    copying,
    run_to_compile_at,
)
from aidotnet_py.autodiff.functions.beyond_numpy import with_value
from aidotnet_py.autodiff.primitive import Primitive, no_flops, one_flop_per_element
from aidotnet_py.autodiff.primitives.broadcasting import batch_of
from aidotnet_py.autodiff.primitives.concatenation import concatenate
from aidotnet_py.autodiff.primitives.shape import reshape, slice_
from aidotnet_py.autodiff.program import Atom, Equation, Literal, Program, Variable
from aidotnet_py.autodiff.traced_program import TracedProgram, trace_once, trace_pure
from aidotnet_py.autodiff.tracing.captured_state import CapturedState
from aidotnet_py.autodiff.tracing.emission import as_traced, emit, inline
from aidotnet_py.autodiff.tracing.host_data import host_array
from aidotnet_py.autodiff.tracing.purity import require_alike, same_value
from aidotnet_py.autodiff.tracing.recording import Trace, active_trace, new_trace
from aidotnet_py.autodiff.tracing.tracer import Tracer
from aidotnet_py.autodiff.tracing.value_types import is_array, type_of, types_of
from aidotnet_py.autodiff.transforms.batching import vmap_program
from aidotnet_py.autodiff.transforms.differentiation import grad_program, jvp_program, vjp_program
from aidotnet_py.autodiff.transforms.row_counts import is_mean_over_rows, treats_rows_alike
from aidotnet_py.autodiff.transforms.rows import has_independent_rows
from aidotnet_py.autodiff.transforms.simplification import simplify
from aidotnet_py.autodiff.transforms.splitting import Split, split
from aidotnet_py.autodiff.tree import Structure, flatten
from aidotnet_py.autodiff.types import ArrayType

__all__ = [
    # A primitive: its rules, and the operations to write them with.
    "ArrayType",
    "Primitive",
    "batch_of",
    "concatenate",
    "emit",
    "no_flops",
    "one_flop_per_element",
    "reshape",
    "slice_",
    "with_value",
    # Programs: tracing, transforms, what they consist of.
    "Atom",
    "Equation",
    "Literal",
    "Program",
    "Split",
    "Structure",
    "Trace",
    "TracedProgram",
    "Tracer",
    "Variable",
    "active_trace",
    "as_traced",
    "flatten",
    "grad_program",
    "inline",
    "is_array",
    "jvp_program",
    "new_trace",
    "simplify",
    "split",
    "trace_once",
    "trace_pure",
    "type_of",
    "types_of",
    "vjp_program",
    "has_independent_rows",
    "host_array",
    "is_mean_over_rows",
    "treats_rows_alike",
    "vmap_program",
    # Whether a function is pure, and unchanged since it was traced.
    "CapturedState",
    "require_alike",
    "same_value",
    # Execution.
    "Call",
    "Copy",
    "Executable",
    "Idle",
    "Queue",
    "Repeat",
    "Run",
    "Schedule",
    "Step",
    "copying",
    "run_to_compile_at",
]
