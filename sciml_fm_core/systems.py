"""The PDE systems: each declares its coefficients, its Fourier symbol and its dial; shared code solves.

Every system is a linear, constant-coefficient operator L on the periodic unit square, ``L u = f``. In Fourier space L
is multiplication by its symbol, so ``u_hat(k) = f_hat(k) / symbol(k)`` is exact for every resolved mode. The systems
are those of arXiv:2306.00258; adding one is a subclass of `System` and an entry in `SYSTEMS`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from .spectral import (
    check_finite,
    check_grid,
    derivative_wavenumbers,
    inverse_transform,
    parseval_weights,
    transform,
    wavenumbers,
)

DIFFUSIVITY = 0.01
"""Smallest eigenvalue of the diffusion tensor in every task of the paper."""

FULL_TURN = 2 * torch.pi

_ROOT_ITERATIONS = 60
_LAST_STEP = 1e-5  # in log speed: Newton's method squares it


def rotated_diffusion(eigenvalue: Tensor, angle: Tensor) -> Tensor:
    """Diffusion tensor ``K = 0.01 R(t)^T diag(1, e) R(t)`` as components ``k11 k22 k12``, shape (..., 3)."""
    c, s = torch.cos(angle), torch.sin(angle)
    components = (c**2 + eigenvalue * s**2, s**2 + eigenvalue * c**2, (eigenvalue - 1) * s * c)
    return DIFFUSIVITY * torch.stack(components, dim=-1)


class Parameter(NamedTuple):
    """A scalar that, beside the dial, fixes the coefficients of an example; angles are in radians."""

    name: str
    low: float
    high: float


class System(ABC):
    """A linear PDE ``L u = f`` with constant coefficients, solved exactly by its Fourier symbol.

    Subclasses declare the class attributes below and implement `symbol`, `dial` and `coefficients`; they may
    override `features`, `scale` and `shared`, which tell a neural operator how to see the coefficients.
    """

    name: ClassVar[str]
    """Key in `SYSTEMS`."""
    label: ClassVar[str]
    """Label in the paper, used in task names: ``SYS-1(1,5)``."""
    equation: ClassVar[str]
    """The equation solved, in LaTeX."""
    coefficient_names: ClassVar[tuple[str, ...]]
    """Names of the coefficients, in the order of files and tensors."""
    dial_name: ClassVar[str]
    """The physics parameter that the paper varies."""
    parameters: ClassVar[tuple[Parameter, ...]] = ()
    """What else fixes the coefficients, each drawn uniformly in its range."""
    zero_mean: ClassVar[bool]
    """True when L annihilates constants: the source must have zero mean, the solution is given zero mean."""
    integer_dial: ClassVar[bool] = False
    """True when tasks draw whole numbers, both ends included."""
    max_solution: ClassVar[float | None] = None
    """Rule of the paper's sampler: redraw an example while ``max |u|`` exceeds this; never applied by `solve`."""

    @abstractmethod
    def symbol(self, coefficients: Tensor, n: int) -> Tensor:
        """Fourier symbol of L, shape (..., n, n // 2 + 1), real or complex, for coefficients (..., c)."""

    @abstractmethod
    def dial(self, source: Tensor, coefficients: Tensor) -> Tensor:
        """Value of the dialled parameter, shape (...), of sources (..., n, n) with coefficients (..., c)."""

    @abstractmethod
    def coefficients(self, dial: Tensor, source: Tensor, parameters: Tensor) -> Tensor:
        """Coefficients (..., c) that give the asked dial values.

        Args:
            dial: value of the dialled parameter, shape (...).
            source: sources (..., n, n); used only where the dial depends on the solution.
            parameters: values of `parameters`, shape (..., len(self.parameters)).
        """

    def check_coefficients(self, coefficients: Tensor) -> None:  # noqa: B027 - most operators are always defined
        """Raise ValueError when the operator is not defined for these coefficients."""

    # What a neural operator sees ------------------------------------------------------------------------------------

    @property
    def shared_names(self) -> tuple[str, ...]:
        """Names of the channels that stand for the coefficients in a model of several systems."""
        return self.coefficient_names

    def shared(self, coefficients: Tensor) -> Tensor:
        """Coefficients as the channels `shared_names`, shape (..., len(shared_names))."""
        return coefficients

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the dimensionless `features`."""
        return self.coefficient_names

    def features(self, coefficients: Tensor) -> Tensor:
        """Dimensionless numbers that fix the solution up to `scale`; unchanged when L is multiplied by a constant."""
        return coefficients / self.scale(coefficients)[..., None]

    def scale(self, coefficients: Tensor) -> Tensor:
        """Typical size of the symbol on the largest waves, shape (...): |u| is about |f| / scale."""
        symbol = self.symbol(coefficients, 4)
        return (symbol[..., 0, 1].abs() + symbol[..., 1, 0].abs() + symbol[..., 1, 1].abs()) / 3

    # Shared by all systems ------------------------------------------------------------------------------------------

    def solve(self, source: Tensor, coefficients: Tensor) -> Tensor:
        """Solve ``L u = f`` exactly in Fourier space: ``u_hat = f_hat / symbol``.

        Modes where the symbol vanishes are removed from the solution: the mean where L annihilates constants, and any
        resonant mode. Differentiable in both arguments; computed at least in float32.

        Args:
            source: f, shape (..., n, n), n even.
            coefficients: shape (..., c), in the order of `coefficient_names`; leading shapes broadcast.

        Returns:
            Solution u, shape (..., n, n), in the dtype of the source.

        Raises:
            ValueError: on a wrong shape, non-finite values, coefficients for which L is not defined, or a source whose
                mean is not zero where it must be.
        """
        n = self.check(source, coefficients)
        self.check_mean(source)
        return inverse_transform(self.solve_hat(transform(source), coefficients, n), n).to(source.dtype)

    def solve_hat(self, source_hat: Tensor, coefficients: Tensor, n: int) -> Tensor:
        """`solve` between Fourier coefficients (..., n, n // 2 + 1), without checks."""
        return source_hat * self.inverse_symbol(coefficients, n, source_hat.dtype).to(source_hat.dtype)

    def inverse_symbol(self, coefficients: Tensor, n: int, dtype: torch.dtype = torch.complex128) -> Tensor:
        """``1 / symbol``, zero in the modes that L annihilates and nowhere else; float64, or `dtype` where complex."""
        symbol, null = self._symbol_and_null(coefficients, n)
        if symbol.is_complex():
            symbol = symbol.to(dtype)  # the slow part is a complex inversion in float64
        return (1 / symbol.masked_fill(null, 1)).masked_fill(null, 0)

    def residual(self, solution: Tensor, source: Tensor, coefficients: Tensor) -> Tensor:
        """Signed residual ``L u - f``, shape (..., n, n), zero for the exact solution.

        The part of f in the null space of L (the mean, a resonant mode) cannot be matched by any u and is left out.

        Raises:
            ValueError: as `solve`.
        """
        n = self.check(source, coefficients)
        if solution.shape[-2:] != source.shape[-2:]:
            raise ValueError(
                f"solution: expected the grid of the source {tuple(source.shape[-2:])}, "
                f"got {tuple(solution.shape[-2:])}; resample one of them"
            )
        symbol, null = self._symbol_and_null(coefficients, n)
        source_hat = transform(source)
        residual_hat = torch.where(null, 0, symbol.to(source_hat.dtype) * transform(solution) - source_hat)
        return inverse_transform(residual_hat, n).to(solution.dtype)

    def check_mean(self, source: Tensor) -> None:
        """Raise ValueError when L annihilates constants and a source has a mean, for which there is no solution."""
        if not self.zero_mean:
            return
        mean = source.detach().double().mean(dim=(-2, -1)).abs()
        tolerance = 1e-3 if source.dtype in (torch.float16, torch.bfloat16) else 1e-5
        if (mean > tolerance * source.detach().abs().amax(dim=(-2, -1))).any():
            raise ValueError(
                f"source: {self.name} on a periodic square expects a source of zero mean, got a mean of "
                f"{mean.max():.3g}; subtract source.mean(dim=(-2, -1), keepdim=True)"
            )

    def null_modes(self, coefficients: Tensor, n: int) -> Tensor:
        """Boolean mask (..., n, n // 2 + 1) of the modes that L annihilates, to rounding."""
        return self._symbol_and_null(coefficients, n)[1]

    def _symbol_and_null(self, coefficients: Tensor, n: int) -> tuple[Tensor, Tensor]:
        # The symbol is computed in float64: near a resonance it is a difference of nearly equal numbers.
        symbol = self.symbol(coefficients.double(), n)
        size = symbol.real.abs() + symbol.imag.abs() if symbol.is_complex() else symbol.abs()
        null = size <= 16 * torch.finfo(torch.float64).eps * size.amax(dim=(-2, -1), keepdim=True)
        return symbol, null

    def check(self, source: Tensor, coefficients: Tensor) -> int:
        """Raise ValueError on wrong shapes, non-finite values or coefficients L is not defined for; return n."""
        n = check_grid(source, "source")
        if not source.is_floating_point():
            raise ValueError(f"source: expected a floating-point tensor, got {source.dtype}; pass source.float()")
        check_finite(source, "source")
        count = len(self.coefficient_names)
        if coefficients.ndim < 1 or coefficients.shape[-1] != count:
            raise ValueError(
                f"coefficients: {self.name} expects shape (..., {count}) for {' '.join(self.coefficient_names)}, "
                f"got {tuple(coefficients.shape)}"
            )
        try:
            torch.broadcast_shapes(source.shape[:-2], coefficients.shape[:-1])
        except RuntimeError:
            raise ValueError(
                f"source and coefficients: leading shapes {tuple(source.shape[:-2])} and "
                f"{tuple(coefficients.shape[:-1])} do not broadcast; pass one row of coefficients per source"
            ) from None
        check_finite(coefficients, "coefficients")
        self.check_coefficients(coefficients.detach())
        return n


def _diffusion_symbol(tensor: Tensor, n: int) -> Tensor:
    """Symbol of -div(K grad .): ``4 pi^2 (K11 kx^2 + K22 ky^2 + 2 K12 kx ky)``, the cross term without Nyquist."""
    kx, ky = wavenumbers(n, dtype=tensor.dtype, device=tensor.device)
    dx, dy = derivative_wavenumbers(n, dtype=tensor.dtype, device=tensor.device)
    k11, k22, k12 = (4 * torch.pi**2 * tensor[..., i, None, None] for i in range(3))
    return torch.addcmul(k11 * kx**2 + k22 * ky**2, 2 * k12 * dy, dx)


def _check_positive_definite(tensor: Tensor, name: str) -> None:
    k11, k22, k12 = tensor.unbind(-1)
    if not ((k11 > 0) & (k22 > 0) & (k11 * k22 > k12**2)).all():
        raise ValueError(
            f"coefficients: {name} expects a positive definite diffusion tensor (k11 > 0, k11 k22 > k12^2); "
            "got one that is not"
        )


def _diffusion_features(tensor: Tensor) -> Tensor:
    """Shape of K apart from its size: ``(K11 - K22) / 2 kappa, K12 / kappa, sqrt(det K) / kappa``."""
    k11, k22, k12 = tensor.unbind(-1)
    kappa = (k11 + k22) / 2
    det = (k11 * k22 - k12**2).clamp(min=0)
    return torch.stack([(k11 - k22) / 2 / kappa, k12 / kappa, det.sqrt() / kappa], dim=-1)


_DIFFUSION_FEATURES = ("anisotropy_axis", "anisotropy_diagonal", "isotropy")


class Poisson(System):
    """SYS-1, ``-div(K grad u) = f``; dial: the eigenvalue e of K / 0.01, the other eigenvalue being 1."""

    name = "poisson"
    label = "SYS-1"
    equation = r"-\nabla \cdot (K \nabla u) = f"
    coefficient_names = ("k11", "k22", "k12")
    dial_name = "eigenvalue"
    parameters = (Parameter("principal axis", 0, FULL_TURN),)
    zero_mean = True

    def symbol(self, coefficients, n):
        return _diffusion_symbol(coefficients, n)

    def dial(self, source, coefficients):
        """Ratio of the eigenvalues of K, at least 1."""
        k11, k22, k12 = coefficients.double().unbind(-1)
        mean, radius = (k11 + k22) / 2, torch.hypot((k11 - k22) / 2, k12)
        return ((mean + radius) / (mean - radius)).to(coefficients.dtype)

    def coefficients(self, dial, source, parameters):
        return rotated_diffusion(dial, parameters[..., 0])

    def check_coefficients(self, coefficients):
        _check_positive_definite(coefficients, self.name)

    @property
    def feature_names(self):
        return _DIFFUSION_FEATURES

    def features(self, coefficients):
        return _diffusion_features(coefficients)

    def scale(self, coefficients):
        return 4 * torch.pi**2 * (coefficients[..., 0] + coefficients[..., 1]) / 2


class AdvectionDiffusion(System):
    """SYS-2, ``-div(K grad u) + v . grad u = f``; dial: the ratio ``Psi = ||v . grad u|| / ||div K grad u||``.

    The paper's released code looks the speed up in a table of averages, so its Psi is approximate. Here, for a given K,
    direction and source, the speed that gives exactly the asked Psi is found by a root search (see `speed`).
    """

    name = "advection_diffusion"
    label = "SYS-2"
    equation = r"-\nabla \cdot (K \nabla u) + v \cdot \nabla u = f"
    coefficient_names = ("k11", "k22", "k12", "v1", "v2")
    dial_name = "advection ratio"
    parameters = (
        Parameter("flow direction", 0, FULL_TURN),
        Parameter("eigenvalue", 1, 5),
        Parameter("principal axis", 0, FULL_TURN),
    )
    zero_mean = True

    def symbol(self, coefficients, n):
        diffusion = _diffusion_symbol(coefficients[..., :3], n)
        return torch.complex(diffusion, self._advection_symbol(coefficients[..., 3:], n).expand(diffusion.shape))

    @staticmethod
    def _advection_symbol(velocity: Tensor, n: int) -> Tensor:
        """Imaginary part of the symbol: ``2 pi (v1 kx + v2 ky)``."""
        dx, dy = derivative_wavenumbers(n, dtype=velocity.dtype, device=velocity.device)
        v1, v2 = (2 * torch.pi * velocity[..., i, None, None] for i in range(2))
        return v1 * dx + v2 * dy

    def dial(self, source, coefficients):
        """Psi of the solution, by Parseval in float64."""
        n = source.shape[-1]
        coefficients = coefficients.double()
        diffusion = _diffusion_symbol(coefficients[..., :3], n)
        advection = self._advection_symbol(coefficients[..., 3:], n)
        energy = self._energy(source.double()) / (diffusion**2 + advection**2).clamp(min=1e-300)
        energy[..., 0, 0] = 0
        ratio = (advection**2 * energy).sum((-2, -1)) / (diffusion**2 * energy).sum((-2, -1))
        return ratio.sqrt().to(source.dtype)

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
        if not (ratio > 0).all():
            raise ValueError(f"advection ratio: expected values above 0, got {ratio.min():.3g}")
        n = source.shape[-1]
        target = ratio**2 / (1 + ratio**2)  # the share N of the energy that must be advected
        energy = self._energy(source)
        largest = energy.reshape(-1, n, n // 2 + 1).amax(0)
        if not torch.isfinite(largest).all():
            raise ValueError(
                "advection ratio: expected a source that is finite and not zero; it has no ratio otherwise"
            )
        # Short waves of next to no energy are left out: they change neither N nor 1 - N by more than rounding.
        rows, half = largest.sum(1), n // 2
        shells = largest.sum(0) + rows[: half + 1] + rows.roll(-1).flip(0)[: half + 1]  # by |kx|, ky and -ky
        rounding = 0.1 * torch.finfo(source.dtype).eps * torch.minimum(target, 1 / (1 + ratio**2)).min()
        half = min(max(int((shells.flip(0).cumsum(0) > rounding).sum()), 2), half)
        energy = torch.cat([energy[..., :half, : half + 1], energy[..., -half:, : half + 1]], dim=-2)
        direction = torch.stack([torch.cos(angle.double()), torch.sin(angle.double())], dim=-1)
        unit_advection = self._advection_symbol(direction, 2 * half)
        # Far below the largest, an advection symbol is rounding in cos or sin of a flow along an axis.
        unit_advection.masked_fill_(unit_advection.abs() < 1e-12 * torch.pi * n, 0)
        diffusion_symbol = _diffusion_symbol(diffusion.double(), 2 * half)
        diffusion_symbol[..., 0, 0] = 1  # the mean carries no energy
        squared_ratio = (unit_advection / diffusion_symbol).square_().flatten(-2)  # (A / D)^2
        energy = energy.flatten(-2)
        reachable = (energy * (squared_ratio > 0)).sum(-1)
        if (target >= reachable).any():
            limit = (reachable / (1 - reachable).clamp(min=1e-300)).sqrt().min()
            raise ValueError(
                f"advection ratio: expected at most {limit:.3g} for this source and flow direction, got "
                f"{ratio.max():.3g}; turn the flow or lower the ratio"
            )
        log_low = torch.full_like(target, -30.0)
        log_high = torch.full_like(target, 30.0)
        # Start where the mode of average diffusivity over advection would have the asked ratio.
        log_speed = torch.log(ratio) - 0.5 * torch.log((energy * squared_ratio).sum(-1))
        for _ in range(_ROOT_ITERATIONS):
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
            if ((newton - log_speed).abs() < _LAST_STEP).all():
                return torch.exp(newton)
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
        _check_positive_definite(coefficients[..., :3], self.name)

    @property
    def feature_names(self):
        return (*_DIFFUSION_FEATURES, "advection_x", "advection_y")

    def features(self, coefficients):
        kappa = (coefficients[..., :1] + coefficients[..., 1:2]) / 2
        advection = coefficients[..., 3:] / (2 * torch.pi * kappa)
        return torch.cat([_diffusion_features(coefficients[..., :3]), advection], dim=-1)

    def scale(self, coefficients):
        kappa = (coefficients[..., 0] + coefficients[..., 1]) / 2
        speed = torch.linalg.vector_norm(coefficients[..., 3:], dim=-1)
        return 4 * torch.pi**2 * kappa + 2 * torch.pi * speed


class Helmholtz(System):
    """SYS-3, ``-0.01 lap u - omega u = f``; dial: omega, drawn as a whole number.

    The paper prints ``-lap u + omega u = f``, which is coercive and never oscillates; its released code, and so each of
    its figures, solves the oscillating operator above, and so do we.
    """

    name = "helmholtz"
    label = "SYS-3"
    equation = r"-d\,\Delta u - \omega u = f"
    coefficient_names = ("diffusivity", "omega")
    dial_name = "wavenumber"
    zero_mean = False
    integer_dial = True
    max_solution = 2.0

    def symbol(self, coefficients, n):
        kx, ky = wavenumbers(n, dtype=coefficients.dtype, device=coefficients.device)
        diffusivity, omega = coefficients[..., 0, None, None], coefficients[..., 1, None, None]
        return 4 * torch.pi**2 * diffusivity * (kx**2 + ky**2) - omega

    def dial(self, source, coefficients):
        return coefficients[..., 1]

    def coefficients(self, dial, source, parameters):
        return torch.stack([torch.full_like(dial, DIFFUSIVITY), dial], dim=-1)

    def check_coefficients(self, coefficients):
        if not (coefficients[..., 0] > 0).all():
            raise ValueError("coefficients: helmholtz expects a diffusivity above 0")

    @property
    def shared_names(self):
        return ("k11", "k22", "k12", "omega")

    def shared(self, coefficients):
        diffusivity, omega = coefficients.unbind(-1)
        return torch.stack([diffusivity, diffusivity, torch.zeros_like(omega), omega], dim=-1)

    @property
    def feature_names(self):
        return (*_DIFFUSION_FEATURES, "resonance")

    def features(self, coefficients):
        """An isotropic K, and omega / (4 pi^2 d), the squared wavenumber |k|^2 that resonates."""
        diffusivity, omega = coefficients.unbind(-1)
        zero = torch.zeros_like(omega)
        return torch.stack([zero, zero, zero + 1, omega / (4 * torch.pi**2 * diffusivity)], dim=-1)

    def scale(self, coefficients):
        return 4 * torch.pi**2 * coefficients[..., 0]


SYSTEMS: dict[str, System] = {system.name: system for system in (Poisson(), AdvectionDiffusion(), Helmholtz())}
"""The known systems by name. Register a new one with ``SYSTEMS["name"] = NewSystem()``."""


def find_system(name: str) -> System:
    """System by its name (``poisson``) or label (``SYS-1``).

    Raises:
        ValueError: if there is none.
    """
    for system in SYSTEMS.values():
        if name.strip().lower() in (system.name.lower(), system.label.lower()):
            return system
    known = ", ".join(f"{system.name} ({system.label})" for system in SYSTEMS.values())
    raise ValueError(f"system: expected one of {known}, got {name!r}")
