"""Lines of the assembly language of LLVM."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

__all__ = ["Writer"]


class Writer:
    """Lines of assembly, and unused names."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._numbers = count()
        self._block = ""

    def text(self) -> str:
        """Return all lines."""
        return "\n".join(self._lines) + "\n"

    def line(self, text: str) -> None:
        """Write a line."""
        self._lines.append(text)

    def label(self, name: str) -> None:
        """Start a block."""
        self.line(f"{name}:")
        self._block = name

    def value(self, expression: str) -> str:
        """Write a line that computes an expression, and return the name of its value."""
        name = self._fresh("%v")
        self.line(f"  {name} = {expression}")
        return name

    def repeated(self, kind: str, value: str, width: int) -> str:
        """Write so many copies of a value of a type, side by side; one is the value itself."""
        if width == 1:
            return value
        wide = f"<{width} x {kind}>"
        one = self.value(f"insertelement {wide} poison, {kind} {value}, i64 0")
        return self.value(f"shufflevector {wide} {one}, {wide} poison, <{width} x i32> zeroinitializer")

    def where(self, condition: str, body: Callable[[], object], otherwise: Callable[[], object] | None = None) -> None:
        """Write a block that is run if a condition holds, and perhaps one that is run if not."""
        after = self._fresh("after")
        blocks = [(self._fresh("then"), body), *([] if otherwise is None else [(self._fresh("else"), otherwise)])]
        self._branch(condition, blocks[0][0], after if otherwise is None else blocks[1][0])
        for name, write in blocks:
            self.label(name)
            write()
            self.line(f"  br label %{after}")
        self.label(after)

    def loop(
        self,
        start: int | str,
        stop: int | str,
        body: Callable[[int | str, list[str]], Sequence[str]],
        *,
        step: int = 1,
        carried: Sequence[tuple[str, str]] = (),
    ) -> list[str]:
        """Write a loop that runs at least once, and return what it carries, after it.

        Parameters
        ----------
        start, stop : int or str
            The first index, and the one after the last, or names of them; ``step`` divides their distance.
        body : callable
            Writes the work, given the index, a number if there is only one, and the values that are carried; returns
            these after it.
        step : int
            The distance of indices.
        carried : sequence of (str, str)
            The types and first values.
        """
        if isinstance(start, int) and start + step == stop:
            return list(body(start, [first for _, first in carried]))
        before, head, after = self._block, self._fresh("loop"), self._fresh("done")
        self.line(f"  br label %{head}")
        self.label(head)
        index, following = self._fresh("%i"), self._fresh("%n")
        begun = [self._fresh("%t") for _ in carried]
        place = len(self._lines)
        ended = list(body(index, begun))
        self.line(f"  {following} = add nuw nsw i64 {index}, {step}")
        # The block that the loop comes back from, and what it carries, are known now.
        phis = [("i64", str(start)), *carried]
        turns = zip([index, *begun], phis, [following, *ended], strict=True)
        self._lines[place:place] = [
            f"  {name} = phi {kind} [ {first}, %{before} ], [ {last}, %{self._block} ]"
            for name, (kind, first), last in turns
        ]
        self._branch(f"icmp ult i64 {following}, {stop}", head, after)
        self.label(after)
        return ended

    def _branch(self, condition: str, yes: str, no: str) -> None:
        self.line(f"  br i1 {self.value(condition)}, label %{yes}, label %{no}")

    def _fresh(self, prefix: str) -> str:
        return f"{prefix}.{next(self._numbers)}"
