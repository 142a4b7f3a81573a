r"""
Derivatives through a solver of one's own
=========================================

A solver computes :math:`\varphi` with :math:`F(\varphi, \theta) = 0`. The condition gives the derivative of
:math:`\varphi`: :math:`\frac{\partial F}{\partial \varphi} \mathrm{d}\varphi =
-\frac{\partial F}{\partial \theta} \mathrm{d}\theta`. ``implicit_diff`` solves this system, and never differentiates
the solver; see :doc:`/implicit`.

Here the solver is a bisection with many branches for the Colebrook equation, which gives the friction factor of a rough
pipe and has no closed form.
"""

import matplotlib.pyplot as plt
import numpy as np

from aidotnet_py.autodiff import grad, hvp
from aidotnet_py.implicit import implicit_diff


def colebrook(root, reynolds, roughness):
    """Zero where root = 1/√f, f the friction factor."""
    return root + 2.0 * np.log10(roughness / 3.7 + 2.51 * root / reynolds)


@implicit_diff(colebrook)
def bisection(initial, reynolds, roughness):
    low, high = 0.1, 100.0
    while high - low > 1e-13 * high:
        middle = 0.5 * (low + high)
        if colebrook(middle, reynolds, roughness) < 0.0:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def friction(log_reynolds, roughness=1e-4):
    return 1.0 / bisection(5.0, np.exp(log_reynolds), roughness) ** 2


# %%
# First and second derivatives, compared with finite differences of the solver:

at, h = np.log(1e5), 1e-3
slope, bend = grad(friction)(at), hvp(friction, at, 1.0)
print(f"slope {slope:.7f}   finite difference {(friction(at + h) - friction(at - h)) / (2 * h):.7f}")
print(f"bend  {bend:.7f}   finite difference {(friction(at + h) - 2 * friction(at) + friction(at - h)) / h**2:.7f}")

# %%
# The friction of pipes of three roughnesses, with the tangents at 10⁵ from the derivative:

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
grid = np.linspace(np.log(4e3), np.log(1e8), 60)
near = np.linspace(at - 1.2, at + 1.2, 2)
for roughness in (1e-5, 1e-3, 1e-2):
    (line,) = axes.loglog(
        np.exp(grid), [friction(point, roughness) for point in grid], label=f"roughness {roughness:g}"
    )
    value, slope = friction(at, roughness), grad(lambda point, r=roughness: friction(point, r))(at)
    axes.loglog(np.exp(near), value + slope * (near - at), color=line.get_color(), linestyle="--", linewidth=1)
    axes.plot(np.exp(at), value, "o", color=line.get_color())
axes.set(xlabel="Reynolds number", ylabel="friction factor")
axes.legend()
axes.grid(alpha=0.3)
