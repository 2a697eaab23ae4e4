"""Trajectories of another code, exponax (JAX), which the evolutions here are compared with.

    python -m venv /tmp/exponax && /tmp/exponax/bin/pip install exponax==0.2.0
    /tmp/exponax/bin/python benchmarks/exponax_states.py tests/data/exponax.npz

writes, for each equation, coefficients in the order of its system here, an initial state of a few long waves and the
states after one and after three steps, all in float64 on 32 x 32 points; ``tests/test_evolution.py`` compares. Both
codes take ETDRK4 with the same number of equal substeps. Where conventions differ, they are made alike here:

- Axes: exponax has x first, this project y first; fields are transposed.
- Waves left out of products: exponax keeps |k| <= f n / 2 - 1 for its fraction f, this project |k| < s n / 2 for its
  share s. With n = 32, f = 11.5 / 16 keeps the waves of s = 2/3, and f = 1/2 those of s = 1/2.
- Contour: 32 points of a circle of radius 1, as here.
- Domain: Kuramoto-Sivashinsky and Swift-Hohenberg are on a square of side ``size``, as exponax's domain extent.
- Kuramoto-Sivashinsky: exponax has the sum of fourth derivatives, this project the square of the Laplacian, which a
  subclass puts in. Hyper-diffusion has an argument for it.
- Navier-Stokes: exponax's stream function is the inverse Laplacian of the vorticity, without the minus sign that makes
  the flow's rotation the vorticity itself; a strength of the other sign is the same equation.
- Gray-Scott: exponax counts decay among the nonlinear terms, this project among the linear ones. So the two methods
  differ by the fourth power of the substep, which is short enough here that they agree to 1e-8.
"""

from __future__ import annotations

import sys

import exponax
import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)

N = 32
QUADRATIC, CUBIC = 11.5 / 16, 1 / 2
TIMES = (1, 3)


class KuramotoSivashinsky(exponax.stepper.KuramotoSivashinsky):
    """With the square of the Laplacian, where exponax has the sum of the fourth derivatives."""

    def _build_linear_operator(self, derivative_operator):
        laplacian = (derivative_operator**2).sum(axis=0, keepdims=True)
        return -self.second_order_scale * laplacian - self.fourth_order_scale * laplacian**2


def waves(random, fields=1, largest=3):
    """Sums of waves of |kx|, |ky| <= largest with random amplitudes and phases, of unit size, (fields, x, y)."""
    x = np.arange(N) / N
    found = np.zeros((fields, N, N))
    for each in found:
        for kx in range(largest + 1):
            for ky in range(-largest, largest + 1):
                if (kx, ky) > (0, 0):
                    amplitude, phase = random.normal() / (1 + kx**2 + ky**2), random.uniform(0, 2 * np.pi)
                    each += amplitude * np.cos(2 * np.pi * (kx * x[:, None] + ky * x[None, :]) + phase)
    return found / np.sqrt((found**2).mean(axis=(1, 2), keepdims=True))


def equations():
    """Name of a system, its coefficients, its initial state of unit waves, substeps, and the stepper of a substep."""
    stepper, unit = exponax.stepper, {"num_spatial_dims": 2, "domain_extent": 1.0, "num_points": N}
    fourth = {"order": 4, "num_circle_points": 32}
    quadratic, cubic = (
        {**unit, **fourth, "dealiasing_fraction": QUADRATIC}, {**unit, **fourth, "dealiasing_fraction": CUBIC}
    )  # fmt: skip

    def same(u):
        return u

    yield (
        "advection_diffusion_in_time", (0.003, 0.3, -0.2, 0.5), same, 1,
        lambda dt: stepper.AdvectionDiffusion(**unit, dt=dt, velocity=jnp.array([0.3, -0.2]), diffusivity=0.003),
    )  # fmt: skip
    yield "dispersion", (1e-4, 0.5), same, 1, lambda dt: stepper.Dispersion(**unit, dt=dt, dispersivity=1e-4)
    yield (
        "hyper_diffusion", (1e-5, 0.5), same, 1,
        lambda dt: stepper.HyperDiffusion(**unit, dt=dt, hyper_diffusivity=1e-5, diffuse_on_diffuse=True),
    )  # fmt: skip
    yield (
        "burgers", (0.004, 0.1, 0.5), same, 20,
        lambda dt: stepper.Burgers(
            **quadratic, dt=dt, diffusivity=0.004, convection_scale=0.1, single_channel=True, conservative=True
        ),
    )  # fmt: skip
    yield (
        "kuramoto_sivashinsky", (20.0, 1.0), lambda u: 2 * u, 20,
        lambda dt: KuramotoSivashinsky(**{**quadratic, "domain_extent": 20.0}, dt=dt),
    )  # fmt: skip
    yield (
        "navier_stokes", (0.002, 1.2, 0.5), same, 20,
        lambda dt: stepper.NavierStokesVorticity(
            **quadratic, dt=dt, diffusivity=0.002, vorticity_convection_scale=-1.2
        ),
    )  # fmt: skip
    yield (
        "allen_cahn", (1.2, 0.002, 0.5), lambda u: u / 2, 20,
        lambda dt: stepper.reaction.AllenCahn(
            **cubic, dt=dt, diffusivity=0.002, first_order_coefficient=1.2, third_order_coefficient=-1.2
        ),
    )  # fmt: skip
    yield (
        "fisher_kpp", (0.8, 0.002, 0.5), lambda u: 0.4 + u / 10, 20,
        lambda dt: stepper.reaction.FisherKPP(**quadratic, dt=dt, diffusivity=0.002, reactivity=0.8),
    )  # fmt: skip
    yield (
        "swift_hohenberg", (0.5, 0.7, 16.0, 1.0), lambda u: u / 3, 20,
        lambda dt: stepper.reaction.SwiftHohenberg(
            **{**cubic, "domain_extent": 16.0}, dt=dt, reactivity=0.5, polynomial_coefficients=(0.0, 0.0, 0.7, -1.0)
        ),
    )  # fmt: skip
    yield (
        "gray_scott", (0.04, 0.06, 8e-5, 4e-5, 20.0), lambda u: np.stack([0.6 + u[0] / 10, 0.2 + u[1] / 20]), 200,
        lambda dt: stepper.reaction.GrayScott(
            **cubic, dt=dt, diffusivity_1=8e-5, diffusivity_2=4e-5, feed_rate=0.04, kill_rate=0.06
        ),
    )  # fmt: skip


def main(path: str) -> None:
    """Write coefficients, substeps, initial states and states of all equations."""
    arrays = {}
    for number, (name, coefficients, state_of, substeps, stepper_of) in enumerate(equations()):
        fields = 2 if name == "gray_scott" else 1
        start = state_of(waves(np.random.default_rng(number), fields))
        step = exponax.repeat(stepper_of(coefficients[-1] / substeps), substeps)
        states, state = [start], jnp.asarray(start)
        for time in range(1, TIMES[-1] + 1):
            state = step(state)
            if time in TIMES:
                states.append(np.asarray(state))
        arrays[f"{name}.coefficients"] = np.array(coefficients)
        arrays[f"{name}.substeps"] = np.array(substeps)
        arrays[f"{name}.states"] = np.stack(states).swapaxes(-1, -2).squeeze()
        change = np.linalg.norm(states[-1] - states[0]) / np.linalg.norm(states[0])
        print(f"{name}: changed by {change:.0%}")
    np.savez_compressed(path, times=np.array((0, *TIMES)), **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
