"""Trees of arrays: mappings and sequences, flattened to lists of leaves and rebuilt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aidotnet_py.exceptions import ArgumentException

__all__ = ["Structure", "flatten"]


@dataclass(frozen=True)
class Structure:
    """The nesting of a tree without its leaves; trees that are nested alike have equal structures.

    Attributes
    ----------
    kind : object
        None for a leaf, "none" for None, else the type of the container.
    children : tuple of Structure
        The structures of the parts.
    keys : tuple
        The keys of a mapping.

    Examples
    --------
    >>> from aidotnet_py.autodiff.extend import flatten
    >>> leaves, structure = flatten({"w": [1.0, 2.0], "b": 3.0})
    >>> structure.leaves, list(structure.names("x"))
    (3, ["x['w'][0]", "x['w'][1]", "x['b']"])
    >>> structure.unflatten([10.0, 20.0, 30.0])
    {'w': [10.0, 20.0], 'b': 30.0}
    """

    kind: Any
    children: tuple[Structure, ...] = ()
    keys: tuple[Any, ...] = ()

    @property
    def leaves(self) -> int:
        """Number of leaves."""
        return 1 if self.kind is None else sum(c.leaves for c in self.children)

    def names(self, root: str) -> Iterator[str]:
        """Yield the name of each leaf in a tree called ``root``, such as ``x['w'][0]``."""
        if self.kind is None:
            yield root
        for key, child in zip(self.keys or range(len(self.children)), self.children, strict=True):
            yield from child.names(f"{root}[{key!r}]")

    def unflatten(self, leaves: Sequence[Any]) -> Any:
        """Return the tree with these leaves."""
        return self._build(iter(leaves))

    def _build(self, leaves: Iterator[Any]) -> Any:
        if self.kind is None:
            return next(leaves)
        if self.kind == "none":
            return None
        parts = [child._build(leaves) for child in self.children]
        if self.keys:
            return dict(zip(self.keys, parts, strict=True))
        return self.kind(*parts) if hasattr(self.kind, "_fields") else self.kind(parts)


_LEAF = Structure(None)


def flatten(tree: Any, name: str = "arguments") -> tuple[list[Any], Structure]:
    """Return the leaves of a tree in order, and the structure that rebuilds it.

    Parameters
    ----------
    tree : object
        Arrays and numbers, and mappings and sequences of them; None has no leaf.
    name : str
        The name of the tree in errors.

    Returns
    -------
    leaves : list
        The arrays and numbers.
    structure : Structure
        The nesting.

    Raises
    ------
    ArgumentException
        When a part is a string, bytes or a set.

    Examples
    --------
    >>> from aidotnet_py.autodiff.extend import flatten
    >>> leaves, structure = flatten((1.0, {"w": 2.0}))
    >>> leaves, structure.unflatten(leaves)
    ([1.0, 2.0], (1.0, {'w': 2.0}))
    """
    leaves: list[Any] = []
    return leaves, _walk(tree, leaves.append, name)


def _walk(tree: Any, add: Callable[[Any], None], name: str) -> Structure:
    if tree is None:
        return Structure("none")
    if isinstance(tree, Mapping):
        if not tree:
            return Structure(dict)
        items: list[tuple[Any, Any]] = list(tree.items())  # pyright: ignore[reportUnknownArgumentType] -- any mapping
        return Structure(dict, tuple(_walk(v, add, name) for _, v in items), tuple(k for k, _ in items))
    if isinstance(tree, (list, tuple)):
        kind: Any = type(tree)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] -- any sequence
        parts: list[Any] = list(tree)  # pyright: ignore[reportUnknownArgumentType] -- any sequence
        return Structure(kind, tuple(_walk(v, add, name) for v in parts))
    if isinstance(tree, (str, bytes, set)):
        kind = type(tree)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] -- any set
        raise ArgumentException(
            f"{name} must consist of arrays, numbers, and mappings and sequences of them, got {kind.__name__}"
        )
    add(tree)
    return _LEAF
