"""The symbol that an operator has learned: what it makes of each Fourier mode, beside what the equation does."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sciml_fm_core.models.operator import Operator
from sciml_fm_core.physics.spectral import check_finite, check_grid, resample
from sciml_fm_core.physics.spectral_system import spectral
from sciml_fm_core.physics.system import System

RESOLUTION = 64
"""Points in each direction where neither a resolution nor a source is given."""
CHUNK_POINTS = 2**17
"""Grid points of the waves along which derivatives are taken at once; half or twice as many make no difference."""
HELD_POINTS = 2**21
"""Grid points of the responses that are held at once."""


@dataclass(frozen=True)
class LearnedSymbol:
    """Response of an operator to Fourier modes ``exp(2 pi i k . x)``, one entry for each of m wavevectors.

    Attributes:
        wavevectors: integers k = (kx, ky), shape (m, 2).
        gain: complex amplitude of the response in the same mode, shape (m,), complex128; a solution per source.
        exact: that of the equation, ``1 / symbol(k)``; 0 in a mode that it annihilates, which the solver removes.
        leak: norm of the response in all other modes over the norm of the whole response, shape (m,), between 0 and 1;
            NaN where there is no response.
    """

    wavevectors: Tensor
    gain: Tensor
    exact: Tensor
    leak: Tensor

    @property
    def shell(self) -> Tensor:
        """|k| rounded to a whole number, shape (m,), as `energy_spectrum` counts."""
        return torch.hypot(*self.wavevectors.double().unbind(-1)).round().long()

    @property
    def ratio(self) -> Tensor:
        """``gain / exact``, shape (m,): 1 where the mode is learned; NaN where the equation annihilates it."""
        return torch.where(self.exact == 0, torch.nan, self.gain / self.exact)

    @property
    def phase_error(self) -> Tensor:
        """Angle of the `ratio` in degrees, shape (m,), in (-180, 180]; of a flow, how far a wave is carried wrongly."""
        return torch.rad2deg(self.ratio.angle())


def half_plane(max_wavenumber: int, *, per_shell: int | None = None) -> Tensor:
    """Integer wavevectors (kx, ky) with ``0 < |k| < max_wavenumber + 1/2``, one of each pair k and -k.

    The derivative of a real map has the conjugate gain on -k, so half of the plane says everything.

    >>> half_plane(1).tolist()
    [[1, 0], [1, 1], [0, 1], [-1, 1]]

    Args:
        max_wavenumber: the last shell, at least 1.
        per_shell: at most so many of each shell, in directions spread over the half turn; all of them where None.

    Returns:
        Shape (m, 2), int64, by shell and by angle.

    Raises:
        ValueError: if a number is below 1.
    """
    if max_wavenumber < 1 or (per_shell is not None and per_shell < 1):
        raise ValueError(
            f"half plane: expected max_wavenumber and per_shell of at least 1, got {max_wavenumber} and {per_shell}"
        )
    line = torch.arange(-max_wavenumber, max_wavenumber + 1, device="cpu")
    ky, kx = torch.meshgrid(line, line, indexing="ij")
    upper = (ky > 0) | ((ky == 0) & (kx > 0))
    shells: list[list[tuple[float, int, int]]] = [[] for _ in range(max_wavenumber)]
    for x, y in zip(kx[upper].tolist(), ky[upper].tolist(), strict=True):
        if (shell := round(math.hypot(x, y))) <= max_wavenumber:
            shells[shell - 1].append((math.atan2(y, x), x, y))
    chosen = []
    for members in map(sorted, shells):
        count = min(per_shell or len(members), len(members))
        chosen += [members[i * len(members) // count][1:] for i in range(count)]
    return torch.tensor(chosen, device="cpu")


def at_wavevectors(multiplier: Tensor, wavevectors: Tensor) -> Tensor:
    """Values of a Fourier multiplier at wavevectors (kx, ky), shape (m,), complex128.

    A real field has conjugate coefficients at k and -k, of which a real transform stores one.

    >>> from sciml_fm_core.physics.spectral import wavenumbers
    >>> kx, ky = wavenumbers(8)
    >>> at_wavevectors(kx + 1j * ky, torch.tensor([[2, -1], [-2, 1]])).tolist()
    [(2-1j), (2+1j)]

    Args:
        multiplier: on the modes of a real transform, shape (n, n // 2 + 1), or one for each wavevector, (m, ...).
        wavevectors: integers below the Nyquist wavenumber, shape (m, 2).
    """
    n, (kx, ky) = multiplier.shape[-2], wavevectors.unbind(-1)
    mirrored = kx < 0
    own = [torch.arange(multiplier.shape[0], device=multiplier.device)] * (multiplier.ndim - 2)
    value = multiplier[(*own, torch.where(mirrored, -ky, ky) % n, kx.abs())].to(torch.complex128)
    return torch.where(mirrored, value.conj(), value)


@torch.no_grad()
def learned_symbol(
    operator: Operator,
    system: System | str | None,
    coefficients: Tensor,
    *,
    max_wavenumber: int = 10,
    wavevectors: Tensor | None = None,
    source: Tensor | None = None,
    resolution: int | None = None,
) -> LearnedSymbol:
    """Gain, phase and leak of an operator on Fourier modes: its derivative with respect to the source, mode by mode.

    With ``e_k(x) = exp(2 pi i k . x)`` and D G the derivative of the operator G at a source, the response to a mode is
    ``r = D G[cos] + i D G[sin]`` of cosine and sine of ``2 pi k . x``: a derivative is linear, so it has a value for a
    complex wave though G takes real ones. The gain is ``<e_k, r>``, of the exact solver ``1 / symbol(k)``, and the leak
    ``||r - gain e_k|| / ||r||``, of a linear equation with constant coefficients 0.

    A network is told the source divided by its size, so that ``G(a f) = a G(f)`` for a > 0 (with the paper's
    normalisation it has to learn that). At a source of zero such a map has a derivative in one direction at a time,
    ``lim G(h w) / h = G(w)``, which is the response to the wave itself. So without a source, r is ``G(cos) + i G(sin)``
    of waves of amplitude 1: what the network makes of a pure wave. That is no linear function of the wave: its leak is
    a mean and harmonics. With a source, D G is the true derivative there, by forward differentiation, and the waves
    ride on a source such as the network may know from its training.

    >>> from sciml_fm_core import load_operator
    >>> coefficients = torch.tensor([0.01, 0.03, 0.0])
    >>> found = learned_symbol(load_operator("sys-1"), "poisson", coefficients, max_wavenumber=1, resolution=32)
    >>> bool(((found.ratio - 1).abs() < 0.2).all())
    True

    Args:
        operator: what to ask; it knows the system.
        system: the PDE, or its name; may be None for an operator of one system.
        coefficients: of the system, shape (c,).
        max_wavenumber: the modes of `half_plane` are taken up to this, where no others are named.
        wavevectors: integers (kx, ky), shape (m, 2), below the Nyquist wavenumber, where a sine has no values on the
            grid. The zero mode is allowed where the equation keeps the mean.
        source: f to linearise about, shape (n, n); zero where None.
        resolution: points in each direction, even; those of the source where None, or 64. The source is resampled.

    Returns:
        A `LearnedSymbol`, on the CPU.

    Raises:
        ValueError: on wavevectors that the grid does not resolve, wrong shapes or values that are not finite, or if the
            operator was not trained for the system.

    Source:
        The analysis of a method by what it makes of one wave is von Neumann's (Charney, Fjortoft & von Neumann 1950).
    """
    known = operator.normalization.resolve(system)
    if source is not None:
        if source.ndim != 2:
            raise ValueError(f"source: expected one of shape (n, n), got {tuple(source.shape)}; pass one at a time")
        check_grid(source, "source")
        check_finite(source, "source")
        source = source.detach().double().cpu()
        source = resample(source, resolution or len(source)) if source.any() else None
    n = resolution or RESOLUTION if source is None else len(source)
    modes = half_plane(max_wavenumber) if wavevectors is None else wavevectors.cpu()
    _check_wavevectors(modes, n, known)
    if coefficients.ndim != 1:
        raise ValueError(f"coefficients: expected shape (c,), got {tuple(coefficients.shape)}; pass one row at a time")
    coefficients = coefficients.detach().double().cpu()
    known.check(torch.zeros(n, n, dtype=torch.float64, device="cpu"), coefficients)

    multiplier = spectral(known).solution_multiplier(coefficients, n)[0]
    found = []
    for part in modes.split(max(1, HELD_POINTS // (2 * n**2))):
        response = _response(operator, known, coefficients, part, source, n)
        found.append(projected(response, part))
    gain, leak = (torch.cat(column) for column in zip(*found, strict=True))
    return LearnedSymbol(modes, gain, at_wavevectors(multiplier, modes), leak)


def _check_wavevectors(wavevectors: Tensor, n: int, system: System) -> None:
    if wavevectors.ndim != 2 or wavevectors.shape[-1] != 2 or not len(wavevectors) or wavevectors.is_floating_point():
        raise ValueError(
            f"wavevectors: expected whole numbers (kx, ky) of shape (m, 2), got {tuple(wavevectors.shape)} of "
            f"{wavevectors.dtype}; half_plane(10) makes some"
        )
    if (largest := int(wavevectors.abs().max())) >= n // 2:
        raise ValueError(
            f"wavevectors: expected less than the Nyquist wavenumber {n // 2} of {n} points in each direction, "
            f"got {largest}; use a finer grid"
        )
    if system.zero_mean and not wavevectors.any(dim=-1).all():
        raise ValueError(f"wavevectors: {system.name} expects sources of zero mean, got (0, 0); leave that mode out")


def real_waves(wavevectors: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of ``2 pi k . x`` for wavevectors (m, 2), each of shape (m, n, n), float64."""
    points = 2 * torch.pi * torch.arange(n, dtype=torch.float64, device="cpu") / n
    kx, ky = wavevectors.double()[..., None, None].unbind(1)
    angle = kx * points + ky * points[:, None]
    return angle.cos(), angle.sin()


def _response(
    operator: Operator, system: System, coefficients: Tensor, wavevectors: Tensor, source: Tensor | None, n: int
) -> Tensor:
    """Responses to the modes, shape (m, n, n), complex128."""
    waves = torch.cat(real_waves(wavevectors, n))

    def predict(field: Tensor) -> Tensor:
        return operator.predict(field, coefficients, system)

    if source is None:
        response = predict(waves)
    else:
        # All waves share one source, which runs through the network once for each chunk.
        along = torch.func.vmap(
            lambda wave: torch.func.jvp(predict, (source,), (wave,))[1], chunk_size=max(1, CHUNK_POINTS // n**2)
        )
        with sdpa_kernel(SDPBackend.MATH):  # faster attention has no forward derivative
            response = along(waves)
    cosine, sine = response.double().chunk(2)
    # The sine of the mode k = 0 is no source: a network may give it a constant, but nothing answers to nothing.
    return torch.complex(cosine, sine * wavevectors.any(dim=-1)[:, None, None])


def projected(response: Tensor, wavevectors: Tensor) -> tuple[Tensor, Tensor]:
    """Gain and leak of complex responses (m, n, n) to the modes of wavevectors (m, 2), which are whole numbers."""
    n = response.shape[-1]
    amplitudes, lines = torch.fft.fft2(response, norm="forward"), torch.arange(n, device=response.device)
    kx, ky = (wavevectors % n)[..., None].unbind(1)
    mode = (lines == ky)[:, :, None] & (lines == kx)[:, None]
    gain = torch.where(mode, amplitudes, 0).sum((-2, -1))
    # What is left is summed up by itself: as a difference, a small leak would be rounding.
    others = torch.linalg.vector_norm(torch.where(mode, 0, amplitudes).abs(), dim=(-2, -1))
    return gain, others / torch.hypot(gain.abs(), others)
