"""Products over windows of images: by minimal filtering, or in tiles of a few images where all take too much memory.

The windows of an image repeat each pixel, up to once for each place in a window. Windows of large images or of large
batches do not fit into the caches. A product needs the windows of only a few images at a time.
"""

from __future__ import annotations

from collections.abc import Mapping

from aidotnet_py.autodiff.execution.minimal_filtering import MinimalProduct, Prepared, is_cheaper, nbytes_of_tiles
from aidotnet_py.autodiff.execution.tiled_products import TiledProduct
from aidotnet_py.autodiff.execution.window_products import Kind, WindowProduct, products_over_windows
from aidotnet_py.autodiff.program import Atom, Program, Variable
from aidotnet_py.autodiff.tracing.recording import new_trace
from aidotnet_py.autodiff.transforms.replay import Replay
from aidotnet_py.autodiff.transforms.simplification import without_unused
from aidotnet_py.backends.kernel import LoopRules

__all__ = ["tile"]

# Windows of more than _MOST_BYTES are taken in tiles of about _TILE_BYTES, which stay within a core's own cache.
# Minimal filtering has tiles of up to _MOST_BYTES: they take as much time as smaller ones, and are less to compile.
_MOST_BYTES, _TILE_BYTES = 2**22, 2**19

# Windows that a later stage reads are kept for it up to this size; larger windows are computed in each of its runs.
_KEPT_BYTES = 2**25


def tile(program: Program, stage_of: Mapping[Atom, int], rules: LoopRules) -> tuple[Program, Mapping[Atom, int]]:
    """Return the program with products over windows done in these ways, and the stage of each of its values.

    Parameters
    ----------
    program : Program
        Any program.
    stage_of : mapping
        The stage of each value. Windows that a later stage reads are kept whole, up to a limit, so that its runs need
        not compute them again.
    rules : LoopRules
        Their ``room`` and ``minimal_filtering``.
    """
    found = products_over_windows(program, stage_of)
    ways = {v: _way(product, v, stage_of, rules) for v, product in found.items()}
    if not any(ways.values()):
        return program, stage_of
    prepared: Prepared = {}
    with new_trace() as trace:
        replay = Replay(program, [trace.new_input(v.type) for v in program.inputs])
        stages: dict[Atom, int] = {value.variable: stage_of[v] for v, value in replay.values.items()}
        for equation in program.equations:
            way, done = ways.get(equation.output), len(trace.equations)
            if way is None:
                replay.emit(equation)
            else:
                operands = [replay.values[v] for v in way.of.operands]
                if isinstance(way, MinimalProduct):
                    operands = way.prepare(operands, prepared)
                    for early in trace.equations[done:]:
                        stages[early.output] = max(stages[v] for v in early.variables)
                    done = len(trace.equations)
                replay.values[equation.output] = way.emit(operands)
            # A tile computes its windows in the stage of its product, even if an earlier stage could.
            stages.update((e.output, stage_of[equation.output]) for e in trace.equations[done:])
        return without_unused(trace.finish([replay.operand(a) for a in program.outputs])), stages


def _way(
    product: WindowProduct, output: Variable, stage_of: Mapping[Atom, int], rules: LoopRules
) -> MinimalProduct | TiledProduct | None:
    """Return how to compute a product; None: with all its windows at once, as the program does."""
    room = rules.room
    if rules.minimal_filtering and is_cheaper(product):
        return _minimal(product, stage_of[output], stage_of, room)
    # What one task needs decides, so that its results are the same whatever tasks are beside it.
    windows, nbytes = product.windows, product.windows.type.nbytes // product.tasks
    kept = nbytes <= _KEPT_BYTES * room and stage_of[windows] < stage_of[output]
    if windows.type.nbytes <= _MOST_BYTES * room or (kept and product.kind is not Kind.BACKWARD):
        return None
    return TiledProduct(product, _per_tile(product, nbytes, _TILE_BYTES * room, room))


def _minimal(product: WindowProduct, stage: int, stage_of: Mapping[Atom, int], room: int) -> MinimalProduct:
    """Return how to compute a product by minimal filtering."""
    # The other operands are filters.
    places = range(0, len(product.operands), 1 if product.kind is Kind.WEIGHTS else 2)
    sizes = {place: nbytes_of_tiles(product, product.operands[place].type.shape[-1]) for place in places}
    most, limit = max(sizes.values()), _MOST_BYTES * room
    early = {
        place
        for place, nbytes in sizes.items()
        if most * product.tasks <= limit
        or (nbytes * product.tasks <= _KEPT_BYTES * room and stage_of[product.operands[place]] < stage)
    }
    return MinimalProduct(
        product,
        tasks_at_a_time=max(1, min(limit // most, product.tasks)),
        images_at_a_time=_per_tile(product, most, limit, room),
        early=frozenset(early),
    )


def _per_tile(product: WindowProduct, nbytes: int, of_tile: int, room: int) -> int:
    """Return how many of a task's images make a tile, given the bytes for all of them and for a tile."""
    if nbytes <= _MOST_BYTES * room:
        return product.images
    # Each tile's product reads the whole matrix, so that a tile should not be smaller than the matrix.
    height, width = product.window
    matrix = height * width * product.channels * product.filters * product.windows.type.dtype.itemsize
    return max(1, max(of_tile, matrix) * product.images // nbytes)
