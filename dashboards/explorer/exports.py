"""What leaves the page as a file: the fields, and a program that makes them again."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from sciml_fm_core import __version__
from sciml_fm_core.models.operator import Operator
from sciml_fm_core.physics.evolution import Evolution

from .compute import PAINTED_WIDTH, Frame, compute, drawn_field, is_drawn_as_gaussians
from .films import STEPS, whole_film
from .settings import Adapted, AdaptSettings
from .state import ExploreState


@dataclass(frozen=True)
class File:
    """A file for the browser to save."""

    name: str
    type: str
    content: bytes


def arrays_of(frame: Frame) -> dict[str, np.ndarray]:
    """Fields by name, float32, row i at y = i / n: ``source``, ``solution``, others, predictions by their keys.

    Of an evolution there is an axis for 0, 1, 2, ... steps before those of the others.
    """
    shown = {key: found.values for key, found in frame.predictions.items() if found is not None}
    return {"source": frame.source, "solution": frame.solution} | frame.further | shown


def facts_of(frame: Frame, address: str) -> dict[str, str | float]:
    """What the fields are of: the equation, its coefficients, errors, and the page's address."""
    query = frame.query
    errors = {f"error of {key}": p.relative_error for key, p in frame.predictions.items() if p is not None}
    facts = {
        "equation": query.system.equation,
        "system": query.system.name,
        **errors,
        "address": address,
        "sciml-fm": __version__,
    }
    taken = {*facts, *arrays_of(frame), "file"}  # the last by numpy.savez
    named = {query.system.dialled.title: query.dial} | frame.coefficients
    return facts | {f"coefficient {name}" if name in taken else name: value for name, value in named.items()}


def file_name(adapted: Adapted, origin: str) -> str:
    """Name of the file of an operator that was trained live, by what was trained from which operator.

    >>> from sciml_fm_core import Task
    >>> from explorer.settings import AdaptSettings
    >>> trained = Adapted(AdaptSettings(Task.parse("SYS-1(8,12)"), 32, 60, 1e-3), {}, {}, {}, 0.0)
    >>> file_name(trained, "sys-1")
    'sys-1-32-examples-SYS-1(8,12)-60-steps.safetensors'
    """
    given = "no-labels" if adapted.settings.physics else f"{adapted.settings.examples}-examples"
    name = f"{origin}-{given}-{adapted.settings.task.label}-{adapted.settings.steps}-steps.safetensors"
    return re.sub(r"[^\w.(),-]+", "-", name)


def as_bundle(operator: Operator, name: str) -> File:
    """An operator as its bundle: what `load_operator` and ``sciml-fm explore`` read."""
    with tempfile.TemporaryDirectory() as folder:
        return File(name, "application/octet-stream", operator.save(Path(folder) / name).read_bytes())


def as_hdf5(frame: Frame, address: str) -> File:
    """The fields as datasets, what they are of as attributes."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs.update(facts_of(frame, address))
        for name, values in arrays_of(frame).items():
            file.create_dataset(name, data=values)
    return File("sciml-fm.h5", "application/x-hdf5", buffer.getvalue())


def as_npz(frame: Frame, address: str) -> File:
    """The fields and what they are of, for ``numpy.load``."""
    buffer = io.BytesIO()
    facts: Mapping[str, np.ndarray] = {name: np.asarray(value) for name, value in facts_of(frame, address).items()}
    np.savez_compressed(buffer, **arrays_of(frame), **facts)  # type: ignore[arg-type] # names are not its options
    return File("sciml-fm.npz", "application/zip", buffer.getvalue())


def program(state: ExploreState, address: str) -> File:
    """A Python program that makes the fields on the page again, and the command of the notebook on the same window."""
    query, system, current = state.query(), state.system, state.current
    parameters = ", ".join(f"{value!r}" for value in query.parameters)
    if not is_drawn_as_gaussians(system):
        source = (
            f"fields = system.draw(dial[None], parameters[None], ({query.resolution}, {query.resolution}), "
            f'stream({query.seed}, "explore"))[0].float()'
        )
        if query.gaussians is not None:
            source += (
                f"\nfields.view(-1, *fields.shape[-2:])[{drawn_field(system)}] = place({list(query.gaussians)!r}, "
                f"{query.resolution}, zero_mean=system.zero_mean)"
            )
        for name, rows in query.painted.items():
            source += (
                f"\nfields[{system.inputs.index(name)}] = place({list(rows)!r}, {query.resolution}, zero_mean=True, "
                f"width={PAINTED_WIDTH}).exp()\nfields = system.varied(fields, dial).float()"
            )
        source += "\nsource = fields"
    elif query.gaussians is None:
        source = (
            f'amplitudes = draw_amplitudes(torch.tensor([{query.sparsity!r}]), stream({query.seed}, "explore"))\n'
            f"source = normalize(render(amplitudes, {query.resolution}), zero_mean=system.zero_mean)[0]"
        )
    else:
        source = f"source = place({list(query.gaussians)!r}, {query.resolution}, zero_mean=system.zero_mean)"
    operators = {"zero_shot": _name(state)} if state.bundle else {}
    notes = []
    if current:
        operators |= current.names
        if not current.names:
            notes.append("# What was trained live on the page is not here; this trains its like:")
            notes.append(f"# {_training(_name(state), current.settings)}")
    if state.bundle:
        task = current.settings.task.label if current else f"{system.label}({state.window[0]:g},{state.window[1]:g})"
        notes += [
            "# Error against the number of examples on this window, as a notebook:",
            f"# papermill notebooks/02_adapt.ipynb adapted.ipynb -p operator {_quoted(_name(state))} -p task '{task}'",
        ]
    measured = """
