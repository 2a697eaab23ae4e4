"""Diffusion tensors: what Poisson's equation and advection-diffusion share."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from .parameter import Parameter
from .spectral import (
    derivative_wavenumbers,
    laplacian,
    power_of_two,
    wavenumbers,
)

DIFFUSIVITY = 0.01
"""Smallest eigenvalue of the diffusion tensor in every task of the paper."""

FULL_TURN = 2 * torch.pi

FLOW_DIRECTION = Parameter("flow direction", 0, FULL_TURN, start=math.radians(20), help="Direction of v.", angle=True)

PRINCIPAL_AXIS = Parameter(
    "principal axis",
    0,
    FULL_TURN,
    start=math.radians(30),
    help="Turns the diffusion tensor.",
    angle=True,
    period=math.pi,  # K has an axis, not a direction
)


def rotated_diffusion(eigenvalue: Tensor, angle: Tensor) -> Tensor:
    """Diffusion tensor ``K = 0.01 R(t)^T diag(1, e) R(t)`` as components ``k11 k22 k12``, shape (..., 3)."""
    c, s = torch.cos(angle), torch.sin(angle)
    components = (c**2 + eigenvalue * s**2, s**2 + eigenvalue * c**2, (eigenvalue - 1) * s * c)
    return DIFFUSIVITY * torch.stack(components, dim=-1)


def diffusion_symbol(tensor: Tensor, n: int) -> Tensor:
    """Symbol of -div(K grad .): ``4 pi^2 (K11 kx^2 + K22 ky^2 + 2 K12 kx ky)``, the cross term without Nyquist."""
    kx, ky = wavenumbers(n, dtype=tensor.dtype, device=tensor.device)
    dx, dy = derivative_wavenumbers(n, dtype=tensor.dtype, device=tensor.device)
    k11, k22, k12 = (4 * torch.pi**2 * tensor[..., i, None, None] for i in range(3))
    return torch.addcmul(k11 * kx**2 + k22 * ky**2, 2 * k12 * dy, dx)


def mean_diffusion(tensor: Tensor, n: int) -> Tensor:
    """``4 pi^2 kappa |k|^2`` with kappa = (K11 + K22) / 2 in float64, the mean mode counted with those of |k| = 1.

    As a preconditioner it uses the mean diffusivity alone: neither how K is turned, nor how unequal its eigenvalues
    are, nor a velocity.
    """
    kappa = (tensor[..., 0] + tensor[..., 1]).double() / 2
    return kappa[..., None, None] * laplacian(n, like=kappa).clamp(min=4 * torch.pi**2)


def elliptic_bounds(tensor: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """``4 pi^2 |k|^2`` times the smaller and the larger eigenvalue of K, between which `diffusion_symbol` is.

    Shapes (..., n, n // 2 + 1). On the Nyquist modes too: without the cross term it is a mean of K11 and K22, which
    are between the eigenvalues. Where these differ by orders of magnitude the symbol of a wave across the principal
    axis is a difference of nearly equal terms, as the smaller one is here: each has the rounding of the larger.
    """
    k11, k22, k12 = tensor.unbind(-1)
    mean, radius = (k11 + k22) / 2, eigenvalue_radius(k11, k22, k12)
    rounding = 8 * torch.finfo(tensor.dtype).eps * mean
    smallest, largest = (mean - radius - rounding).clamp(min=0), mean + radius + rounding
    squared = laplacian(n, like=tensor)
    return smallest[..., None, None] * squared, largest[..., None, None] * squared


def eigenvalue_radius(k11: Tensor, k22: Tensor, k12: Tensor) -> Tensor:
    """Half the difference of the eigenvalues of K. Its gradient is 0 where they are equal; that of hypot is NaN there.

    >>> eigenvalue_radius(*torch.tensor([0.05, 0.01, 0.0])).item()
    0.019999999552965164
    """
    half = (k11 - k22) / 2
    equal = (half == 0) & (k12 == 0)
    return torch.hypot(half.masked_fill(equal, 1), k12).masked_fill(equal, 0)


def check_positive_definite(tensor: Tensor, name: str) -> None:
    tensor = tensor.double()
    k11, k22, k12 = (tensor / power_of_two(tensor.abs().amax(dim=-1, keepdim=True))).unbind(-1)
    if not ((k11 > 0) & (k22 > 0) & (k11 * k22 > k12**2)).all():
        raise ValueError(
            f"coefficients: {name} expects a positive definite diffusion tensor (k11 > 0, k11 k22 > k12^2); "
            "got one that is not"
        )


def diffusion_features(tensor: Tensor) -> Tensor:
    """Shape of K apart from its size: ``(K11 - K22) / 2 kappa, K12 / kappa, sqrt(det K) / kappa``."""
    k11, k22, k12 = (tensor / power_of_two(tensor[..., :1] + tensor[..., 1:2])).unbind(-1)
    kappa = (k11 + k22) / 2
    det = (k11 * k22 - k12**2).clamp(min=0)
    return torch.stack([(k11 - k22) / 2 / kappa, k12 / kappa, det.sqrt() / kappa], dim=-1)


DIFFUSION_FEATURES = ("anisotropy_axis", "anisotropy_diagonal", "isotropy")


def tensor_in_latex(coefficients: Mapping[str, float]) -> str:
    """K with its values."""
    k11, k22, k12 = (f"{coefficients[name]:.3g}" for name in ("k11", "k22", "k12"))
    return rf"K = \begin{{pmatrix}} {k11} & {k12} \\ {k12} & {k22} \end{{pmatrix}}"
