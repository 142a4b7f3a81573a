"""Elementwise primitives: arithmetic, functions, comparisons and selection, one derivative per line.

Operands of a primitive have one dtype and one shape, or are literals; the functions promote and broadcast them first.
"""

# Rules are lambdas, whose parameters no annotation can reach; what they call is typed.
# pyright: reportUnknownLambdaType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportUnknownVariableType=false

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from aidotnet_py.autodiff.primitive import Guarded, Primitive, no_flops
from aidotnet_py.autodiff.primitives.broadcasting import batch_of, broadcast_to
from aidotnet_py.autodiff.primitives.shape import full
from aidotnet_py.autodiff.program import Literal
from aidotnet_py.autodiff.tracing.emission import emit
from aidotnet_py.autodiff.tracing.tracer import Tracer
from aidotnet_py.autodiff.tracing.value_types import dtype_of_values, type_of
from aidotnet_py.autodiff.types import ArrayType
from aidotnet_py.backends import Array, Backend
from aidotnet_py.exceptions import ArgumentException

__all__ = [
    "absolute",
    "add",
    "arctan",
    "arctan2",
    "astype",
    "ceil",
    "common_dtype",
    "cos",
    "cosh",
    "divide",
    "equal",
    "erf",
    "exp",
    "expm1",
    "floats_of",
    "floor",
    "for_mean",
    "greater",
    "greater_equal",
    "is_beyond",
    "isfinite",
    "less",
    "less_equal",
    "log",
    "log1p",
    "logical_and",
    "logical_not",
    "logical_or",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "not_equal",
    "power",
    "promote",
    "relu",
    "root",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "softplus",
    "sqrt",
    "subtract",
    "tan",
    "tanh",
    "where",
    "with_value",
]

_BOOL = np.dtype(bool)
Rule = Callable[..., Any]
Function = Callable[..., Any]


def _is_plain(x: Any) -> bool:
    """Whether x is a Python number, which takes the dtype of the other operand."""
    return isinstance(x, (bool, int, float)) and not isinstance(x, np.generic)


def is_beyond(number: Any, x: Any) -> bool:
    """Return whether a Python integer is too large or too small for an array of integers."""
    if not isinstance(number, int) or isinstance(number, bool) or _is_plain(x):
        return False
    dtype = type_of(x).dtype
    return dtype.kind in "iu" and not np.iinfo(dtype).min <= number <= np.iinfo(dtype).max


def common_dtype(*operands: Any, least: DTypeLike | None = None) -> np.dtype[Any]:
    """Return the dtype of a result by NumPy's rules; integers become at least ``least``, or stay if it is None."""
    return _common_dtype(operands, _types(operands), least)


def _types(operands: Sequence[Any]) -> list[ArrayType | None]:
    """Return the types of operands, None for Python numbers."""
    return [None if _is_plain(x) else type_of(x) for x in operands]


def _common_dtype(operands: Sequence[Any], types: Sequence[ArrayType | None], least: DTypeLike | None) -> np.dtype[Any]:
    dtypes = {of.dtype for of in types if of is not None}
    if len(dtypes) == 1 and (dtype := dtypes.pop()).kind == "f":
        # The common case, and NumPy's rules take longer: numbers leave a floating dtype as it is.
        return dtype
    dtype = np.result_type(*[x if of is None else of.dtype for x, of in zip(operands, types, strict=True)])
    return dtype if least is None or dtype.kind not in "biu" else np.result_type(dtype, least)


def for_mean(x: Any) -> tuple[Any, np.dtype[Any]]:
    """Return x in the dtype that NumPy adds numbers up in for their mean, and the dtype of the mean."""
    dtype = type_of(x).dtype if type_of(x).is_floating else np.dtype(np.float64)
    return astype(x, np.result_type(dtype, np.float32)), dtype


