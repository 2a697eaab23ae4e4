"""Drawing and solving examples of a task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sciml_fm_core.eager import exact_products, is_plain

from .examples import Examples
from .probe import check_equation
from .sources import SIGMA, draw_amplitudes, lattice_profiles, normalize, render
from .spectral import FINEST_GRID, SMALLEST_GRID, Resolution, grid_shape, inverse_transform, sandwich
from .spectral_system import SpectralSystem
from .system import System

if TYPE_CHECKING:
    from .tasks import Task

MAX_REDRAWS = 200

RESOLVED = round(1.75 / SIGMA)
"""Points that resolve a random source: at their Nyquist wavenumber, 7 / 8 sigma, a Gaussian of standard deviation sigma
has fallen to exp(-2 pi^2 (7 / 8)^2) = 3e-7 of its mean, its solution mostly to far less. In float32, examples on
finer grids are solved on this one and interpolated, provided that the shortest waves of the solution are lost in
rounding and that the equation is solved mode by mode."""

SMALLEST_MODE = 2e-7
"""Share of a solution's longest waves at which its shortest ones are lost in the rounding of float32."""

_CHUNK = 2**21  # points of the examples made at a time on a CPU: what they need stays in its last cache


@lru_cache(maxsize=8)
def band_limit(n: int, m: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Between n points and m < n: the lattice profiles (12, m) less what m points do not resolve; and the matrix (n, m)
    of trigonometric interpolation."""
    profiles_hat = torch.fft.rfft(lattice_profiles(n, device="cpu"))[:, : m // 2]
    points_hat = torch.fft.rfft(torch.eye(m, dtype=torch.float64, device="cpu"))[:, : m // 2]
    profiles, refine = torch.fft.irfft(profiles_hat, n=m) * m / n, torch.fft.irfft(points_hat, n=n).T * n / m
    return profiles.to(device, dtype), refine.to(device, dtype).contiguous()


@lru_cache(maxsize=1)
def _keep_freed_memory() -> None:
    """Make the C library of Linux keep freed memory for the next batch: clearing it anew takes as long as sampling.

    It keeps up to twice the largest block (of at most 32 MiB) that was freed so far.
    """
    torch.empty(31 << 20, dtype=torch.uint8, device="cpu")


def check_resolution(resolution: Resolution, system: System | None = None) -> None:
    """Raise ValueError when examples, of a system, cannot be sampled on these points."""
    ny, nx = grid_shape(resolution)
    if system is None or isinstance(system, SpectralSystem):
        if ny != nx or min(ny, nx) < 8 or ny % 2:
            raise ValueError(f"resolution: expected an even number of at least 8, got {resolution}")
    elif min(ny, nx) < SMALLEST_GRID:
        raise ValueError(f"resolution: expected at least {SMALLEST_GRID} points in each direction, got {resolution}")
    if max(ny, nx) > FINEST_GRID:
        raise ValueError(f"resolution: expected at most {FINEST_GRID} points in each direction, got {resolution}")


@contextmanager
def _isolated_from_settings(device: torch.device) -> Iterator[None]:
    """Draw the same numbers whatever the process has set of autocast, inference mode, gradients and default device."""
    if is_plain(device):  # half of a small batch's overhead
        with torch.no_grad():
            yield
        return
    with (
        exact_products(),
        torch.inference_mode(False),
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),
        nullcontext() if torch.get_default_device() == device else device,
    ):
        yield


def draw_accepted(
    task: Task,
    count: int,
    resolution: Resolution,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> tuple[Examples, int]:
    """Examples that the sampler's rule of the system accepts, and the number of draws that they took.

    Raises:
        ValueError: if the rule turns nearly every draw away.
    """
    check_equation(task.system)
    device = torch.device(device or generator.device)
    with _isolated_from_settings(device):
        shares = torch.tensor(task.sparsities, dtype=torch.float32, device="cpu")
        sparsity = shares[torch.arange(count, device="cpu") % len(shares)]
        examples, draws = _draw(task, sparsity, resolution, generator, dtype, device), count
        limit = task.system.max_solution if task.reject else None
        if limit is None:
            return examples, draws
        refused, drawn = torch.arange(count, device=device), examples
        for _ in range(MAX_REDRAWS):
            largest, smallest = drawn.solution.flatten(1).amax(dim=1), drawn.solution.flatten(1).amin(dim=1)
            refused = refused[torch.maximum(largest, -smallest) > limit]
            if not len(refused):
                return examples, draws
            drawn = _draw(task, sparsity[refused.cpu()], resolution, generator, dtype, device)
            draws += len(refused)
            for tensor, replacement in zip(examples, drawn, strict=True):
                tensor[refused] = replacement
    raise ValueError(
        f"task {task.label}: after {MAX_REDRAWS} rounds {len(refused)} of {count} examples still exceed max |u| = "
        f"{limit:g}; choose another range, or Task(..., reject=False)"
    )


def _draw(
    task: Task, sparsity: Tensor, resolution: Resolution, generator: torch.Generator, dtype, device: torch.device
) -> Examples:
    count, system = len(sparsity), task.system
    amplitudes = None
    if isinstance(system, SpectralSystem) and type(system).draw is System.draw:
        amplitudes = draw_amplitudes(sparsity, generator).to(device, dtype)
    uniform = torch.rand(
        count, 1 + len(system.parameters), generator=generator, device=generator.device, dtype=torch.float64
    )
    if system.dialled.whole:
        dial = task.low + torch.floor(uniform[:, 0] * (task.high - task.low + 1))
    else:
        dial = system.dialled.spread(uniform[:, 0], task.low, task.high)
    drawn = [
        p.spread(share, p.low, p.high) for p, share in zip(system.parameters, uniform[:, 1:].unbind(1), strict=True)
    ]
    parameters = torch.stack(drawn, dim=1) if drawn else uniform[:, 1:]
    if not isinstance(system, SpectralSystem) or amplitudes is None:
        source = system.draw(dial, parameters, grid_shape(resolution), generator).to(device, dtype)
        dial, parameters = dial.to(device), parameters.to(device)
        coefficients = system.coefficients(dial, source, parameters).to(dtype)
        return Examples(source, coefficients, system.solve(source, coefficients), dial.to(dtype))
    dial, parameters = dial.to(device), parameters.to(device)
    n = grid_shape(resolution)[0]
    shapes = (n, n), (len(system.coefficient_names),), (n, n), ()
    examples = Examples(*(torch.empty(count, *shape, dtype=dtype, device=device) for shape in shapes))
    examples.dial.copy_(dial)
    if device.type == "cpu":
        _keep_freed_memory()
    chunk = max(1, _CHUNK // n**2) if device.type == "cpu" else count
    for part in (slice(start, start + chunk) for start in range(0, count, chunk)):
        _solve(system, amplitudes[part], dial[part], parameters[part], examples.take(part))
    return examples


def _solve(system: SpectralSystem, amplitudes: Tensor, dial: Tensor, parameters: Tensor, examples: Examples) -> None:
    """Fill in source, coefficients and solution, in place: fresh memory costs as much as the arithmetic."""
    source, coefficients, solution, _ = examples
    n = source.shape[-1]
    maximum = render(amplitudes, n, out=source).amax(dim=(-2, -1), keepdim=True)
    normalize(source, maximum=maximum, zero_mean=system.zero_mean, out=source)
    # A grid finer than float32 needs is left for one just fine enough: sources and solutions are interpolated by
    # small matrix products, in place of large transforms and symbols.
    m = min(n, RESOLVED) if source.dtype == torch.float32 and system.mode_by_mode else n
    resolved = source
    if m < n:
        profiles, refine = band_limit(n, m, source.dtype, source.device)
        resolved = normalize(sandwich(amplitudes, profiles.T), maximum=maximum, zero_mean=system.zero_mean)

    coefficients.copy_(system.coefficients(dial, resolved, parameters))
    if not system.mode_by_mode:
        solution.copy_(system.solve(source, coefficients))
        return
    solution_hat, lost_hat = _modes(system, resolved, coefficients)
    if m < n and not _is_resolved(solution_hat):
        m, (solution_hat, lost_hat) = n, _modes(system, source, coefficients)

    def evaluate(field_hat: Tensor, out: Tensor) -> Tensor:
        values = inverse_transform(field_hat, m)
        return sandwich(values, refine, out=out) if m < n else out.copy_(values)

    if lost_hat is not None:
        source -= evaluate(lost_hat, torch.empty_like(source))
    evaluate(solution_hat, solution)


def _modes(system: SpectralSystem, source: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor | None]:
    """Fourier coefficients of the solution, and those of the source, if any, that L cannot produce.

    What a resonant mode would need is no part of an example's source either.
    """
    source_hat = torch.fft.rfft2(source)
    multiplier, null = system.solution_multiplier(coefficients, source.shape[-1], source_hat.dtype)
    lost_hat = torch.where(null, source_hat, 0) if not system.zero_mean and null.any() else None
    return source_hat.mul_(multiplier.to(source_hat.dtype)), lost_hat


def _is_resolved(solution_hat: Tensor) -> bool:
    """Whether the shortest waves of all solutions are lost in rounding, and with them those that the grid leaves out.

    A resonance of short waves, or an operator that does not damp them, makes solutions of which this is not so.
    """
    last = solution_hat.shape[-1] - 2
    along_x, along_y, longest = (
        np.abs(waves.flatten(1).cpu().numpy()).max(axis=1)  # NumPy: few numbers, of which each call takes longer
        for waves in (solution_hat[:, :, last], solution_hat[:, last], solution_hat[:, :4, :4])
    )
    return bool((np.maximum(along_x, along_y) <= SMALLEST_MODE * longest).all())
