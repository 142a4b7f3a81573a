"""
Newton-CG against gradient descent
==================================

iMAML's meta-gradient is exact at the minimum of the inner problem, so the inner solver must reach this minimum. If
directions differ in scale, gradient descent is slow; ``NewtonCGMinimizer`` uses products with the exact Hessian, and
needs a few steps.

The problem is logistic regression with a small penalty, on features with scales between 1 and 1/100.
"""

import matplotlib.pyplot as plt
import numpy as np

from aidotnet_py.autodiff import linearize, trace, value_and_grad
from aidotnet_py.optimizers import NewtonCGMinimizer

generator = np.random.default_rng(0)
x = generator.normal(size=(400, 30)) / np.geomspace(1, 100, 30)
signs = np.sign(x @ (3 * generator.normal(size=30) * np.geomspace(1, 100, 30) ** 0.5) + generator.normal(size=400))


def loss(w):
    return np.mean(np.logaddexp(0.0, -signs * (x @ w))) + 5e-6 * np.sum(w**2)


start = np.zeros(30)
loss_and_gradient = trace(value_and_grad(loss), start)


def gradient_of(w):
    return value_and_grad(loss)(w)[1]


# %%
# Units of work: a gradient is one unit, a product with the Hessian two units, about their costs.


class Counted:
    """The objective for the minimiser, one row, with a record of work done and loss reached."""

    def __init__(self):
        self.work, self.record = 0, []

    def evaluate(self, points):
        value, slope = loss_and_gradient(points[0])
        self.work += 1
        self.record.append((self.work, float(value)))
        return np.array([value]), slope[None]

    def curvature(self, points):
        product = linearize(gradient_of, points[0])[1]

        def counted(v):
            self.work += 2
            return product(v[0])[None]

        return counted


newton = Counted()
minimum = NewtonCGMinimizer(max_iterations=50, gradient_tolerance=1e-11).minimize(newton, start[None])[0]
lowest = float(loss(minimum))

# %%
# Gradient descent uses the best fixed rate in theory, 2 / (largest + smallest eigenvalue) of the Hessian at the
# minimum. In practice this rate is unknown.

hessian = np.array([linearize(gradient_of, minimum)[1](unit) for unit in np.eye(30)])
eigenvalues = np.linalg.eigvalsh(hessian)
rate = 2 / (eigenvalues[-1] + eigenvalues[0])
w, descent = start, []
for step in range(1, 2001):
    value, slope = loss_and_gradient(w)
    descent.append((step, float(value)))
    w = w - rate * slope

print(f"condition number at the minimum: {eigenvalues[-1] / eigenvalues[0]:.0f}")
print(f"Newton-CG: {newton.work} units of work to a gradient of {np.abs(gradient_of(minimum)).max():.0e}")
print(f"gradient descent: after 2000 units still {descent[-1][1] - lowest:.0e} above the minimum")

# %%
# The difference from the lowest loss against work:

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for name, record in (("gradient descent", descent), ("Newton-CG", newton.record)):
    work, values = np.array(record).T
    axes.loglog(work, np.maximum(values - lowest, 1e-16), label=name, marker="." if len(work) < 100 else None)
axes.set(xlabel="work (a gradient is 1, a product 2)", ylabel="loss − lowest loss", ylim=(1e-16, 2))
axes.legend()
axes.grid(alpha=0.3)