solution = system.solve(source.double(), coefficients)
for key, name in OPERATORS.items():
    prediction = sciml_fm.load_operator(name).predict(source, coefficients.to(source.dtype), system)
    print(key, f"{sciml_fm.relative_error(prediction.double(), solution):.4%}")
"""
    if isinstance(system, Evolution):
        measured = f"""
states = system.trajectory(source.double(), coefficients, {STEPS})
for key, name in OPERATORS.items():
    predicted = rollout(sciml_fm.load_operator(name), source, coefficients.to(source.dtype), {STEPS}, system)
    print(key, *(f"{{error:.4%}}" for error in rollout_errors(predicted.double(), states, {system.output_axes})))
"""
    text = f'''"""{system.title or system.name} at {query.dial:g}, as it was on the explore page: ?{address}"""

import torch

import sciml_fm_core as sciml_fm
from sciml_fm_core.data.splits import stream
from sciml_fm_core.evaluation.rollouts import rollout, rollout_errors
from sciml_fm_core.physics.sources import draw_amplitudes, normalize, place, render

system = sciml_fm.SYSTEMS["{system.name}"]
dial, parameters = torch.tensor({query.dial!r}, dtype=torch.float64), torch.tensor([{parameters}], dtype=torch.float64)
{source}
coefficients = system.coefficients(dial, source.double(), parameters)
{measured.strip().replace("OPERATORS", repr(operators))}
'''
    return File("sciml_fm_page.py", "text/x-python", "\n".join([text, *notes, ""] if notes else [text]).encode())


def _name(state: ExploreState) -> str:
    assert state.bundle is not None
    return state.bundle.name if state.bundle.shipped else str(state.bundle.path)


def _quoted(name: str) -> str:
    """A name for a command in a comment, which it does not end."""
    return name if re.fullmatch(r"[\w./-]+", name) else repr(name)


def _training(operator: str, settings: AdaptSettings) -> str:
    what = "--physics" if settings.physics else f"--examples {settings.examples}"
    rate = "--grid" if settings.learning_rate is None else f"--learning-rate {settings.learning_rate:g}"
    return f"sciml-fm adapt {_quoted(operator)} '{settings.task.label}' {what} --steps {settings.steps} {rate}"


def _fields(save: Callable[[Frame, str], File], state: ExploreState, address: str) -> Callable[[], File]:
    query = state.query()
    return lambda: save((whole_film if isinstance(query.system, Evolution) else compute)(query), address)


def _program(state: ExploreState, address: str) -> Callable[[], File]:
    file = program(state, address)
    return lambda: file


SAVES: dict[str, Callable[[ExploreState, str], Callable[[], File]]] = {
    "hdf5": partial(_fields, as_hdf5),
    "npz": partial(_fields, as_npz),
    "python": _program,
}
"""What can be saved of the page as it is: a function that makes the file, which may take as long as a frame."""
