"""Products over windows of images in a Program: a convolution, and its transposes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto

from aidotnet_py.autodiff.program import Atom, Equation, Program, Variable

__all__ = ["Kind", "WindowProduct", "products_over_windows"]


class Kind(Enum):
    """Which of a convolution's three arrays a product computes."""

    FORWARD = auto()
    WEIGHTS = auto()
    BACKWARD = auto()


@dataclass(frozen=True)
class WindowProduct:
    """A product over the windows of ``tasks`` × ``images`` images.

    Matrices w and y are (…, …) for one task; before that come any axes of tasks, those of nested vmaps.

    Attributes
    ----------
    kind : Kind
        FORWARD: windows of x, times w. WEIGHTS: windows of x, transposed, times y. BACKWARD: y times w transposed, or a
        sum of such products, folded onto images.
    operands : tuple of Variable
        (x, w), (x, y), or (y, w) for each term.
    windows : Variable
        All windows, (tasks × images, rows, columns, window height, window width, channels).
    image : tuple of int
        Height and width of the images.
    """

    kind: Kind
    operands: tuple[Variable, ...]
    windows: Variable
    tasks: int
    image: tuple[int, int]
    stride: tuple[int, int]

    @property
    def images(self) -> int:
        """The number of images of a task."""
        return self.windows.type.shape[0] // self.tasks

    @property
    def pixels(self) -> tuple[int, int]:
        """Rows and columns of windows of an image."""
        return self.windows.type.shape[1:3]  # type: ignore[return-value]  # two of six lengths

    @property
    def window(self) -> tuple[int, int]:
        """Height and width of a window."""
        return self.windows.type.shape[3:5]  # type: ignore[return-value]  # two of six lengths

    @property
    def channels(self) -> int:
        """The channels of the images."""
        return self.windows.type.shape[5]

    @property
    def filters(self) -> int:
        """The columns of w and y."""
        return self.operands[1].type.shape[-1]


def products_over_windows(program: Program, stage_of: Mapping[Atom, int]) -> dict[Variable, WindowProduct]:
    """Return the products over windows of a Program whose tasks have whole images, by the variable they compute."""
    search = _Search(program, stage_of)
    found = ((e.output, search.product(e)) for e in program.equations)
    return {variable: product for variable, product in found if product is not None}


class _Search:
    def __init__(self, program: Program, stage_of: Mapping[Atom, int]) -> None:
        self._made_by = {e.output: e for e in program.equations}
        self._stage_of = stage_of
        self._uses = Counter(v for e in program.equations for v in e.variables)
        self._uses.update(a for a in program.outputs if isinstance(a, Variable))

    def product(self, equation: Equation) -> WindowProduct | None:
        """Return the product over windows that an equation computes."""
        if equation.primitive.name == "matmul":
            return self._over_windows(equation)
        return self._onto_images(equation) if equation.primitive.name == "fold" else None

    def _over_windows(self, equation: Equation) -> WindowProduct | None:
        """Return the product of windows, or of windows transposed, and a matrix."""
        first, second = equation.inputs
        if not isinstance(first, Variable) or not isinstance(second, Variable):
            return None
        source = self._untransposed(first)
        rows = source or first
        windows = self._behind_reshapes(rows)
        maker = self._made_by.get(windows)
        if maker is None or maker.primitive.name != "patches":
            return None
        (x,) = maker.variables
        height, width = x.type.shape[1:3]
        kind = Kind.FORWARD if source is None else Kind.WEIGHTS
        stride = maker.parameters["stride"]
        product = WindowProduct(kind, (x, second), windows, _tasks(rows), (height, width), stride)
        return product if _has_whole_images(product, rows) else None

    def _onto_images(self, equation: Equation) -> WindowProduct | None:
        """Return the fold of a matrix product, or of a sum of products, that nothing else uses."""
        (windows,) = equation.variables
        products = self._terms(windows)
        if not products or any(p.output.type != products[0].output.type for p in products):
            return None
        # A product of an earlier stage is computed there, and not in every run of this one.
        if any(self._stage_of[p.output] < self._stage_of[equation.output] for p in products):
            return None
        operands: list[Variable] = []
        for term in products:
            y, transposed = term.inputs
            w = self._untransposed(transposed) if isinstance(transposed, Variable) else None
            if w is None or not isinstance(y, Variable):
                return None
            operands += (y, w)
        image, stride = equation.parameters["image"], equation.parameters["stride"]
        rows = products[0].output
        product = WindowProduct(Kind.BACKWARD, tuple(operands), windows, _tasks(rows), image, stride)
        return product if _has_whole_images(product, rows) else None

    def _terms(self, variable: Variable) -> list[Equation]:
        """Return the products that add up to a value that nothing else uses; none if the value is no such sum."""
        source = self._behind_reshapes(variable, once=True)
        maker = self._made_by.get(source)
        if maker is None or self._uses[source] != 1:
            return []
        if maker.primitive.name == "matmul":
            return [maker]
        if maker.primitive.name != "add" or any(a.type != source.type for a in maker.inputs):
            return []
        terms = [self._terms(v) for v in maker.variables]
        return [product for products in terms for product in products] if all(terms) else []

    def _behind_reshapes(self, variable: Variable, *, once: bool = False) -> Variable:
        while (maker := self._made_by.get(variable)) is not None and maker.primitive.name == "reshape":
            if once and self._uses[variable] != 1:
                break
            (variable,) = maker.variables
        return variable

    def _untransposed(self, variable: Variable) -> Variable | None:
        """Return the matrices of which a value is the transposes; None if it is not made so."""
        maker = self._made_by.get(variable)
        if maker is None or maker.primitive.name != "permute_dims":
            return None
        axes: tuple[int, ...] = maker.parameters["axes"]
        n = len(axes)
        return maker.variables[0] if axes == (*range(n - 2), n - 1, n - 2) else None


def _tasks(rows: Variable) -> int:
    return math.prod(rows.type.shape[:-2])


def _has_whole_images(product: WindowProduct, rows: Variable) -> bool:
    shape = rows.type.shape
    if not product.windows.type.size:
        return False
    span = math.prod(product.window) * product.channels
    return shape[-1] == span and product.windows.type.shape[0] % product.tasks == 0
