"""LLVM set up for this processor; as a program, it compiles modules for another process.

It imports nothing of the package, so that the program needs nothing but LLVM.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

__all__ = ["LENGTH_BYTES", "OPTIMIZE", "Machine"]

# A module and an object file come after their length in so many bytes, little end first. Between the length and the
# module there is a byte, this one for optimized code.
LENGTH_BYTES = 8
OPTIMIZE = b"\1"


class Machine:
    """LLVM set up for this processor."""

    def __init__(self) -> None:
        # Imported here, in the background: the import takes a tenth of a second. llvmlite has no types.
        llvm: Any = importlib.import_module("llvmlite.binding")

        self._llvm = llvm
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        processor, features = llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
        target = llvm.Target.from_default_triple()
        # A quarter of the time to compile, or the least time to run.
        self._quick, self._optimizing = (
            target.create_target_machine(cpu=processor, features=features, opt=level, jit=True) for level in (0, 3)
        )
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), self._optimizing)
        self.kind = f"{llvm.llvm_version_info} {llvm.get_default_triple()} {processor} {features}"

    def load(self, code: bytes, name: str) -> int:
        """Load an object file and return the address of a function; raise RuntimeError or LookupError if this fails."""
        self._engine.add_object_file(self._llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        address = int(self._engine.get_function_address(name))
        if not address:
            raise LookupError(f"the object file must have a function {name}, got none")
        return address

    def compile(self, text: str, *, optimize: bool) -> bytes:
        """Compile a module to an object file: soon, or to code that takes less time.

        Both compute the same bits, but for the sign of a NaN, which depends on the order of an instruction's operands.
        """
        target = self._optimizing if optimize else self._quick
        module = self._llvm.parse_assembly(text)
        module.triple = self._llvm.get_default_triple()
        module.data_layout = str(target.target_data)
        return bytes(target.emit_object(module))


def answer() -> None:
    """Compile modules from the standard input, and write their object files, until the input ends."""
    machine = Machine()
    while length := sys.stdin.buffer.read(LENGTH_BYTES):
        optimize = sys.stdin.buffer.read(1) == OPTIMIZE
        text = sys.stdin.buffer.read(int.from_bytes(length, "little")).decode()
        code = machine.compile(text, optimize=optimize)
        sys.stdout.buffer.write(len(code).to_bytes(LENGTH_BYTES, "little") + code)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    # The folder that llvmlite is in.
    sys.path.insert(0, sys.argv[1])
    answer()
