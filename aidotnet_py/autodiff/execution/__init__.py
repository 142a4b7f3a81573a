"""Running Programs: a plan of buffers, then a list of calls that write into them.

May import: `program`, `primitive`, `layout` and the backends.
"""

from aidotnet_py.autodiff.execution.executable import Executable, run_program
from aidotnet_py.autodiff.execution.planning import Plan, plan

__all__ = ["Executable", "Plan", "plan", "run_program"]
