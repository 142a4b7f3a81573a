"""The functions of this process for kernels: loaded from disk or compiled at once, and optimized afterwards."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import weakref
from collections import deque
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from aidotnet_py.backends import kernel, rows
from aidotnet_py.backends.code_files import CodeFiles
from aidotnet_py.backends.kernel import Kernel
from aidotnet_py.backends.numpy import assembly, machine_code
from aidotnet_py.backends.numpy.assembly import (
    SmallDtype,
    chain_text,
    kernel_text,
    sharing_text,
    small_product_text,
)
from aidotnet_py.backends.numpy.compiling_process import CompilingProcess
from aidotnet_py.backends.numpy.machine_code import OPTIMIZE, Machine
from aidotnet_py.backends.numpy.object_code import can_load, load
from aidotnet_py.cache_folder import cache_folder
from aidotnet_py.locks import Lock

__all__ = ["Function", "Library", "Source"]

# The source of a function: a kernel, a word for the functions that call kernels in order, or share them out, or the
# dtype of the function for small products.
Source: TypeAlias = Kernel | SmallDtype | Literal["chain", "sharing"]

# Made once: each call of CFUNCTYPE searches a dictionary.
_KERNEL = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)


class Function:
    """A function whose code may be replaced, by code of the same results, while threads call it.

    Attributes
    ----------
    source : Kernel or str
        What the function does.
    run : callable
        The function, if it is that of a kernel.
    """

    def __init__(self, source: Source, address: int) -> None:
        self.source: Source = source
        self._entry = ctypes.c_void_p()
        self.replace(address)

    @property
    def entry(self) -> int:
        """The place in memory of the code's address, for callers that read it at each call."""
        return ctypes.addressof(self._entry)

    @property
    def address(self) -> int:
        """The address of its code now."""
        return self._entry.value or 0

    def replace(self, address: int) -> None:
        """Have later calls run the code at another address."""
        self.run = _KERNEL(address)
        self._entry.value = address


class _Code(NamedTuple):
    """Loaded code, which stays for the rest of the process."""

    address: int
    is_optimized: bool


