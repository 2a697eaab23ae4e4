"""Fields as vectors of the Fourier modes that a grid resolves, for Krylov methods in Fourier space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sciml_fm_core.eager import cached_tensors

from .spectral import derivative_wavenumbers, inverse_transform, parseval_weights, transform


@dataclass(frozen=True)
class ResolvedModes:
    """The modes of n x n points but the mean and those at the Nyquist wavenumber, which first derivatives lose.

    A vector holds real and imaginary parts, shape (..., n, n // 2 + 1, 2), scaled so that the inner product of two
    vectors is ``n^2`` times the sum over the points of the product of the fields.

    Attributes:
        n: points in each direction.
        left_out: mask of the other modes, shape (n, n // 2 + 1); what follows is 0 there.
        waves: ``2 pi k`` along x and y, shape (2, n, n // 2 + 1).
        weights: square roots of Parseval's weights, and inverse_weights, their inverses, shape (n, n // 2 + 1, 2).
        laplacian: ``4 pi^2 |k|^2``, and inverse_laplacian, shape (n, n // 2 + 1, 2): for real and imaginary part.
        derivatives: ``2 pi i k`` of what a vector holds, along x and y, shape (2, n, n // 2 + 1).
        divergences: ``2 pi i k`` of a spectrum, along x and y, to what a vector holds.

    >>> field = torch.cos(2 * torch.pi * torch.arange(8) / 8).expand(8, 8)
    >>> modes = ResolvedModes.of(field)
    >>> torch.allclose(modes.field(modes.vector(field)), field, atol=1e-6)
    True
    """

    n: int
    left_out: Tensor
    waves: Tensor
    weights: Tensor
    inverse_weights: Tensor
    laplacian: Tensor
    inverse_laplacian: Tensor
    derivatives: Tensor
    divergences: Tensor

    @classmethod
    def of(cls, field: Tensor) -> ResolvedModes:
        """The modes for fields of the grid, precision and device of one, (..., n, n)."""
        return _modes(field.shape[-1], field.dtype, field.device)

    def vector(self, field: Tensor) -> Tensor:
        """Vector of a field (..., n, n)."""
        return torch.view_as_real(transform(field)).mul_(self.weights)

    def field(self, vector: Tensor) -> Tensor:
        """Field (..., n, n) of a vector."""
        return inverse_transform(torch.view_as_complex(vector * self.inverse_weights), self.n)

    def gradient(self, vector: Tensor) -> Tensor:
        """Derivatives along x and y, shape (..., 2, n, n), of the field of a vector."""
        return inverse_transform(torch.view_as_complex(vector).unsqueeze(-3) * self.derivatives, self.n)

    def divergence(self, flux: Tensor) -> Tensor:
        """Vector of the divergence of fields (..., 2, n, n)."""
        along_x, along_y = transform(flux).unbind(-3)
        return torch.view_as_real((along_x * self.divergences[0]).addcmul_(along_y, self.divergences[1]))


@cached_tensors(maxsize=16)
def _modes(n: int, dtype: torch.dtype, device: torch.device) -> ResolvedModes:
    """Computed once in float64, outside any graph."""
    kx, ky = derivative_wavenumbers(n, device="cpu")
    waves = 2 * torch.pi * torch.stack(torch.broadcast_tensors(kx, ky))
    left_out = torch.zeros(n, n // 2 + 1, dtype=torch.bool, device="cpu")
    left_out[0, 0] = left_out[n // 2] = left_out[:, n // 2] = True
    waves = waves.masked_fill(left_out, 0)
    weights = parseval_weights(n, device="cpu").sqrt().expand(n, -1)
    laplacian = waves.square().sum(0)

    def on_parts(values: Tensor) -> Tensor:
        return values.masked_fill(left_out, 0)[..., None].repeat(1, 1, 2).to(device, dtype)

    kind = torch.complex128 if dtype == torch.float64 else torch.complex64
    derivatives, divergences = ((1j * waves * factor).to(device, kind) for factor in (1 / weights, weights))
    return ResolvedModes(
        n,
        left_out=left_out.to(device),
        waves=waves.to(device, dtype),
        weights=on_parts(weights),
        inverse_weights=on_parts(1 / weights),
        laplacian=on_parts(laplacian),
        inverse_laplacian=on_parts(1 / laplacian),
        derivatives=derivatives,
        divergences=divergences,
    )
