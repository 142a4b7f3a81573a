"""A loader of object files with one function: without LLVM, which takes 50 MB of memory for this.

It reads LLVM's output for x86-64 Linux: ELF whose code refers to constants by absolute addresses. It refuses others.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
import sys
from dataclasses import dataclass
from functools import cache

__all__ = ["can_load", "load"]

# "System V Application Binary Interface", chapters 4 (object files) and "AMD64 Architecture Processor Supplement".
_MAGIC = b"\x7fELF\x02\x01\x01"
_RELOCATABLE, _X86_64 = 1, 62
_PROGBITS, _SYMBOLS, _RELOCATIONS = 1, 2, 4
_IN_MEMORY = 2
_ABSOLUTE_64 = 1
_UNDEFINED, _FIRST_SPECIAL = 0, 0xFF00


@cache
def can_load() -> bool:
    """Return whether `load` can read the object files of this system."""
    return sys.platform == "linux" and platform.machine() == "x86_64" and sys.maxsize > 2**32


def load(code: bytes, function: str) -> int | None:
    """Load an object file for the rest of the process, and return the address of a function; None if that fails."""
    if not can_load():
        return None
    try:
        return _place_in_memory(_Object(code), function)
    except (struct.error, LookupError, ValueError, OverflowError, OSError):
        return None


@dataclass(frozen=True)
class _Section:
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


class _Object:
    """The sections of an object file; LookupError if the file is not for this system."""

    def __init__(self, code: bytes) -> None:
        self.code = code
        kind, machine = struct.unpack_from("<HH", code, 16)
        if not code.startswith(_MAGIC) or (kind, machine) != (_RELOCATABLE, _X86_64):
            raise LookupError("code must be an object file for x86-64")
        (start,) = struct.unpack_from("<Q", code, 0x28)
        size, count = struct.unpack_from("<HH", code, 0x3A)
        self.sections = [_Section(*struct.unpack_from("<IIQQQQIIQQ", code, start + i * size)) for i in range(count)]

    def content(self, section: _Section) -> bytes:
        return self.code[section.offset : section.offset + section.size]

    def symbol(self, table: _Section, index: int) -> tuple[str, int, int]:
        """Return a symbol's name, section and offset in the section."""
        name, _, _, section, value, _ = struct.unpack_from("<IBBHQQ", self.content(table), 24 * index)
        names = self.content(self.sections[table.link])
        return names[name : names.index(b"\0", name)].decode(), section, value


def _place_in_memory(file: _Object, function: str) -> int:
    starts: dict[int, int] = {}
    size = 0
    for index, section in enumerate(file.sections):
        if section.flags & _IN_MEMORY:
            if section.kind != _PROGBITS:
                raise LookupError(f"sections in memory must be of kind {_PROGBITS}, got {section.kind}")
            starts[index] = size = -(-size // max(section.alignment, 1)) * max(section.alignment, 1)
            size += section.size
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for index, start in starts.items():
        section = file.sections[index]
        memory[start : start + section.size] = file.content(section)
    for section in file.sections:
        if section.kind == _RELOCATIONS and section.info in starts:
            _relocate(file, section, memory, starts, base)
    _make_executable(base, size)
    _KEPT.append(memory)
    return base + _address_in(file, function, starts)


# Machine code must stay in memory as long as it may be called.
_KEPT: list[mmap.mmap] = []


def _relocate(file: _Object, section: _Section, memory: mmap.mmap, starts: dict[int, int], base: int) -> None:
    """Write into a section of code the addresses that it refers to."""
    table, here = file.sections[section.link], starts[section.info]
    for offset, info, addend in struct.iter_unpack("<QQq", file.content(section)):
        if info & 0xFFFFFFFF != _ABSOLUTE_64:
            raise LookupError(f"relocations must be of kind {_ABSOLUTE_64}, got {info & 0xFFFFFFFF}")
        _, index, value = file.symbol(table, info >> 32)
        # A function of another library has no start here, and LLVM puts none in.
        target = base + starts[index] + value
        struct.pack_into("<Q", memory, here + offset, target + addend)


def _address_in(file: _Object, function: str, starts: dict[int, int]) -> int:
    for table in (s for s in file.sections if s.kind == _SYMBOLS):
        for i in range(table.size // 24):
            name, index, value = file.symbol(table, i)
            if name == function and _UNDEFINED < index < _FIRST_SPECIAL:
                if value >= file.sections[index].size:
                    break
                return starts[index] + value
    raise LookupError(function)


def _make_executable(base: int, size: int) -> None:
    """Make memory executable, and read-only."""
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if protect(base, size, mmap.PROT_READ | mmap.PROT_EXEC):
        raise OSError(ctypes.get_errno(), "mprotect")
