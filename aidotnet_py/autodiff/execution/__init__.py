"""Execution of Programs: a plan of buffers, and a list of calls that write into them."""

from aidotnet_py.autodiff.execution.executable import (
    Executable,
    backend_for,
    copying,
    run_program,
    run_to_compile_at,
)
from aidotnet_py.autodiff.execution.idle import Idle
from aidotnet_py.autodiff.execution.planner import Plan, plan
from aidotnet_py.autodiff.execution.schedule import Call, Copy, Queue, Repeat, Run, Schedule, Step

__all__ = [
    "Call",
    "Copy",
    "Executable",
    "Idle",
    "Plan",
    "Queue",
    "Repeat",
    "Run",
    "Schedule",
    "Step",
    "backend_for",
    "copying",
    "plan",
    "run_program",
    "run_to_compile_at",
]
