"""The bounded cache: what it keeps and forgets, alone, among threads, in copies and after a fork."""

from __future__ import annotations

import copy
import os
import pickle
import sys
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidotnet_py.caching import BoundedCache


def refuse() -> Any:
    raise AssertionError("made again")


@given(st.lists(st.integers(0, 8)), st.integers(1, 5))
def test_the_least_recently_used_goes(keys: list[int], most: int) -> None:
    cache: BoundedCache[int, int] = BoundedCache(most)
    reference: OrderedDict[int, int] = OrderedDict()
    for stamp, key in enumerate(keys):
        expected = reference.setdefault(key, stamp)
        reference.move_to_end(key)
        while len(reference) > most:
            reference.popitem(last=False)
        assert cache.get_or_make(key, lambda stamp=stamp: stamp) == expected  # type: ignore[misc]
        assert cache.values() == list(reference.values())
        assert len(cache) == len(reference)
        assert all(k in cache for k in reference)


def test_none_is_a_value() -> None:
    cache: BoundedCache[str, None] = BoundedCache(2)
    assert cache.get_or_make("a", lambda: None) is None
    assert cache.get_or_make("a", refuse) is None


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6))), st.integers(1, 4))
def test_values_that_are_put_and_asked_for(calls: list[tuple[bool, int]], most: int) -> None:
    cache: BoundedCache[int, int] = BoundedCache(most)
    reference: OrderedDict[int, int] = OrderedDict()
    for stamp, (put, key) in enumerate(calls):
        if put:
            cache.put(key, stamp)
            reference[key] = stamp
        else:
            assert cache.get(key) == reference.get(key)
        if key in reference:
            reference.move_to_end(key)
        while len(reference) > most:
            reference.popitem(last=False)
        assert cache.values() == list(reference.values())


def test_a_bound_by_size() -> None:
    cache: BoundedCache[str, bytes] = BoundedCache(10, len)
    for key, size in (("a", 4), ("b", 4), ("c", 4)):
        cache.get_or_make(key, lambda size=size: bytes(size))  # type: ignore[misc]
    assert [key in cache for key in "abc"] == [False, True, True]
    cache.get_or_make("huge", lambda: bytes(100))
    assert cache.values() == [bytes(100)]


def test_what_fails_leaves_nothing() -> None:
    cache: BoundedCache[str, int] = BoundedCache(2)
    with pytest.raises(ZeroDivisionError):
        cache.get_or_make("a", lambda: 1 // 0)
    assert "a" not in cache
    assert cache.get_or_make("a", lambda: 3) == 3
    cache.clear()
    assert len(cache) == 0


def test_a_value_that_needs_another() -> None:
    cache: BoundedCache[int, int] = BoundedCache(50)

    def factorial(n: int) -> int:
        return cache.get_or_make(n, lambda: 1 if n == 0 else n * factorial(n - 1))

    assert factorial(20) == 2432902008176640000
    assert len(cache) == 21


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda cache: pickle.loads(pickle.dumps(cache))])
def test_copies_are_empty_and_have_the_same_bounds(duplicate: Any) -> None:
    cache: BoundedCache[int, bytes] = BoundedCache(10, len)
    cache.get_or_make(1, lambda: b"abc")
    other = duplicate(cache)
    assert (len(cache), len(other)) == (1, 0)
    for key in range(5):
        other.get_or_make(key, lambda: bytes(4))
    assert len(other) == 2


def test_threads_get_one_value() -> None:
    cache: BoundedCache[str, object] = BoundedCache(2)
    together = threading.Barrier(4, timeout=60)

    def ask(_: int) -> object:
        def make() -> object:
            # All four are here: no thread waits for the value of another.
            together.wait()
            return object()

        return cache.get_or_make("a", make)

    with ThreadPoolExecutor(4) as pool:
        values = list(pool.map(ask, range(4)))
    assert all(value is values[0] for value in values)
    assert cache.get_or_make("a", refuse) is values[0]


def test_threads_never_find_it_broken() -> None:
    cache: BoundedCache[int, int] = BoundedCache(3)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:

            def ask(start: int) -> bool:
                return all(cache.get_or_make(n % 5, lambda n=n: n % 5) == n % 5 for n in range(start, 2000))  # type: ignore[misc]

            assert all(pool.map(ask, range(8)))
    finally:
        sys.setswitchinterval(interval)
    assert len(cache) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_it_is_free_after_a_fork() -> None:
    cache: BoundedCache[str, int] = BoundedCache(2)
    cache.get_or_make("a", lambda: 1)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with cache._lock:
            held.set()
            done.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(60)
    child = os.fork()
    if child == 0:
        os._exit(0 if cache.get_or_make("a", refuse) == 1 else 1)
    done.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
