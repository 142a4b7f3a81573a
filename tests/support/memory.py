"""Bytes that are held while tracemalloc looks, without the interpreter's own tables, which may double at any time."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import numpy as np

import aidotnet_py


def bytes_of_arrays() -> int:
    """Bytes of all arrays of NumPy."""
    gc.collect()
    arrays = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([arrays]).traces)


def bytes_of_objects() -> int:
    """Bytes of small objects that code of this package and of NumPy made: the test runner's threads make others."""
    gc.collect()
    own = [tracemalloc.Filter(True, f"{Path(room.__file__).parent}/*", domain=0) for room in (aidotnet_py, np)]
    sizes = (trace.size for trace in tracemalloc.take_snapshot().filter_traces(own).traces)
    return sum(size for size in sizes if size < 32_000)
