"""What an error is made of: by wave, by place in the space of equations, by number of examples.

Pure functions without any display, called off the event loop as those of `compute`. Results are plain values that JSON
can hold; a number that is not there, or not finite, is None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Event
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciml_fm_core.data.splits import stream
from sciml_fm_core.evaluation.errors import error_map, evaluate
from sciml_fm_core.evaluation.metrics import energy_spectrum
from sciml_fm_core.experiments.learned_symbol import at_wavevectors, half_plane, learned_symbol
from sciml_fm_core.physics.sources import draw_amplitudes, normalize, render
from sciml_fm_core.physics.spectral_system import SpectralSystem, spectral
from sciml_fm_core.physics.system import System
from sciml_fm_core.physics.tasks import Task

from .compute import Query, compute, finite, is_drawn_as_gaussians, make_source
from .error_curves import RESOLUTION, SOURCES, coarse_to_fine
from .state import ExploreState

MAX_WAVENUMBER = 12
"""Last shell of a spectrum: the shipped networks keep 16 modes in each direction."""
PER_SHELL = 8
"""Directions of waves that are tried on each shell."""
RESONANT = 10
"""A wave resonates where the exact solution answers it this many times as strongly as it answers a constant."""
ATLAS_SHAPE = 20, 10
"""Values of the dial, and of the second parameter."""
ATLAS_BATCH = 20
"""Points of the atlas that are measured between two looks at whether anybody still wants it."""
CARD_EXAMPLES = 256
"""Test examples of the errors on the cards of fine-tunings that ship."""
SPARSEST = 0.9
"""Where the axis of sparsities ends: of 144 Gaussians, about 14 are left."""


def spectrum(
    query: Query, *, at_source: bool = False, max_wavenumber: int = MAX_WAVENUMBER, per_shell: int = PER_SHELL
) -> dict[str, Any]:
    """What each operator of a query makes of waves of each length, and where the energy of its error lies.

    The symbol is that of `learned_symbol` on a grid of 64 x 64: of pure waves, or linearised at the source of the
    query. Waves that resonate are tried besides those of `half_plane`. Energies are those of the fields of the page.

    Args:
        query: the point of the page.
        at_source: linearise at the source.
        max_wavenumber: the last shell K.
        per_shell: waves of each shell.

    Returns:
        ``wavenumbers`` 1 .. K. By shell: ``exact``, the mean of |1 / symbol|, and ``resonant``, whether a wave
        resonates. ``resonances``, those waves, one of each pair k and -k. ``operators``, by key of the prediction and
        by shell, means over the waves: ``gain`` |learned / exact|, ``phase``, the size of the phase error in degrees,
        ``off`` |learned / exact - 1|, and ``leak``. ``energy``, with its own ``wavenumbers`` 0 .. K: of the exact
        ``solution``, and of the ``errors`` by key, as `energy_spectrum`. And ``system``, ``dial``, ``at_source``.

    Raises:
        ValueError: if the source is empty or the dial cannot be reached with it.
    """
    frame, source = compute(query), make_source(query).double()
    system, shells = spectral(query.system), range(1, max_wavenumber + 1)
    dial, parameters = (torch.tensor(values, dtype=torch.float64) for values in (query.dial, query.parameters))
    # In float64, as those of the frame are not: a wave that resonates tells the difference.
    coefficients = system.coefficients(dial, source, parameters)
    about = source if at_source else None
    waves, resonances = _waves(system, coefficients, max_wavenumber, per_shell)
    multiplier = system.solution_multiplier(coefficients, RESOLUTION)[0]

    def by_shell(values: Tensor, shell: Tensor) -> list[float | None]:
        return _finite(values[shell == number].nanmean().item() for number in shells)

    def energy(field: np.ndarray) -> list[float | None]:
        return _finite(energy_spectrum(torch.from_numpy(field).double())[: max_wavenumber + 1].tolist())

    operators = {}
    for key, load in query.operators.items():
        if load is None:
            continue
        found = learned_symbol(load(), system, coefficients, wavevectors=waves, source=about, resolution=RESOLUTION)
        values = {
            "gain": found.ratio.abs(),
            "phase": found.phase_error.abs(),
            "off": (found.ratio - 1).abs(),
            "leak": found.leak,
        }
        operators[key] = {name: by_shell(value, found.shell) for name, value in values.items()}
    length = _shell(waves)
    resonant = set(_shell(resonances).tolist())
    return {
        "system": system.name,
        "dial": query.dial,
        "at_source": at_source,
        "wavenumbers": list(shells),
        "exact": by_shell(at_wavevectors(multiplier, waves).abs(), length),
        "resonant": [number in resonant for number in shells],
        "resonances": resonances.tolist(),
        "operators": operators,
        "energy": {
            "wavenumbers": list(range(max_wavenumber + 1)),
            "solution": energy(frame.solution),
            "errors": {key: energy(found.error) for key, found in frame.predictions.items() if found is not None},
        },
    }


def _waves(system: SpectralSystem, coefficients: Tensor, max_wavenumber: int, per_shell: int) -> tuple[Tensor, Tensor]:
    """Wavevectors to try, and those among them that resonate."""
    every = half_plane(max_wavenumber)
    strong = answers(system, coefficients, every)[1]
    return every[tried_among(every, max_wavenumber, per_shell) | strong], every[strong]


def tried_among(every: Tensor, max_wavenumber: int = MAX_WAVENUMBER, per_shell: int = PER_SHELL) -> Tensor:
    """Mask of the wavevectors (m, 2) that are tried whether they resonate or not."""
    few = half_plane(max_wavenumber, per_shell=per_shell)
    return (every[:, None] == few).all(dim=-1).any(dim=-1)


def answers(system: SpectralSystem, coefficients: Tensor, waves: Tensor) -> tuple[Tensor, Tensor]:
    """Exact answers to waves (m, 2), and whether they resonate; coefficients (c,), or (m, c) for one row each."""
    multiplier, null = system.solution_multiplier(coefficients, RESOLUTION)
    exact = at_wavevectors(multiplier, waves)
    if system.zero_mean:  # there is no answer to a constant to compare with
        return exact, torch.zeros_like(exact.real, dtype=torch.bool)
    strong = exact.abs() > RESONANT * multiplier[..., 0, 0].abs()
    return exact, strong | (at_wavevectors(null, waves).real > 0)  # exactly at a resonance


def _shell(wavevectors: Tensor) -> Tensor:
    return torch.hypot(*wavevectors.double().unbind(-1)).round().long()


def atlas(
    query: Query, stop: Event, tell: Callable[[dict[str, Any]], None], *, shape: tuple[int, int] = ATLAS_SHAPE
) -> dict[str, Any]:
    """Mean error of each operator of a query over its dial and one thing across it, from coarse to fine.

    Across the dial lies the first of the system's ``parameters``; the others stay where the query has them. Where a
    system has none it is the sparsity of the sources. Every point is the mean over the same few random sources.

    Args:
        query: its system, parameters and operators; its dial and source are not used.
        stop: set from anywhere to end it after the points at hand.
        tell: called in this thread with what is known, as it grows.
        shape: numbers of values along the dial, and across it.

    Returns:
        What was told last: ``dial`` and ``across``, each with ``name``, ``title``, ``values`` and whether it is an
        ``angle``, in radians, or ``logarithmic``; ``errors``, by key of the prediction a row for each value across,
        None where a source cannot reach the dial, or is not ``measured``, which has rows of booleans; ``fraction`` of
        the points that were measured.
    """
    system, (columns, rows) = query.system, shape
    across = _across(system, rows)
    rows = len(across["values"])
    operators = {key: load() for key, load in query.operators.items() if load}
    dial = system.dialled.sweep(columns)
    errors = np.full((len(operators), rows, columns), np.nan)
    measured = np.zeros((rows, columns), dtype=bool)

    def known() -> dict[str, Any]:
        return {
            "system": system.name,
            "dial": _axis(system.dialled) | {"values": dial},
            "across": across,
            "errors": {key: [_finite(row) for row in found] for key, found in zip(operators, errors, strict=True)},
            "measured": measured.tolist(),
            "fraction": measured.mean().item(),
        }

    points = _points_coarse_to_fine(rows, columns)
    for first in range(0, len(points) if operators else 0, ATLAS_BATCH):
        if stop.is_set():
            break
        batch = points[first : first + ATLAS_BATCH]
        for row in sorted({row for row, _ in batch}):
            own = [column for other, column in batch if other == row]
            source, parameters = _sources_at(query, across["values"][row])
            values = torch.tensor([dial[column] for column in own], dtype=torch.float64)
            errors[:, row, own] = error_map(list(operators.values()), source, values, parameters, system).numpy()
            measured[row, own] = True
        tell(known())
    return known()


def _axis(parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "title": parameter.title,
        "angle": parameter.angle,
        "logarithmic": parameter.logarithmic,
    }


def _across(system: System, count: int) -> dict[str, Any]:
    """The axis across the dial; an angle goes once round, without coming back to where it began."""
    if not system.parameters and not is_drawn_as_gaussians(system):  # nothing lies across
        return {"name": "", "title": "", "angle": False, "logarithmic": False, "values": [0.0]}
    if not system.parameters:
        values = np.linspace(0, SPARSEST, count).round(3).tolist()
        return {"name": "sparsity", "title": "Sparsity", "angle": False, "logarithmic": False, "values": values}
    first = system.parameters[0]
    values = first.sweep(count)
    if first.angle:
        values = [first.low + first.period * i / count for i in range(count)]
    return _axis(first) | {"values": values}


def _sources_at(query: Query, value: float) -> tuple[Tensor, Tensor]:
    """Sources (s, n, n) and parameters (p,) at a value across the dial. The Gaussians are the same everywhere, and only
    fewer of them where they are sparse, so that neighbours differ by the equation and not by chance."""
    system, rest = query.system, query.parameters[1:]
    parameters = torch.tensor((value, *rest) if system.parameters else (), dtype=torch.float64)
    if not is_drawn_as_gaussians(system):
        dial, generator = (
            torch.full((SOURCES,), system.dialled.default, dtype=torch.float64),
            stream(0, "explore", "atlas"),
        )
        source = system.draw(dial, parameters.expand(SOURCES, -1), (RESOLUTION, RESOLUTION), generator)
        return source.float(), parameters
    sparsity = torch.full((SOURCES,), query.sparsity if system.parameters else value)
    amplitudes = draw_amplitudes(sparsity, stream(0, "explore", "atlas"))
    source = normalize(render(amplitudes, RESOLUTION), zero_mean=system.zero_mean)
    return source, parameters


def _points_coarse_to_fine(rows: int, columns: int) -> list[tuple[int, int]]:
    """All (row, column), so that every beginning is about a coarser grid over the whole atlas."""
    row_rank, column_rank = ({i: rank for rank, i in enumerate(coarse_to_fine(n))} for n in (rows, columns))
    points = [(row, column) for row in range(rows) for column in range(columns)]
    return sorted(points, key=lambda point: max(row_rank[point[0]] / rows, column_rank[point[1]] / columns))


def examples_curve(state: ExploreState) -> dict[str, Any]:
    """Error against the number of examples, of what was adapted from the chosen operator for the chosen system.

    What ships and what was trained live stand together, for each window of the dial. The zero-shot error is that of a
    live result; where all results of a window ship, whose cards have none, it is measured on the examples of the cards.
    (Those errors are of 256 examples, live ones of the first 32 of them.)

    Returns:
        ``system`` and ``windows``, each with its ``task``, ``zero_shot`` error, ``curves`` by key of the prediction,
        and the points of ``unlabelled`` results, which use the equation and no examples. A point is the number of
        examples, the error, the steps in words, and the number of the result in ``state.adapted``, as text.
    """
    windows: dict[Task, dict[str, Any]] = {}
    results = sorted(enumerate(state.adapted.values()), key=lambda pair: pair[1].key)
    for number, adapted in results:
        settings, errors = adapted.settings, adapted.errors
        empty = {"task": settings.task.label, "zero_shot": None, "curves": {}, "unlabelled": []}
        window = windows.setdefault(settings.task, empty)
        if window["zero_shot"] is None:
            window["zero_shot"] = finite(errors.get("zero_shot"))
        for key, error in errors.items():
            if key == "zero_shot" or not (settings.examples or settings.physics):  # that is the operator itself
                continue
            points = window["unlabelled"] if settings.physics else window["curves"].setdefault(key, [])
            points.append([settings.examples, finite(error), f"{settings.steps} steps", str(number)])
    for task, window in windows.items():
        if window["zero_shot"] is None and state.bundle is not None:
            found = evaluate(state.loader()(), task, count=CARD_EXAMPLES, resolution=RESOLUTION)
            window["zero_shot"] = finite(found["error"])
    return {"system": state.system_name, "windows": list(windows.values())}


def _finite(values: Iterable[float]) -> list[float | None]:
    return [finite(float(value)) for value in values]
