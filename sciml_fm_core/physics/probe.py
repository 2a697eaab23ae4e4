"""What an equation promises, tried once at its first use: one that is wrong would give wrong numbers without a word.

A few sources of long waves, with the dial at three values, are solved on two small grids in float64. That takes some
milliseconds, once for each class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Lock, local
from typing import TYPE_CHECKING, Any, TypeGuard
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from sciml_fm_core.eager import is_eager, is_plain

from .spectral import resample

if TYPE_CHECKING:
    from .spectral_system import SpectralSystem
    from .system import System

GRIDS = (16, 8)
TOLERANCE = 1e-3
"""Relative: an equation may be solved in steps of its own."""
KEPT = 0.01
"""How far the dial of coefficients that are stored in float32 may be off, relative."""
_FAULTS: WeakKeyDictionary[type, tuple[str, str]] = WeakKeyDictionary()
_LOCK, _HERE = Lock(), local()


def check_equation(system: System, *, residual: bool = False) -> None:
    """Raise ValueError when an equation contradicts itself; each class is tried once.

    Args:
        system: the equation.
        residual: whether its residual is about to be used, which need not fit a `solve` that a subclass has replaced.
    """
    nothing = getattr(system, "name", None) is None or not system.is_known  # that can be tried
    if nothing or torch.compiler.is_compiling() or getattr(_HERE, "probing", False):
        return
    if type(system) not in _FAULTS:
        with _LOCK:
            if type(system) not in _FAULTS:
                _FAULTS[type(system)] = apart(_faults, system)
    fault, of_residual = _FAULTS[type(system)]
    if fault or (residual and of_residual):
        raise ValueError(f"system {system.name}: {fault or of_residual}; correct {type(system).__name__}")


def apart(function: Callable, *arguments) -> Any:
    """Call a function where no autocast, inference mode, default device or tracing is set: else in another thread."""

    def call():
        _HERE.probing = True
        with torch.no_grad():
            return function(*arguments)

    within = getattr(_HERE, "probing", False)
    if is_eager() and is_plain(torch.device("cpu")):
        try:
            return call()
        finally:
            _HERE.probing = within
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call).result()


@lru_cache(maxsize=4096)
def check_kept(system: System, value: float) -> None:
    """Raise ValueError when coefficients stored in float32 do not keep a value of the dial."""
    try:
        check_equation(system)
    except ValueError:
        return  # what is wrong with the equation is said when it is used
    found = apart(_kept, system, value)
    if isinstance(found, str):
        raise ValueError(found)
    if not abs(found - value) <= KEPT * abs(value):
        raise ValueError(
            f"{system.dial_name}: {value:g} is not kept by coefficients in float32, which are those of {found:g}; "
            "choose another range"
        )


def _kept(system: System, value: float) -> float | str:
    """The value of the dial, of several, that is farthest off; or what is wrong with the coefficients."""
    dial = torch.full((16,), value, dtype=torch.float64)
    try:
        source = _source(system, GRIDS[0], dial)
        kept = system.coefficients(dial, source, _parameters(system, 16)).float()
    except Exception:  # what is wrong is said when it is used
        return value
    try:
        if not torch.isfinite(kept).all():
            raise ValueError("coefficients: too large for float32")
        system.check_coefficients(kept)
        found = system.dial(source.float(), kept).double()
    except ValueError as error:
        return f"{system.dial_name}: {value:g} is not kept in float32 ({error}); choose another range"
    return found[(found - dial).abs().nan_to_num(math.inf).argmax()].item()


def _source(system: System, n: int, dial: Tensor) -> Tensor:
    """Input fields (count, ...) for values of the dial: smooth sources, the same function on each grid, or drawn."""
    count = len(dial)
    own = type(system).draw.__module__ != f"{__package__}.system"
    if own or not _has_symbol(system):
        return system.draw(dial, _parameters(system, count), (n, n), torch.Generator().manual_seed(0)).double()
    random = np.random.default_rng(0)
    source = resample(resample(torch.from_numpy(random.standard_normal((count, 8, 8))), GRIDS[0]), n)
    source = source + (0 if system.zero_mean else 0.5)
    return source - source.mean(dim=(-2, -1), keepdim=True) if system.zero_mean else source


def _has_symbol(system: System) -> TypeGuard[SpectralSystem]:
    return "symbol" in system.declared


def _parameters(system: System, count: int) -> Tensor:
    random = np.random.default_rng(1).uniform(size=(count, len(system.parameters)))
    low, high = (np.array([getattr(p, end) for p in system.parameters]) for end in ("low", "high"))
    return torch.from_numpy(low + random * (high - low))


def _faults(system: System) -> tuple[str, str]:
    """What is wrong with an equation, and what with its residual; empty texts where nothing is."""
    fault, of_residual = _first(_try, system), _first(_try_residual, system)
    ours = (f"{__package__}.system", f"{__package__}.spectral_system")
    names = ("residual", "residual_hat") if _has_symbol(system) else ("residual",)
    own = any(getattr(type(system), name).__module__ not in ours for name in names)
    return fault or (of_residual if own else ""), of_residual


def _first(trial: Callable, system: System) -> str:
    where = ["the equation"]
    try:
        return next(trial(system, where), "")
    except (Exception, SystemExit) as error:  # somebody else's code may raise anything
        return f"{where[0]} raises {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _inputs(system: System, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Source (3, n, n), dial (3,) and coefficients (3, c)."""
    dialled = system.dialled
    dial = torch.from_numpy(dialled.low + np.array([0.21, 0.43, 0.68]) * (dialled.high - dialled.low))
    dial = dial.round() if dialled.whole else dial
    source = _source(system, n, dial)
    return source, dial, system.coefficients(dial, source, _parameters(system, 3))


