"""Running Programs: a plan of buffers, then a list of calls that write into them."""

from aidotnet_py.autodiff.execution.executable import Executable, backend_for, run_program
from aidotnet_py.autodiff.execution.idle import Idle
from aidotnet_py.autodiff.execution.planner import Plan, plan
from aidotnet_py.autodiff.execution.rounds import Rounds

__all__ = ["Executable", "Idle", "Plan", "Rounds", "backend_for", "plan", "run_program"]