class Library:
    """The functions of this process; threads may share it.

    Code that is compiled at once takes a quarter of the time to compile, and hardly longer to run. Optimized code
    replaces it for functions that are still there when there is time for it.
    """

    def __init__(self) -> None:
        self._files = CodeFiles(cache_folder("kernels"))
        self.lock = Lock()
        self._codes: dict[str, _Code] = {}
        self._functions: weakref.WeakValueDictionary[str, Function] = weakref.WeakValueDictionary()
        # Digests of functions to optimize, in the order in which they came; some are gone or optimized since.
        self._slow: deque[str] = deque()
        # Code by its digest, written when there is time for it: a step that waits for code does not wait for the disk.
        self._unwritten: deque[tuple[str, bytes]] = deque()
        # The last name of a function, and its text.
        self._last_text = "", ""
        self._machine: Machine | None = None
        # Needed only if code on disk can be loaded without LLVM.
        self._kind = _kind_of_processor() if can_load() else None

    def look_up(self, source: Source) -> Function | None:
        """Return a source's function; None if the function must be compiled."""
        return None if self._kind is None else self._known(source, _digest(self._kind, source))

    def compile(self, source: Source, process: CompilingProcess, following: Sequence[Source]) -> Function:
        """Return a source's function, compiled if need be; called by the compiling thread alone.

        The text of the following source, if there is one, is written meanwhile.

        Raises
        ------
        AbandonedError
            When the process gave up, since nobody wants the function any more.
        """
        digest = self._digest(source)
        known = self._known(source, digest)
        if known is not None:
            return known
        # Other functions are few, and their address is used as it is.
        optimize = not isinstance(source, Kernel)
        code = self._compile(source, digest, process, optimize, following)
        with self.lock:
            return self._function(digest, source, code)

    def has_to_write(self) -> bool:
        """Return whether there is code to write to disk."""
        return bool(self._unwritten)

    def write(self) -> None:
        """Write some code to disk; called by the compiling thread alone."""
        self._files.write(*self._unwritten.popleft())

    def can_optimize(self) -> bool:
        """Return whether there is a function to optimize."""
        with self.lock:
            while self._slow and (self._slow[0] not in self._functions or self._codes[self._slow[0]].is_optimized):
                self._slow.popleft()
            return bool(self._slow)

    def optimize(self, process: CompilingProcess) -> None:
        """Optimize a function; called by the compiling thread alone, with the exceptions of `compile`."""
        with self.lock:
            # What fails is not tried again.
            digest = self._slow.popleft()
            function = self._functions.get(digest)
        if function is not None:
            function.replace(self._compile(function.source, digest, process, True).address)

    def _known(self, source: Source, digest: str) -> Function | None:
        """Return a source's function, if its code is loaded or on disk."""
        with self.lock:
            code = self._codes.get(digest) or self._read(digest)
            return None if code is None else self._function(digest, source, code)

    def _function(self, digest: str, source: Source, code: _Code) -> Function:
        """Return the function of some code, one for all its callers; the lock must be held."""
        function = self._functions.get(digest)
        if function is None:
            self._codes[digest] = code
            function = self._functions[digest] = Function(source, code.address)
            if not code.is_optimized:
                self._slow.append(digest)
        return function

    def _digest(self, source: Source) -> str:
        return _digest(self._kind or self._own_machine().kind, source)

    def _own_machine(self) -> Machine:
        """Return LLVM in this process, which takes 100 MB of memory."""
        self._machine = self._machine or Machine()
        return self._machine

    def _read(self, digest: str) -> _Code | None:
        """Load code from disk; None if there is none, or this fails."""
        content = self._files.read(digest)
        if not content:
            return None
        optimize = content[:1] == OPTIMIZE
        code, name = content[1:], _name(digest, optimize)
        try:
            address = load(code, name) if can_load() else self._own_machine().load(code, name)
        except (RuntimeError, LookupError):
            return None
        return None if address is None else _Code(address, optimize)

    def _compile(
        self, source: Source, digest: str, process: CompilingProcess, optimize: bool, following: Sequence[Source] = ()
    ) -> _Code:
        text, name = self._text(source, digest, optimize), _name(digest, optimize)

        def meanwhile() -> None:
            for later in following:
                if (key := self._digest(later)) not in self._codes:
                    self._text(later, key, optimize)

        # What cannot be loaded without LLVM needs it here in any case.
        code = process.compile(text, optimize=optimize, meanwhile=meanwhile) if can_load() else None
        code = code or self._own_machine().compile(text, optimize=optimize)
        loaded = _Code(load(code, name) or self._own_machine().load(code, name), optimize)
        self._codes[digest] = loaded
        self._unwritten.append((digest, (OPTIMIZE if optimize else b"\0") + code))
        return loaded

    def _text(self, source: Source, digest: str, optimize: bool) -> str:
        """Return the text of a source; the last one is not written again."""
        name = _name(digest, optimize)
        if self._last_text[0] != name:
            self._last_text = name, _text(source, name)
        return self._last_text[1]


def _name(digest: str, optimize: bool) -> str:
    """Return a function's name, unique because one engine may hold all functions."""
    return f"{'kernel' if optimize else 'early'}_{digest}"


def _text(source: Source, name: str) -> str:
    if isinstance(source, Kernel):
        return kernel_text(source, name)
    if source == "chain" or source == "sharing":
        return chain_text(name) if source == "chain" else sharing_text(name)
    return small_product_text(name, source)


def _digest(kind: str, source: Source) -> str:
    """Return the key of a source's machine code: a digest of processor, writing modules and source."""
    writers = _writers()
    # The representation of a kernel is faster to make than its text, but identifies the text only for these writers.
    content = f"{writers}\n{source!r}" if writers else _text(source, "kernel")
    return hashlib.sha256(f"{kind}\n{content}".encode()).hexdigest()


@cache
def _writers() -> str | None:
    """Return a digest of the modules that translate kernels; None if their source files cannot be read."""
    try:
        modules = (kernel.__file__, rows.__file__, assembly.__file__, machine_code.__file__, __file__)
        files = [Path(file or "") for file in modules]
        files += sorted(Path(assembly.__file__ or "").parent.glob("*.py"))
        sources = [file.read_bytes() for file in files]
    except OSError:
        return None
    return hashlib.sha256(b"".join(sources)).hexdigest()


def _kind_of_processor() -> str | None:
    """Return the versions of LLVM and the processor, without loading LLVM; None if they cannot be read."""
    try:
        package = importlib.util.find_spec("llvmlite")
        origin = None if package is None else package.origin
        version = Path(origin or "").with_name("_version.py").read_text()
        processor = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0]
    except (OSError, ValueError):
        return None
    lines = [line for line in processor.splitlines() if line.startswith(_PROCESSOR_LINES)]
    return "\n".join([version, *lines]) if len(lines) == len(_PROCESSOR_LINES) else None


# The lines from which LLVM derives a processor's name and features.
_PROCESSOR_LINES = ("vendor_id", "cpu family", "model\t", "stepping", "flags")
