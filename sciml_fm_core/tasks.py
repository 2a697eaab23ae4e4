"""Tasks, written ``SYS-1(1,5)``: a system, the range of its dial, the sparsity of its sources; and their sampling."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .sources import SIGMA, draw_amplitudes, lattice_profiles, normalize, render
from .spectral import resample
from .systems import SYSTEMS, System, find_system

SPARSITIES = (0.2, 0.4, 0.6, 0.8)
"""Sparsities of the sources, in equal shares: example i has sparsity number i mod 4, so any prefix is balanced."""

MAX_REDRAWS = 200

RESOLVED = round(1.75 / SIGMA)
"""Points that resolve a random source: at their Nyquist wavenumber, 7 / 8 sigma, a Gaussian of standard deviation sigma
has fallen to exp(-2 pi^2 (7 / 8)^2) = 3e-7 of its mean, its solution to far less. In float32, finer grids are solved on
this one and interpolated."""

_CHUNK = 2**21  # points of the examples made at a time on a CPU: what they need stays in its last cache

# The C library of Linux keeps freed memory up to twice the largest block (of at most 32 MiB) freed so far. Without one
# that large, the memory of each batch goes back to the system, and clearing it anew takes as long as the sampling.
torch.empty(31 << 20, dtype=torch.uint8, device="cpu")

_PLUS = re.compile(r"(?<=\))\s*\+")  # not the one of 1e+06
_LABEL = re.compile(r"\s*([A-Za-z][\w-]*)\s*\(\s*([-+.\deE]+)\s*,\s*([-+.\deE]+)\s*\)\s*")


class Examples(NamedTuple):
    """A batch of solved examples of one system.

    ``source`` and ``solution`` have shape (count, n, n), ``coefficients`` (count, c), ``dial`` (count,).
    """

    source: Tensor
    coefficients: Tensor
    solution: Tensor
    dial: Tensor

    def to(self, device: torch.device | str) -> Examples:
        """The same examples on another device."""
        return Examples(*(tensor.to(device) for tensor in self))

    def take(self, index) -> Examples:
        """The examples at a slice or index tensor."""
        return Examples(*(tensor[index] for tensor in self))

    def resampled(self, n: int) -> Examples:
        """The same examples on n x n points, see `spectral.resample`."""
        if n == self.source.shape[-1]:
            return self
        return Examples(resample(self.source, n), self.coefficients, resample(self.solution, n), self.dial)

    @property
    def size(self) -> int:
        """Number of examples (``len`` is that of the tuple)."""
        return self.source.shape[0]


@dataclass(frozen=True)
class Task:
    """Examples of one system with the dial drawn uniformly in [low, high].

    Attributes:
        system: the PDE.
        low, high: range of the dial; whole numbers, both included, where the system's dial is one.
        sparsities: probabilities that a Gaussian is absent, in equal shares.
        reject: apply the sampler's rule of the system (SYS-3: redraw while ``max |u| > 2``). It shapes the data and is
            no property of the equation: `System.solve` never applies it.
    """

    system: System
    low: float
    high: float
    sparsities: tuple[float, ...] = field(default=SPARSITIES)
    reject: bool = True

    def __post_init__(self):
        if not self.low <= self.high:
            raise ValueError(f"task {self.label}: expected low <= high, got {self.low:g} > {self.high:g}; swap them")
        if not (self.low > 0 and self.high < float("inf")):
            raise ValueError(f"task {self.label}: expected a finite range above 0")
        if self.system.integer_dial and not (float(self.low).is_integer() and float(self.high).is_integer()):
            raise ValueError(f"task {self.label}: {self.system.dial_name} is drawn as a whole number; round the range")
        if self.system.dial_name == "eigenvalue" and self.low < 1:
            raise ValueError(f"task {self.label}: the eigenvalue is a ratio to the smaller one, at least 1")
        if not self.sparsities or not all(0 <= s <= 1 for s in self.sparsities):
            raise ValueError(f"sparsities: expected probabilities in [0, 1], got {self.sparsities}")

    @property
    def label(self) -> str:
        """The paper's name of the task, such as ``SYS-1(1,5)``."""
        return f"{self.system.label}({self.low:.15g},{self.high:.15g})"

    @classmethod
    def parse(cls, label: str) -> Task:
        """Task from a label such as ``SYS-1(1,5)`` or ``poisson(1,5)``.

        Raises:
            ValueError: if the text is not of that form, the system is unknown or the range reversed.
        """
        match = _LABEL.fullmatch(label)
        try:
            if match is None:
                raise ValueError
            low, high = float(match[2]), float(match[3])
        except ValueError:
            known = ", ".join(system.label for system in SYSTEMS.values())
            raise ValueError(
                f"task: expected SYSTEM(low,high) such as 'SYS-1(1,5)', with a system of {known}; got {label!r}"
            ) from None
        return cls(find_system(match[1]), low, high)

    def sample(
        self,
        count: int,
        resolution: int = 128,
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> Examples:
        """Draw and solve examples.

        Args:
            count: number of examples.
            resolution: points in each direction, even.
            generator: source of randomness. The numbers are drawn on its device, whatever `device` is.
            dtype: float32 or float64. The numbers drawn do not depend on it, nor on the resolution.
            device: where the examples are made; the generator's device by default.

        Returns:
            `Examples` (source, coefficients, solution, dial).

        Raises:
            ValueError: if the count or the resolution is not positive, no generator is given, or the rejection rule
                turns nearly every draw away.
        """
        return self.sample_counted(count, resolution, generator, dtype=dtype, device=device)[0]

    def sample_counted(
        self,
        count: int,
        resolution: int = 128,
        generator: torch.Generator | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> tuple[Examples, int]:
        """`sample`, and the number of draws it took: count / draws is the acceptance rate of the rejection rule."""
        if count < 1:
            raise ValueError(f"count: expected at least 1, got {count}")
        check_resolution(resolution)
        if generator is None:
            raise ValueError("generator: expected a torch.Generator; pass torch.Generator().manual_seed(seed)")
        device = torch.device(device or generator.device)
        shares = torch.tensor(self.sparsities, dtype=torch.float32)
        sparsity = shares[torch.arange(count) % len(shares)]
        examples, draws = self._draw(sparsity, resolution, generator, dtype, device), count
        limit = self.system.max_solution if self.reject else None
        if limit is None:
            return examples, draws
        refused, drawn = torch.arange(count, device=device), examples
        for _ in range(MAX_REDRAWS):
            largest, smallest = drawn.solution.amax(dim=(-2, -1)), drawn.solution.amin(dim=(-2, -1))
            refused = refused[torch.maximum(largest, -smallest) > limit]
            if not len(refused):
                return examples, draws
            drawn = self._draw(sparsity[refused.cpu()], resolution, generator, dtype, device)
            draws += len(refused)
            for tensor, replacement in zip(examples, drawn, strict=True):
                tensor[refused] = replacement
        raise ValueError(
            f"task {self.label}: after {MAX_REDRAWS} rounds {len(refused)} of {count} examples still exceed max |u| = "
            f"{limit:g}; choose another range, or Task(..., reject=False)"
        )

    def _draw(self, sparsity: Tensor, n: int, generator: torch.Generator, dtype, device: torch.device) -> Examples:
        count, system = len(sparsity), self.system
        amplitudes = draw_amplitudes(sparsity, generator).to(device, dtype)
        uniform = torch.rand(
            count, 1 + len(system.parameters), generator=generator, device=generator.device, dtype=torch.float64
        )
        if system.integer_dial:
            dial = self.low + torch.floor(uniform[:, 0] * (self.high - self.low + 1))
        else:
            dial = self.low + uniform[:, 0] * (self.high - self.low)
        ranges = torch.tensor([(p.low, p.high - p.low) for p in system.parameters], dtype=torch.float64).view(-1, 2)
        ranges = ranges.to(uniform.device)
        parameters = (ranges[:, 0] + uniform[:, 1:] * ranges[:, 1]).to(device)
        dial = dial.to(device)
        shapes = (n, n), (len(system.coefficient_names),), (n, n), ()
        examples = Examples(*(torch.empty(count, *shape, dtype=dtype, device=device) for shape in shapes))
        examples.dial.copy_(dial)
        chunk = max(1, _CHUNK // n**2) if device.type == "cpu" else count
        for part in (slice(start, start + chunk) for start in range(0, count, chunk)):
            self._solve(amplitudes[part], dial[part], parameters[part], examples.take(part))
        return examples

    def _solve(self, amplitudes: Tensor, dial: Tensor, parameters: Tensor, examples: Examples) -> None:
        """Fill in source, coefficients and solution, in place: fresh memory costs as much as the arithmetic."""
        system, (source, coefficients, solution, _) = self.system, examples
        n = source.shape[-1]
        maximum = render(amplitudes, n, out=source).amax(dim=(-2, -1), keepdim=True)
        normalize(source, maximum=maximum, zero_mean=system.zero_mean, out=source)
        # A grid finer than float32 needs is left for one just fine enough: sources and solutions are interpolated by
        # small matrix products, in place of large transforms and symbols.
        m = n if source.dtype == torch.float64 else min(n, RESOLVED)
        resolved = source
        if m < n:
            profiles, refine = _band_limit(n, m, source.dtype, source.device)
            resolved = normalize(profiles.T @ amplitudes @ profiles, maximum=maximum, zero_mean=system.zero_mean)

        coefficients.copy_(system.coefficients(dial, resolved, parameters))
        source_hat = torch.fft.rfft2(resolved)
        inverse = system.inverse_symbol(coefficients, m, source_hat.dtype)

        def evaluate(field_hat: Tensor, out: Tensor) -> Tensor:
            values = torch.fft.irfft2(field_hat, s=(m, m))
            return torch.matmul(refine @ values, refine.T, out=out) if m < n else out.copy_(values)

        if not system.zero_mean and (null := inverse == 0).any():
            # What L cannot produce (a resonant mode) is no part of the example's source either.
            source -= evaluate(torch.where(null, source_hat, 0), torch.empty_like(source))
        evaluate(source_hat * inverse.to(source_hat.dtype), solution)


@lru_cache(maxsize=8)
def _band_limit(n: int, m: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Between n points and m < n: the lattice profiles (12, m) less what m points do not resolve; and the matrix (n, m)
    of trigonometric interpolation."""
    profiles_hat = torch.fft.rfft(lattice_profiles(n))[:, : m // 2]
    points_hat = torch.fft.rfft(torch.eye(m, dtype=torch.float64))[:, : m // 2]
    profiles, refine = torch.fft.irfft(profiles_hat, n=m) * m / n, torch.fft.irfft(points_hat, n=n).T * n / m
    return profiles.to(device, dtype), refine.to(device, dtype).contiguous()


def parse_mixture(label: str) -> list[Task]:
    """Tasks of a mixture written ``SYS-1(1,5) + SYS-2(0.2,1)``; a single task is a mixture of one.

    Raises:
        ValueError: as `Task.parse`.
    """
    return [Task.parse(part) for part in _PLUS.split(label)]


def check_resolution(resolution: int) -> None:
    """Raise ValueError when examples cannot be sampled on this many points."""
    if resolution < 8 or resolution % 2:
        raise ValueError(f"resolution: expected an even number of at least 8, got {resolution}")


PAPER_TASKS: dict[str, dict[str, str]] = {
    "poisson": {
        "pre-training": "SYS-1(1,5)",
        "none": "SYS-1(1,2.5)",
        "mild": "SYS-1(2.5,7.5)",
        "medium": "SYS-1(5,10)",
        "large": "SYS-1(10,20)",
    },
    "advection_diffusion": {
        "pre-training": "SYS-2(0.2,1)",
        "none": "SYS-2(0.2,0.4)",
        "mild": "SYS-2(0.4,1.6)",
        "medium": "SYS-2(1,2)",
        "large": "SYS-2(2,5)",
    },
    "helmholtz": {
        "pre-training": "SYS-3(1,10)",
        "none": "SYS-3(1,5)",
        "medium": "SYS-3(5,12)",
    },
}
"""Pre-training task and downstream shifts by system. The paper's Table 1 prints SYS-2(0.2,0.4) twice; its mild shift is
(0.4,1.6). The range (5,12) of SYS-3 is this project's choice: the paper prints none."""


def shift_of(system: System, value: float, trained: tuple[float, float] | None = None) -> str:
    """Name of the shift at one value of the dial: ``inside`` the pre-training range, ``mild``, ``medium`` or ``large``.

    ``between`` is inside the range too, but between the whole numbers that an integer dial was trained on.

    Outside the range, the distance to its nearer end is compared, on a logarithmic scale, with the upper ends of the
    paper's downstream ranges for SYS-1: 1.5 times the end of the range is mild, 2 times medium, beyond it large.

    Args:
        system: the PDE.
        value: value of the dial.
        trained: pre-training range; the paper's by default.
    """
    low, high = trained or _range(PAPER_TASKS[system.name]["pre-training"])
    if low <= value <= high:
        between = system.integer_dial and not float(value).is_integer()
        return "between" if between else "inside"
    factor = value / high if value > high else low / value
    return "mild" if factor <= 1.5 else "medium" if factor <= 2 else "large"


def _range(label: str) -> tuple[float, float]:
    task = Task.parse(label)
    return task.low, task.high
