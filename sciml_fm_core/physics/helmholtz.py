"""SYS-3, Helmholtz' equation as the paper's released code solves it."""

from __future__ import annotations

import math
from types import MappingProxyType

import torch

from .diffusion import DIFFUSION_FEATURES, DIFFUSIVITY
from .parameter import Parameter
from .spectral import laplacian
from .spectral_system import SpectralSystem
from .symmetries import Geometry


class Helmholtz(SpectralSystem):
    """SYS-3, ``-0.01 lap u - omega u = f``; dial: omega, drawn as a whole number.

    The paper prints ``-lap u + omega u = f``, which is coercive and never oscillates; its released code, and so each of
    its figures, solves the oscillating operator above, and so do we.
    """

    name = "helmholtz"
    label = "SYS-3"
    title = "Helmholtz"
    equation = r"-d\,\Delta u - \omega u = f"
    coefficient_names = ("diffusivity", "omega")
    dialled = Parameter(
        "wavenumber",
        1,
        15,
        start=4,
        label="Wavenumber ω",
        help="The ω of the equation: the larger, the shorter the waves; the solution grows near a resonance. "
        "Tasks draw whole numbers only.",
        step=0.1,
        whole=True,
    )
    # The paper prints no range outside the pre-training one: (5, 12) is this project's choice.
    shifts = MappingProxyType({"pre-training": (1, 10), "none": (1, 5), "medium": (5, 12)})
    zero_mean = False
    above_zero = ("diffusivity",)
    geometry = Geometry()  # the same in every direction
    max_solution = 2.0

    def symbol(self, coefficients, n):
        diffusivity, omega = coefficients[..., None, None].unbind(-3)
        return diffusivity * laplacian(n, like=coefficients) - omega

    @property
    def resonances(self):
        """``omega = 4 pi^2 d |k|^2``, where |k|^2 is a sum of two squares.

        >>> [round(value, 3) for value in Helmholtz().resonances[:3]]
        [1.579, 1.974, 3.158]
        """
        dial, unit = self.dialled, 4 * math.pi**2 * DIFFUSIVITY
        most = math.isqrt(int(dial.high / unit))
        squares = {i * i + j * j for i in range(most + 1) for j in range(most + 1)}
        return tuple(unit * square for square in sorted(squares) if dial.low <= unit * square <= dial.high)

    def preconditioner(self, coefficients, n):
        """``|4 pi^2 d |k|^2 - omega + omega i / 2|``, a complex-shifted Laplacian (Erlangga, Oosterlee & Vuik 2006).

        It leaves out on which side of a resonance a mode is, and stays away from zero there. At a resonance an error
        leaves next to no residual, so to the modes nearest to one, which dominate a solution, the loss is nearly blind.
        """
        symbol, omega = self.symbol(coefficients.double(), n), coefficients[..., 1, None, None].double()
        return torch.hypot(symbol, omega / 2)

    def symbol_bounds(self, coefficients, n):
        """Continuity, ``H(k) = 4 pi^2 d |k|^2 + |omega|``, and the inf-sup constant: the least ``|symbol| / H``.

        That constant, about the distance of omega to the nearest resonance over 2 omega, is all that is used of how
        near a mode is to one. The symbol of each mode by itself, which is the same in all directions, would be the
        solution. Modes that L annihilates do not count.
        """
        diffusivity, omega = coefficients[..., None, None].unbind(-3)
        high = diffusivity * laplacian(n, like=coefficients) + omega.abs()
        symbol, null = self.symbol_and_null(coefficients, n)
        constant = (symbol.abs() / high).masked_fill(null, torch.inf).amin((-2, -1), keepdim=True)
        return constant * high, high

    def dial(self, source, coefficients):
        return coefficients[..., 1]

    def coefficients(self, dial, source, parameters):
        return torch.stack([torch.full_like(dial, DIFFUSIVITY), dial], dim=-1)

    def on_square(self, source, coefficients, side):
        return source, coefficients / coefficients.new_tensor([side**2, 1])

    @property
    def shared_names(self):
        return ("k11", "k22", "k12", "omega")

    def shared(self, coefficients):
        diffusivity, omega = coefficients.unbind(-1)
        return torch.stack([diffusivity, diffusivity, torch.zeros_like(omega), omega], dim=-1)

    @property
    def feature_names(self):
        return (*DIFFUSION_FEATURES, "resonance")

    def features(self, coefficients):
        """An isotropic K, and omega / (4 pi^2 d), the squared wavenumber |k|^2 that resonates."""
        diffusivity, omega = coefficients.unbind(-1)
        zero = torch.zeros_like(omega)
        return torch.stack([zero, zero, zero + 1, omega / (4 * torch.pi**2 * diffusivity)], dim=-1)

    def scale(self, coefficients):
        return 4 * torch.pi**2 * coefficients[..., 0]

    def equation_with(self, coefficients):
        return rf"-{coefficients['diffusivity']:.3g}\,\Delta u - {coefficients['omega']:.4g}\,u = f"
