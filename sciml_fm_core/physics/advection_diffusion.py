"""SYS-2, advection-diffusion, and the search for the speed that gives an advection ratio."""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor

from sciml_fm_core.eager import known_values

from .diffusion import (
    DIFFUSION_FEATURES,
    FLOW_DIRECTION,
    PRINCIPAL_AXIS,
    check_positive_definite,
    diffusion_features,
    diffusion_symbol,
    elliptic_bounds,
    mean_diffusion,
    rotated_diffusion,
    tensor_in_latex,
)
from .parameter import Parameter
from .spectral import advection_symbol, is_finite, laplacian, parseval_weights, power_of_two, transform, vector_norm
from .spectral_system import SpectralSystem
from .symmetries import Geometry

_ROOT_ITERATIONS = 60
_TRACED_ITERATIONS = 12  # where nobody can look whether the last step was small
_LAST_STEP = 1e-5  # in log speed: Newton's method squares it


class AdvectionDiffusion(SpectralSystem):
    """SYS-2, ``-div(K grad u) + v . grad u = f``; dial: the ratio ``Psi = ||v . grad u|| / ||div K grad u||``.

    The paper's released code looks the speed up in a table of averages, so its Psi is approximate. Here, for a given K,
    direction and source, the speed that gives exactly the asked Psi is found by a root search (see `speed`).
    """

    name = "advection_diffusion"
    label = "SYS-2"
    title = "Advection–diffusion"
    equation = r"-\nabla \cdot (K \nabla u) + v \cdot \nabla u = f"
    coefficient_names = ("k11", "k22", "k12", "v1", "v2")
    dialled = Parameter(
        "advection ratio",
        0.05,
        5,
        start=0.5,
        label="Advection ratio Ψ",
        help="Ψ = ‖v·∇u‖ / ‖∇·K∇u‖: how strongly the flow carries u, compared with its diffusion.",
        logarithmic=True,
    )
    # The paper's Table 1 prints (0.2, 0.4) twice; its mild shift is (0.4, 1.6), as its authors' slides show.
    shifts = MappingProxyType(
        {"pre-training": (0.2, 1), "none": (0.2, 0.4), "mild": (0.4, 1.6), "medium": (1, 2), "large": (2, 5)}
    )
    parameters = (
        FLOW_DIRECTION,
        Parameter(
            "eigenvalue", 1, 5, start=2.0, label="Diffusion eigenvalue", help="Ratio of the eigenvalues of K.", step=0.1
        ),
        PRINCIPAL_AXIS,
    )
    zero_mean = True
    geometry = Geometry(tensors=(("k11", "k22", "k12"),), vectors=(("v1", "v2"),))

    def symbol(self, coefficients, n):
        diffusion = diffusion_symbol(coefficients[..., :3], n)
        return torch.complex(diffusion, advection_symbol(coefficients[..., 3:], n).expand(diffusion.shape))

    def preconditioner(self, coefficients, n):
        """See `mean_diffusion`."""
        return mean_diffusion(coefficients, n)

    def symbol_bounds(self, coefficients, n):
        """Coercivity, ``(L u, u) >= smallest eigenvalue of K times |grad u|^2``; and continuity, with all of v."""
        low, high = elliptic_bounds(coefficients[..., :3], n)
        speed = vector_norm(coefficients[..., 3:])
        return low, torch.hypot(high, speed[..., None, None] * laplacian(n, like=coefficients).sqrt())

    def dial(self, source, coefficients):
        """Psi of the solution, by Parseval in float64."""
        n = source.shape[-1]
        coefficients = coefficients.double()
        coefficients = coefficients / power_of_two(coefficients.abs().amax(dim=-1, keepdim=True))  # Psi stays
        diffusion = diffusion_symbol(coefficients[..., :3], n)
        advection = advection_symbol(coefficients[..., 3:], n)
        energy = self._energy(source.double()) / (diffusion**2 + advection**2).clamp(min=1e-300)
        energy[..., 0, 0] = 0
        ratio = (advection**2 * energy).sum((-2, -1)) / (diffusion**2 * energy).sum((-2, -1))
        still = ratio == 0  # where the square root has no gradient
        return ratio.masked_fill(still, 1).sqrt().masked_fill(still, 0).to(source.dtype)

    @staticmethod
    def _energy(source: Tensor) -> Tensor:
        n = source.shape[-1]
        source_hat = transform(source)
        real, imag = source_hat.real.double(), source_hat.imag.double()
        energy = (real**2).addcmul_(imag, imag) * parseval_weights(n, device=source.device)
        energy[..., 0, 0] = 0
        return energy / energy.sum((-2, -1), keepdim=True)

    def speed(self, ratio: Tensor, source: Tensor, diffusion: Tensor, angle: Tensor) -> Tensor:
        """Speed s such that ``v = s (cos a, sin a)`` gives the advection ratio Psi exactly.

        With D the diffusion symbol, A the advection symbol at unit speed and F the share of the source's energy in each
        mode, ``N(s) = sum F s^2 A^2 / (D^2 + s^2 A^2)`` and ``Psi^2 = N / (1 - N)``. N increases with s, so the root is
        unique: Newton's method in log s, kept inside a bracket, with no inverse transform in the loop.

        Args:
            ratio: Psi, shape (...).
            source: f, shape (..., n, n).
            diffusion: K as ``k11 k22 k12``, shape (..., 3).
            angle: a in radians, shape (...).

        Returns:
            Speed, shape (...), float64.

        Raises:
            ValueError: if a ratio is not positive, or larger than any speed can give (modes that vary only across the
                flow are never advected, so Psi has a limit).
        """
        ratio = ratio.double()
        if (known := known_values(ratio)) is not None and not (known > 0).all():
            raise ValueError(f"advection ratio: expected values above 0, got {known.min():.3g}")
        n = source.shape[-1]
        size = power_of_two(diffusion.double()[..., :2].amax(dim=-1))
        diffusion = diffusion.double() / size[..., None]
        ratio = ratio.clamp(max=1e150)
        target = ratio**2 / (1 + ratio**2)  # the share N of the energy that must be advected
        energy = self._energy(source)
        largest = energy.reshape(-1, n, n // 2 + 1).amax(0)
        if not is_finite(largest):
            raise ValueError(
                "advection ratio: expected a source that is finite and not zero; it has no ratio otherwise"
            )
        # Short waves of next to no energy are left out: they change neither N nor 1 - N by more than rounding.
        rows, half = largest.sum(1), n // 2
        shells = largest.sum(0) + rows[: half + 1] + rows.roll(-1).flip(0)[: half + 1]  # by |kx|, ky and -ky
        rounding = 0.1 * torch.finfo(source.dtype).eps * torch.minimum(target, 1 / (1 + ratio**2)).min()
        if (needed := known_values((shells.flip(0).cumsum(0) > rounding).sum())) is not None:
            half = min(max(int(needed), 2), half)
        energy = torch.cat([energy[..., :half, : half + 1], energy[..., -half:, : half + 1]], dim=-2)
        direction = torch.stack([torch.cos(angle.double()), torch.sin(angle.double())], dim=-1)
        unit_advection = advection_symbol(direction, 2 * half)
        # Far below the largest, an advection symbol is rounding in cos or sin of a flow along an axis.
        unit_advection.masked_fill_(unit_advection.abs() < 1e-12 * torch.pi * n, 0)
        diffused_symbol = diffusion_symbol(diffusion, 2 * half)
        diffused_symbol[..., 0, 0] = 1  # the mean carries no energy
        squared_ratio = (unit_advection / diffused_symbol).square().flatten(-2)  # (A / D)^2
        energy = energy.flatten(-2)
        reachable = (energy * (squared_ratio > 0)).sum(-1)
        beyond = target >= reachable
        if (known := known_values(beyond)) is not None and known.any():
            limit = (reachable / (1 - reachable).clamp(min=1e-300)).sqrt().min()
            raise ValueError(
                f"advection ratio: expected at most {limit:.3g} for this source and flow direction, got "
                f"{ratio.max():.3g}; turn the flow or lower the ratio"
            )
        log_low = torch.full_like(target, -30.0)
        log_high = torch.full_like(target, 30.0)
        # Start where the mode of average diffusivity over advection would have the asked ratio.
        log_speed = torch.log(ratio) - 0.5 * torch.log((energy * squared_ratio).sum(-1))
        for step in range(1, _ROOT_ITERATIONS + 1):
            squared_speed = torch.exp(2 * log_speed)
            diffused_share = (squared_speed[..., None] * squared_ratio).add_(1).reciprocal_()
            # Both shares are summed from their own terms: as 1 - N, the smaller would be lost to rounding.
            diffused_energy = energy * diffused_share
            advected_energy = squared_ratio * diffused_energy  # at unit speed
            diffused = diffused_energy.sum(-1)
            advected = squared_speed * advected_energy.sum(-1)
            overlap = squared_speed * advected_energy.mul_(diffused_share).sum(-1)
            slope = 2 * overlap * (1 / advected + 1 / diffused)
            error = torch.log(advected) - torch.log(diffused) - 2 * torch.log(ratio)
            newton = log_speed - error / slope
            moved = known_values((newton - log_speed).abs())
            if step == _TRACED_ITERATIONS if moved is None else (moved < _LAST_STEP).all():
                return (torch.exp(newton) * size).masked_fill(beyond, torch.nan)
            log_low = torch.where(error < 0, log_speed, log_low)
            log_high = torch.where(error > 0, log_speed, log_high)
            inside = (newton >= log_low) & (newton <= log_high)  # at an end: a root that rounding has reached stays
            log_speed = torch.where(inside, newton, (log_low + log_high) / 2)
        raise ArithmeticError("advection ratio: the search for the speed did not converge; report this with its input")

    def coefficients(self, dial, source, parameters):
        direction, eigenvalue, axis = parameters.unbind(-1)
        diffusion = rotated_diffusion(eigenvalue, axis)
        speed = self.speed(dial, source, diffusion, direction).to(diffusion.dtype)
        velocity = speed[..., None] * torch.stack([torch.cos(direction), torch.sin(direction)], dim=-1)
        return torch.cat([diffusion, velocity], dim=-1)

    def check_coefficients(self, coefficients):
        check_positive_definite(coefficients[..., :3], self.name)

    @property
    def feature_names(self):
        return (*DIFFUSION_FEATURES, "advection_x", "advection_y")

    def features(self, coefficients):
        kappa = (coefficients[..., :1] + coefficients[..., 1:2]) / 2
        advection = coefficients[..., 3:] / (2 * torch.pi * kappa)
        return torch.cat([diffusion_features(coefficients[..., :3]), advection], dim=-1)

    def scale(self, coefficients):
        kappa = (coefficients[..., 0] + coefficients[..., 1]) / 2
        speed = vector_norm(coefficients[..., 3:])
        return 4 * torch.pi**2 * kappa + 2 * torch.pi * speed

    def equation_with(self, coefficients):
        v1, v2 = (f"{coefficients[name]:.3g}" for name in ("v1", "v2"))
        velocity = rf"v = \begin{{pmatrix}} {v1} \\ {v2} \end{{pmatrix}}"
        return rf"{self.equation},\quad {tensor_in_latex(coefficients)},\; {velocity}"