def _try(system: System, where: list[str]) -> Iterator[str]:
    """Faults one after the other; ``where`` says what is being tried."""
    where[0], n = "inputs and coefficients", GRIDS[0]
    source, dial, coefficients = _inputs(system, n)
    fields = (len(system.inputs),) if len(system.inputs) > 1 else ()
    yield from _wrong("draw", source, (3, *fields, n, n))
    yield from _wrong("coefficients", coefficients, (3, len(system.coefficient_names)))
    system.check_coefficients(coefficients)
    where[0] = "dial"
    yield from _wrong("dial", found := system.dial(source, coefficients), (3,))
    if not _near(found, dial):
        yield f"dial gives {found.tolist()} for the coefficients of {dial.tolist()}"
    if _has_symbol(system):
        yield from _try_symbol(system, coefficients, where)
    where[0] = "features and scale"
    yield from _wrong("scale", scale := system.scale(coefficients), (3,))
    if not (scale > 0).all():
        yield f"scale: expected values above 0, got {scale.tolist()}"
    yield from _wrong("features", system.features(coefficients), (3, len(system.feature_names)))
    where[0] = "solve"
    fields = (len(system.outputs),) if len(system.outputs) > 1 else ()
    yield from _wrong("solve", solution := system.solve(source, coefficients), (3, *fields, n, n), (torch.float64,))
    where[0] = "geometry"
    for element in [each for each in system.symmetries if int(each) in (1, 2, 3, 4, 5)]:
        elements = element.expand(3)
        turned_source = system.turned_fields(source, elements, system.inputs)
        turned = system.turned(coefficients, elements)
        if not _near(system.solve(turned_source, turned), system.turned_fields(solution, elements, system.outputs)):
            yield "its geometry contradicts solve: a turned source does not give the turned solution"
        if not _near(system.dial(turned_source, turned), dial):
            yield "its geometry contradicts dial, which changes as the square is turned"


def _try_symbol(system: SpectralSystem, coefficients: Tensor, where: list[str]) -> Iterator[str]:
    n, coarse = GRIDS
    fields = (len(system.inputs),) if len(system.inputs) > 1 else ()
    where[0] = "symbol"
    symbols = [system.symbol(coefficients, points) for points in GRIDS]
    for symbol, points in zip(symbols, GRIDS, strict=True):
        yield from _wrong("symbol", symbol, (3, *fields, points, points // 2 + 1), (torch.float64, torch.complex128))
        yield from _not_hermitian("symbol", symbol)
    half = coarse // 2
    fine, same = (torch.cat([each[..., :half, :half], each[..., 1 - half :, :half]], -2) for each in symbols)
    if not _near(fine, same, 1e-9):
        yield f"the symbol of the same mode differs between grids of {n} and {coarse} points"
    null = system.symbol_and_null(coefficients, n)[1]
    if system.positive and (symbols[0].is_complex() or (~null & (symbols[0] < 0)).any()):
        yield "the symbol is not above 0, though positive says so"
    where[0] = "symbol_bounds"
    if bounds := system.symbol_bounds(coefficients, n):
        size, (low, high) = symbols[0].abs(), bounds
        if not ((low <= size * (1 + TOLERANCE)) & (size <= high * (1 + TOLERANCE)) | null).all():
            yield "the symbol is not between its symbol_bounds"
    where[0] = "multiplier"
    if system.mode_by_mode:
        multiplier = system.solution_multiplier(coefficients, n)[0]
        yield from _wrong("multiplier", multiplier, (3, n, n // 2 + 1), (torch.float64, torch.complex128))
        yield from _not_hermitian("multiplier", multiplier)


def _try_residual(system: System, where: list[str]) -> Iterator[str]:
    where[0] = "residual"
    if type(system).residual.__qualname__ == "System.residual":
        return
    source, _, coefficients = _inputs(system, GRIDS[0])
    solution = system.solve(source, coefficients)
    left, of_wrong = (system.residual(values, source, coefficients) for values in (solution, 2 * solution))
    yield from _wrong("residual", left, tuple(solution.shape))
    if not left.abs().amax() <= TOLERANCE * source.abs().amax() or not (of_wrong - left).any():
        yield "its residual contradicts solve: it has to be 0 of the solution, and of that alone"


def _wrong(name: str, value: object, shape: tuple[int, ...], dtypes: tuple = ()) -> Iterator[str]:
    if not isinstance(value, Tensor):
        yield f"{name}: expected a tensor, got {type(value).__name__}"
    elif value.shape != shape:
        yield f"{name}: expected shape {shape}, got {tuple(value.shape)}"
    elif not (value.dtype in dtypes if dtypes else value.is_floating_point()):
        expected = " or ".join(str(dtype) for dtype in dtypes) or "real numbers"
        yield f"{name}: expected {expected} for coefficients in float64, got {value.dtype}"
    elif not torch.isfinite(value).all():
        yield f"{name}: expected finite values, got NaN or infinity"


def _not_hermitian(name: str, values: Tensor) -> Iterator[str]:
    """The columns of modes kx = 0 and n / 2, of which ky and -ky are both stored, have to be conjugates."""
    ends = values[..., [0, -1]]
    if not _near(ends, ends.flip(-2).roll(1, -2).conj(), 1e-9):
        yield (
            f"{name}: not Hermitian, so that real fields do not stay real; of an odd derivative the Nyquist mode "
            "is 0, see derivative_wavenumbers"
        )


def _near(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> bool:
    return bool(((found - expected).abs().amax() <= tolerance * expected.abs().amax()).all())