def promote(*operands: Any, least: DTypeLike | None = None) -> list[Any]:
    """Convert operands to their common dtype and shape by NumPy's rules; numbers become literals."""
    # Each type is looked up once: a trace has thousands of operands.
    types = _types(operands)
    dtype = _common_dtype(operands, types, least)
    pairs = [(x, None if isinstance(x, np.generic) else of) for x, of in zip(operands, types, strict=True)]
    if all(of is None for _, of in pairs):
        # An equation needs an array to know where it runs.
        one = ArrayType((), dtype)
        pairs[0] = full(one, operands[0]), one
    shape = _common_shape([of.shape for _, of in pairs if of is not None])
    promoted: list[Any] = []
    for x, of in pairs:
        if of is None:
            promoted.append(Literal(dtype.type(x).item(), ArrayType((), dtype)))
        elif of.shape == shape and of.dtype == dtype:
            promoted.append(x)
        else:
            promoted.append(broadcast_to(astype(x, dtype), shape))
    return promoted


def _common_shape(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    distinct = {shape for shape in shapes if shape}
    if len(distinct) < 2:
        return distinct.pop() if distinct else ()
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ArgumentException(f"shapes must broadcast together, got {' and '.join(map(str, shapes))}") from None


def _shape(*types: ArrayType, name: str = "", dtype: np.dtype[Any] | None = None) -> ArrayType:
    if name in _NOT_OF_BOOLEANS and types[0].dtype == _BOOL:
        raise ArgumentException(f"{name} must have numbers as operands, got booleans; convert them with astype")
    # All operands but literals, of shape (), have one shape: the longest.
    shape = max((t.shape for t in types), key=len)
    return ArrayType(shape, dtype or types[-1].dtype)


def _batch(function: Rule, inputs: Sequence[Any], batched: Sequence[bool], size: int, **parameters: Any) -> Any:
    operands = [x if isinstance(x, Literal) else batch_of(x, b, size) for x, b in zip(inputs, batched, strict=True)]
    return function(*operands, **parameters)


def _jvp(rules: Sequence[Rule], tangents: Sequence[Any], *primals: Any, output: Any) -> Any:
    terms = [rule(t, *primals, output) for rule, t in zip(rules, tangents, strict=True) if t is not None]
    return terms[0] if len(terms) == 1 else terms[0] + terms[1]


def _declare(name: str, rules: Sequence[Rule] | None, transpose: Rule | None, dtype: np.dtype[Any] | None) -> Primitive:
    standard = _STANDARD_NAMES.get(name, name)

    def run(backend: Backend, out: Array, *operands: Array) -> None:
        backend.elementwise(standard)(*operands, out=out)

    primitive = Primitive(
        name=name,
        shape=partial(_shape, name=name, dtype=dtype),
        run=run,
        jvp=None if rules is None else partial(_jvp, rules),
        transpose=transpose,
        batch=lambda inputs, batched, size: _batch(partial(emit, primitive), inputs, batched, size),
        commutative=name in _COMMUTATIVE,
        in_place=dtype is None,
        loop=standard,
    )
    return primitive


_COMMUTATIVE = frozenset({"add", "equal", "logical_and", "logical_or", "multiply", "not_equal"})
_NOT_OF_BOOLEANS = frozenset({"negative", "relu", "sign", "subtract"})

# Functions whose names differ between NumPy and the array API standard.
_STANDARD_NAMES = {"absolute": "abs", "arctan": "atan", "arctan2": "atan2", "power": "pow"}


def _unary(
    name: str, rule: Rule | None, transpose: Rule | None = None, *, least: DTypeLike | None = np.float16
) -> Callable[[Any], Any]:
    primitive = _declare(name, None if rule is None else [rule], transpose, None)

    def function(x: Any) -> Tracer:
        return emit(primitive, *promote(x, least=least))

    function.__name__ = name
    return function


def _binary(
    name: str,
    *rules: Rule,
    transpose: Rule | None = None,
    least: DTypeLike | None = None,
    dtype: np.dtype[Any] | None = None,
) -> Callable[[Any, Any], Any]:
    primitive = _declare(name, rules or None, transpose, dtype)

    def function(x: Any, y: Any) -> Tracer:
        return emit(primitive, *promote(x, y, least=least))

    function.__name__ = name
    return function


def _comparison(name: str, compare: Callable[[int, int], bool]) -> Callable[[Any, Any], Any]:
    elementwise = _binary(name, dtype=_BOOL)

    def function(x: Any, y: Any) -> Any:
        # Every integer that the other operand can hold compares alike with a number beyond them, as in NumPy.
        if is_beyond(y, x):
            return full(ArrayType(type_of(x).shape, _BOOL), compare(0, y))
        if is_beyond(x, y):
            return full(ArrayType(type_of(y).shape, _BOOL), compare(x, 0))
        return elementwise(x, y)

    function.__name__ = name
    return function


def _step(condition: Any, like: Any) -> Any:
    return astype(condition, like.dtype)


def _larger(x: Any, y: Any, like: Any) -> Any:
    # Each side of a tie gets half of the tangent, so that both derivatives add up to one.
    return _step(greater(x, y), like) + 0.5 * _step(equal(x, y), like)


def _power_base(t: Any, x: Any, y: Any, z: Any) -> Any:
    if isinstance(y, (int, float)):
        return t * 0.0 if y == 0 else t * (y * power(x, y - 1.0))
    # At x = y = 0 the derivative is 0, where y x^(y−1) would be 0 · inf.
    base = where(logical_and(equal(x, 0.0), equal(y, 0.0)), 1.0, x)
    return t * (y * power(base, y - 1.0))


def _power_exponent(t: Any, x: Any, y: Any, z: Any) -> Any:
    # x^y log x tends to 0 as x → 0 for y > 0, and is taken for 0 at y = 0; log 1 = 0 gives that. For y < 0 it is −inf.
    if isinstance(x, (int, float)):
        return t * (z * (math.log(x) if x > 0 else _log_of_zero(y) if x == 0 else math.nan))
    return t * (z * log(where(logical_and(equal(x, 0.0), greater_equal(y, 0.0)), 1.0, x)))


def _log_of_zero(y: Any) -> Any:
    return where(less(y, 0.0), -math.inf, full(type_of(y), 0.0))


def _within(x: Any, bound: float) -> Any:
    return minimum(maximum(x, -bound), bound)


def _arctan_slope(t: Any, x: Any, y: Any) -> Any:
    # 1/(1 + x²) is 0 from the bound on, and so are its derivatives, which would be 0 · inf at infinity.
    x = _within(x, 2.0 * float(np.finfo(x.dtype).max) ** 0.5)
    return t * (1.0 / (1.0 + x * x))


def _erf_slope(t: Any, x: Any, y: Any) -> Any:
    # exp(−x²) underflows within the bound; the derivatives beyond are 0, where at infinity they would be 0 · inf.
    x = _within(x, 40.0)
    return t * (2.0 / math.sqrt(math.pi) * exp(-(x * x)))


def _over_square(y: Any, x: Any) -> tuple[Any, Any]:
    """Return x / (x² + y²) and y / (x² + y²), also where the squares overflow or vanish."""
    wide = greater_equal(absolute(x), absolute(y))
    large, small = where(wide, x, y), where(wide, y, x)
    ratio = small / large
    length = large + small * ratio
    return where(wide, 1.0, ratio) / length, where(wide, ratio, 1.0) / length


def _each(ct: Any, *inputs: Any) -> list[Any]:
    return [ct, ct]


# f(x): t is the tangent of x, y = f(x). Each rule is t times a factor that does not depend on t.
negative = _unary("negative", lambda t, x, y: -t, lambda ct, x: [-ct], least=None)
exp = _unary("exp", lambda t, x, y: t * y)
expm1 = _unary("expm1", lambda t, x, y: t * exp(x))
log = _unary("log", lambda t, x, y: t / x)
log1p = _unary("log1p", lambda t, x, y: t / (1.0 + x))
sqrt = _unary("sqrt", lambda t, x, y: t * (0.5 / y))
sin = _unary("sin", lambda t, x, y: t * cos(x))
cos: Function = _unary("cos", lambda t, x, y: t * -sin(x))
tan = _unary("tan", lambda t, x, y: t * (1.0 + y * y))
sinh = _unary("sinh", lambda t, x, y: t * cosh(x))
cosh: Function = _unary("cosh", lambda t, x, y: t * sinh(x))
tanh = _unary("tanh", lambda t, x, y: t * (1.0 - y * y))
sigmoid = _unary("sigmoid", lambda t, x, y: t * (y * (1.0 - y)))
softplus = _unary("softplus", lambda t, x, y: t * sigmoid(x))
relu = _unary("relu", lambda t, x, y: t * _step(greater(x, 0.0), t), least=None)
absolute = _unary("absolute", lambda t, x, y: t * sign(x), least=None)
sign: Function = _unary("sign", None, least=None)
arctan = _unary("arctan", _arctan_slope)
erf = _unary("erf", _erf_slope)
_floor = _unary("floor", None, least=None)
_ceil = _unary("ceil", None, least=None)

# f(x, y): one rule per operand, z = f(x, y).
add = _binary("add", lambda t, x, y, z: t, lambda t, x, y, z: t, transpose=_each)
subtract = _binary("subtract", lambda t, x, y, z: t, lambda t, x, y, z: -t, transpose=lambda ct, x, y: [ct, -ct])
multiply = _binary(
    "multiply",
    lambda t, x, y, z: t * y,
    lambda t, x, y, z: x * t,
    transpose=lambda ct, x, y: [ct * y, None] if _is_linear(x) else [None, x * ct],
)
divide = _binary(
    "divide",
    lambda t, x, y, z: t / y,
    lambda t, x, y, z: -(t * (z / y)),
    transpose=lambda ct, x, y: [ct / y, None],
    least=np.float64,
)
_power = _binary("power", _power_base, _power_exponent)
# The arguments are the coordinates y and x, in this order.
_arctan2 = _binary(
    "arctan2",
    lambda t, y, x, z: t * _over_square(y, x)[0],
    lambda t, y, x, z: t * -_over_square(y, x)[1],
)
maximum = _binary("maximum", lambda t, x, y, z: t * _larger(x, y, t), lambda t, x, y, z: t * _larger(y, x, t))
minimum = _binary("minimum", lambda t, x, y, z: t * _larger(y, x, t), lambda t, x, y, z: t * _larger(x, y, t))

# Without derivatives: the results are booleans.
equal = _comparison("equal", operator.eq)
not_equal = _comparison("not_equal", operator.ne)
less = _comparison("less", operator.lt)
less_equal = _comparison("less_equal", operator.le)
greater: Function = _comparison("greater", operator.gt)
greater_equal = _comparison("greater_equal", operator.ge)
_and = _binary("logical_and", dtype=_BOOL)
_or = _binary("logical_or", dtype=_BOOL)
_not = _declare("logical_not", None, None, _BOOL)
_isfinite = _declare("isfinite", None, None, _BOOL)


def logical_and(x: Any, y: Any) -> Any:
    """Return where both are true, or not zero."""
    return _and(astype(x, _BOOL), astype(y, _BOOL))


def logical_or(x: Any, y: Any) -> Any:
    """Return where one is true, or not zero."""
    return _or(astype(x, _BOOL), astype(y, _BOOL))


def logical_not(x: Any) -> Tracer:
    """Return where x is false, or zero."""
    return emit(_not, *promote(astype(x, _BOOL)))


def arctan2(y: Any, x: Any) -> Any:
    """Return the angles of points (x, y)."""
    return _arctan2(*floats_of(y, x))


def floats_of(*operands: Any) -> list[Any]:
    """Return operands of a function of floats: integers become floats each by itself, as NumPy has it."""
    numbers = [v for v in operands if _is_plain(v)]
    return [v if _is_plain(v) else astype(v, common_dtype(v, *numbers, least=np.float16)) for v in operands]


def floor(x: Any) -> Any:
    """Return the largest integers that are not larger, in the dtype of x, with derivative 0; integers stay."""
    return _floor(x) if type_of(x).is_floating else x


def ceil(x: Any) -> Any:
    """Return the smallest integers that are not smaller, in the dtype of x, with derivative 0; integers stay."""
    return _ceil(x) if type_of(x).is_floating else x


def isfinite(x: Any) -> Tracer:
    """Return where x is neither infinite nor NaN."""
    return emit(_isfinite, *promote(x, least=np.float16))


def _is_linear(x: Any) -> bool:
    return isinstance(x, ArrayType)


def power(x: Any, y: Any) -> Any:
    """Raise x to the power y; small whole powers are products, exact and fast."""
    if common_dtype(x, y) == _BOOL:
        x = astype(x, np.int8)
    if not _is_plain(y) or _is_plain(x):
        return _power(x, y)
    x = astype(x, common_dtype(x, y))
    if y < 0 and not type_of(x).is_floating:
        raise ArgumentException(
            f"power must be at least 0 for a base {type_of(x)}, got {y!r}; convert the base to floats"
        )
    if y in (1, 2, 3, 4):
        square = multiply(x, x) if y > 1 else x
        return {1: x, 2: square, 3: square * x, 4: square * square}[int(y)]
    return _power(x, y)


def _astype_run(backend: Backend, out: Array, x: Array, dtype: np.dtype[Any]) -> None:
    backend.astype(x, dtype, out=out)


def _astype_jvp(tangents: Sequence[Any], x: Any, output: Any, dtype: np.dtype[Any]) -> Any:
    return astype(tangents[0], dtype) if dtype.kind == "f" else None


_astype = Primitive(
    name="astype",
    shape=lambda x, dtype: ArrayType(x.shape, dtype),
    run=_astype_run,
    jvp=_astype_jvp,
    transpose=lambda ct, x, dtype: [astype(ct, x.dtype)],
    batch=lambda inputs, batched, size, dtype: astype(inputs[0], dtype),
    loop="convert",
    flops=no_flops,
)


def astype(x: Any, dtype: Any) -> Any:
    """Convert to another dtype; a value that has it already is returned."""
    kind = dtype_of_values(dtype)
    if type_of(x).dtype == kind:
        return x
    return kind.type(x) if isinstance(x, (bool, int, float, np.generic)) else emit(_astype, x, dtype=kind)


def _where_jvp(tangents: Sequence[Any], mask: Any, x: Any, y: Any, output: Any) -> Any:
    _, tx, ty = tangents
    return where(mask, 0.0 if tx is None else tx, 0.0 if ty is None else ty)


def _where_transpose(ct: Any, mask: Any, x: Any, y: Any) -> list[Any]:
    return [
        None,
        Guarded(ct, ((mask, True),)) if _is_linear(x) else None,
        Guarded(ct, ((mask, False),)) if _is_linear(y) else None,
    ]


def _where_batch(inputs: Sequence[Any], batched: Sequence[bool], size: int) -> Any:
    return _batch(partial(emit, _where), inputs, batched, size)


_where = Primitive(
    name="where",
    shape=_shape,
    run=lambda backend, out, mask, x, y: backend.elementwise("where")(mask, x, y, out=out),
    jvp=_where_jvp,
    transpose=_where_transpose,
    batch=_where_batch,
    loop="where",
)


def where(mask: Any, x: Any, y: Any) -> Tracer:
    """Select elements of x where the mask is true, of y elsewhere."""
    x, y = promote(x, y)
    shape = _common_shape([type_of(v).shape for v in (mask, x, y) if not isinstance(v, Literal)])
    mask = broadcast_to(astype(mask, _BOOL), shape)
    return emit(_where, mask, *(v if isinstance(v, Literal) else broadcast_to(v, shape) for v in (x, y)))


def _beside(name: str, rule: Rule) -> Primitive:
    """Declare a primitive that returns the first of two values; ``rule`` turns the second's tangent into its own."""
    primitive = Primitive(
        name=name,
        shape=lambda value, x: value,
        run=lambda backend, out, value, x: backend.copyto(out, value),
        jvp=lambda tangents, value, x, output: None if tangents[1] is None else rule(tangents[1], output),
        transpose=None,
        batch=lambda inputs, batched, size: _batch(partial(emit, primitive), inputs, batched, size),
        in_place=True,
        loop="identity",
        flops=no_flops,
    )
    return primitive


_with_value = _beside("with_value", lambda t, y: t)
_root = _beside("root", lambda t, y: t * where(equal(y, 0.0), 0.0, 0.5 / y))


def with_value(value: Any, x: Any) -> Tracer:
    """Return ``value`` with the derivatives of x: for limits where the formula of x gives inf − inf or 0 · inf."""
    return emit(_with_value, value, x)


def root(value: Any, square: Any) -> Tracer:
    """Return the root ``value`` of ``square`` with its derivatives, which count as 0 where the root is 0.

    The derivatives of √ are infinite there, but lengths and deviations have the subgradient 0 at their minimum, 0. The
    root is an operand of its own because it may be finite where the square overflows.
    """
    return emit(_root, value, square)
