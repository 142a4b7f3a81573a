r"""
What conjugate gradient does, and when it fails
===============================================

iMAML needs :math:`v = (I + \lambda H)^{-1} g`, and computes only products :math:`Hv`, never :math:`H`. Conjugate
gradient needs one product per iteration. After :math:`k` iterations, its solution has the smallest error, in the norm
that :math:`A` defines, of all :math:`q(A)\,b` with a polynomial :math:`q` of degree :math:`k - 1`. Three facts follow.

- **The spread of the eigenvalues sets the rate.** With condition number :math:`\kappa`, the error after :math:`k`
  iterations is at most :math:`2\left(\frac{\sqrt\kappa - 1}{\sqrt\kappa + 1}\right)^k` times the error at zero.
- **Equal eigenvalues count once.** With :math:`m` distinct eigenvalues, :math:`m` iterations suffice for any
  :math:`\kappa`.
- **A must be positive definite.** Along a direction of negative curvature there is no best solution, and the solver
  stops.
"""

import matplotlib.pyplot as plt
import numpy as np

from aidotnet_py.solvers import conjugate_gradient, neumann_series

generator = np.random.default_rng(0)
n = 200
basis, _ = np.linalg.qr(generator.normal(size=(n, n)))
b = generator.normal(size=n)


def operator_with(eigenvalues):
    matrix = (basis * eigenvalues) @ basis.T
    return lambda v: matrix @ v


def solve(eigenvalues, **settings):
    solution, report = conjugate_gradient(operator_with(eigenvalues), b, **settings)
    return solution, report, report.residual_history[:, 0] / report.rhs_norms[0]


# %%
# The spread, and groups
# ----------------------
#
# Three matrices have condition numbers 10, 100 and 1000. A fourth has 1000 too, but only four distinct eigenvalues.

spectra = {
    "κ = 10": np.linspace(1, 10, n),
    "κ = 100": np.linspace(1, 100, n),
    "κ = 1000": np.linspace(1, 1000, n),
    "κ = 1000, four groups": np.repeat([1.0, 10.0, 100.0, 1000.0], n // 4),
}
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for name, eigenvalues in spectra.items():
    _, report, history = solve(eigenvalues, max_iterations=150)
    axes.semilogy(history, label=name)
    print(f"{name:<22} {report.iterations[0]:4} iterations, {report.stop_reasons[0].value}")
axes.set(xlabel="iteration", ylabel="‖b − Ax‖ / ‖b‖")
axes.legend()
axes.grid(alpha=0.3)

# %%
# The λ of iMAML sets this spread: the eigenvalues of :math:`I + \lambda H` are between 1 and :math:`1 + \lambda h`,
# where :math:`h` is the largest eigenvalue of :math:`H`. A small λ keeps φ near the start and makes the solve easy. The
# Neumann series :math:`\sum_j (-\lambda H)^j g` needs :math:`\lambda h < 1` and diverges otherwise; conjugate gradient
# has no such limit.

h = np.linspace(0, 1, n)
figure, panels = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
for strength, panel in zip((0.5, 2.0), panels, strict=True):
    eigenvalues = 1 + strength * h
    _, _, history = solve(eigenvalues, max_iterations=20)
    _, series = neumann_series(operator_with(eigenvalues), b, terms=20)
    panel.semilogy(history, label="conjugate gradient")
    panel.semilogy(series.residual_history[:, 0] / series.rhs_norms[0], label="Neumann series")
    panel.set(title=f"λh = {strength}", xlabel="products with H", ylim=(1e-11, 1e7))
    panel.grid(alpha=0.3)
panels[0].set_ylabel("‖g − (I + λH)v‖ / ‖g‖")
panels[0].legend()

# %%
# Negative curvature
# ------------------
#
# If the inner steps end far from a minimum, the Hessian has negative eigenvalues. If one eigenvalue of :math:`I +
# \lambda H` is below zero, the solver stops at the first direction with :math:`p^T A p \le 0`, reports it, and returns
# the solution before this direction. Three remedies: Gauss–Newton curvature, whose eigenvalues are never negative;
# damping, which raises all eigenvalues; or a smaller λ.

indefinite = 1 + np.linspace(-1.5, 20, n)
for name, damping in (("as it stands", 0.0), ("damping 1", 1.0)):
    _, report, _ = solve(indefinite, damping=damping)
    residual = report.residual_norms[0] / report.rhs_norms[0]
    print(f"{name:<14} {report.iterations[0]:3} iterations, residual {residual:.1e}, {report.stop_reasons[0].value}")

# %%
# Precision
# ---------
#
# The recursive residual of the iteration keeps falling after the true residual stalls. The solvers measure the true
# residual at the end: if the dtype cannot reach the bound, the report says ``PRECISION_LIMIT``, not convergence.

matrix = ((basis * spectra["κ = 1000"]) @ basis.T).astype(np.float32)
_, report = conjugate_gradient(lambda v: matrix @ v, b.astype(np.float32), rtol=1e-7, max_iterations=1000)
carried, measured = report.residual_history[-1, 0], report.residual_norms[0]
print(f"float32: carried along {carried:.1e}, measured {measured:.1e}, {report.stop_reasons[0].value}")
