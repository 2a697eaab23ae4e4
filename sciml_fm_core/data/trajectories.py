"""Trajectories of evolutions in files: HDF5 in the layout of the Well, which its own loader reads too.

``t0_fields`` holds each field of the state as (count, steps + 1, x, y), ``scalars`` each coefficient as (count,),
``dimensions`` the axes ``time``, ``x`` and ``y``, ``boundary_conditions`` that both are periodic. Files written here
name the system in their attributes. Here fields are indexed [y, x], in the Well [x, y].

Ohana et al. (2024), The Well, arXiv:2412.00568.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from sciml_fm_core._version import __version__
from sciml_fm_core.files import atomic_path, check_output, user_path
from sciml_fm_core.messages import reason
from sciml_fm_core.physics.evolution import Evolution
from sciml_fm_core.physics.spectral import Resolution, check_finite
from sciml_fm_core.physics.system import System, find_system
from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.physics.trajectories import Trajectories, draw_trajectories, evolution

from .splits import check_split, stream

FORMAT = "sciml-fm trajectories"
FORMAT_VERSION = 1
DRAWN_AT_ONCE = 16
"""Trajectories that have a random stream of their own: so a longer file starts with the shorter one."""
STATE = "state"
"""Name of the field where there is one."""


def split_trajectories(
    task: Task, split: str, count: int, steps: int, *, seed: int = 0, resolution: Resolution = 64, device=None
) -> Trajectories:
    """First trajectories of a split, from random initial states, in float32; more of them begin with fewer.

    >>> found = split_trajectories(Task.parse("HYPER(1e-6,1e-5)"), "train", 3, 5, resolution=16)
    >>> found.states.shape, found.coefficients.shape
    (torch.Size([3, 6, 16, 16]), torch.Size([3, 2]))

    Args:
        task: what is drawn: an evolution and a range of its dial.
        split: random stream, ``train``, ``validation`` or ``test``.
        count: number of trajectories.
        steps: steps of each, of the time that its coefficients say.
        seed: seed of the streams.
        resolution: points in each direction, even.
        device: where they are computed; the CPU by default.

    Raises:
        ValueError: on a system without time, an unknown split, numbers below 1, or a state that stops being finite.
    """
    evolution(task.system)
    check_split(split, count)
    parts = []
    for start in range(0, count, DRAWN_AT_ONCE):
        generator = stream(seed, task.label, split, "trajectories", start // DRAWN_AT_ONCE)
        parts.append(draw_trajectories(task, DRAWN_AT_ONCE, steps, resolution, generator, device=device).to("cpu"))
    return Trajectories.joined(parts).take(slice(count))


def save_trajectories(
    path: str | Path,
    system: System,
    states: Tensor,
    coefficients: Tensor,
    *,
    attributes: Mapping[str, object] | None = None,
) -> Path:
    """Write trajectories; the file appears under its name when it is complete.

    Args:
        path: file to write; must not exist. The Well's loader reads names that end in ``.hdf5`` or ``.h5``.
        system: their equation.
        states: shape (count, steps + 1, n, n), or (count, steps + 1, q, n, n) of q fields.
        coefficients: shape (count, c).
        attributes: what else the file is to say, such as the task and the seed.

    Raises:
        ValueError: if the file exists, its folder does not, or shapes do not fit the system or each other.
    """
    system, path = evolution(system), user_path(path)
    axes = system.input_axes
    if states.ndim != 2 + axes or len(states) != len(coefficients):
        raise ValueError(
            f"states: {system.name} expects shape (count, steps + 1, {'q, ' * (axes - 2)}n, n) and as many rows of "
            f"coefficients, got {tuple(states.shape)} and {tuple(coefficients.shape)}"
        )
    system.check(states.flatten(0, 1), coefficients.repeat_interleave(states.shape[1], dim=0))
    check_output(path)
    count, times = states.shape[:2]
    n = states.shape[-1]
    fields = states.unsqueeze(2) if axes == 2 else states
    with atomic_path(path) as partial, h5py.File(partial, "w") as file:
        file.attrs.update(
            {
                "format": FORMAT, "version": FORMAT_VERSION, "package_version": __version__,
                "system": system.name, "dataset_name": system.name, "grid_type": "cartesian", "n_spatial_dims": 2,
                "n_trajectories": count, "simulation_parameters": list(system.coefficient_names),
                **(attributes or {}),
            }
        )  # fmt: skip
        _write_dimensions(file, system.time(coefficients.double()), times, n)
        for axis in ("x", "y"):
            condition = file.create_group(f"boundary_conditions/{axis}_periodic")
            condition.attrs.update({
                "bc_type": "PERIODIC", "associated_dims": [axis], "associated_fields": [],
                "sample_varying": False, "time_varying": False,
            })  # fmt: skip
            mask = np.zeros(n, dtype=bool)
            mask[[0, -1]] = True
            condition["mask"] = mask
        scalars = file.create_group("scalars")
        scalars.attrs["field_names"] = list(system.coefficient_names)
        for name, values in zip(system.coefficient_names, coefficients.unbind(-1), strict=True):
            scalars[name] = values.detach().cpu().numpy()
            scalars[name].attrs.update({"sample_varying": True, "time_varying": False})
        for rank in range(3):
            group = file.create_group(f"t{rank}_fields")
            group.attrs["field_names"] = field_names(system) if rank == 0 else []
        for name, values in zip(field_names(system), fields.unbind(2), strict=True):
            stored = file.create_dataset(f"t0_fields/{name}", data=values.mT.detach().cpu().numpy(), fletcher32=True)
            stored.attrs.update({"dim_varying": [True, True], "sample_varying": True, "time_varying": True})
    return path


def field_names(system: System) -> list[str]:
    """Names of the fields of a state in files."""
    return list(system.inputs) if len(system.inputs) > 1 else [STATE]


def _write_dimensions(file: h5py.File, time: Tensor, times: int, n: int) -> None:
    dimensions = file.create_group("dimensions")
    dimensions.attrs["spatial_dims"] = ["x", "y"]
    at = (time[:, None] * torch.arange(times, device=time.device)).cpu().numpy().astype(np.float32)
    same = bool((at == at[:1]).all())
    dimensions["time"] = at[0] if same else at
    dimensions["time"].attrs["sample_varying"] = not same
    for axis in ("x", "y"):
        dimensions[axis] = (np.arange(n) / n).astype(np.float32)
        dimensions[axis].attrs.update({"sample_varying": False, "time_varying": False})


def load_trajectories(path: str | Path) -> tuple[Evolution, Trajectories]:
    """Read what `save_trajectories` wrote: the equation and its trajectories.

    Raises:
        ValueError: if the file is no such file, is damaged, or its system is not known here.
    """
    path = user_path(path)
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise ValueError("it is no file of trajectories that sciml-fm wrote; read it as a file of fields")
            if not 1 <= (version := int(file.attrs["version"])) <= FORMAT_VERSION:
                raise ValueError(f"layout version {version}, this package reads {FORMAT_VERSION}; upgrade sciml-fm")
            system = evolution(find_system(str(file.attrs["system"])))
            fields = [torch.from_numpy(file[f"t0_fields/{name}"][()]).mT for name in field_names(system)]
            columns = [torch.from_numpy(file[f"scalars/{name}"][()]) for name in system.coefficient_names]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: {reason(error)}") from None
    states = torch.stack(fields, dim=2) if len(fields) > 1 else fields[0]
    states, coefficients = states.contiguous(), torch.stack(columns, dim=-1)
    try:
        system.check(states[:, 0], coefficients)
        check_finite(states, "states")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return system, Trajectories(states, coefficients, system.dial(states[:, 0], coefficients))
