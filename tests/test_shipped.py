"""What ships stays what it is: records belong to their runs, bundles to their parents, and all predict as they did."""

import hashlib
import json
import math
from dataclasses import asdict
from functools import partial
from pathlib import Path
from random import Random

import pytest
import torch

import sciml_fm_core
from sciml_fm_core import load_ensemble, load_operator, shipped_ensembles, shipped_operators
from sciml_fm_core.experiments import import_all
from sciml_fm_core.models.operator import read_header, shipped_adaptations
from sciml_fm_core.study.records import read_table, shipped_tables
from sciml_fm_core.study.registry import REGISTRY
from sciml_fm_core.study.runs import identity

PRETRAINED = {"poisson": (2, 1.5, 0.3), "advection_diffusion": (1.2, 0.9, 0.2, 7, -5), "helmholtz": (1, 4)}
DOWNSTREAM = {"poisson": (8, 1.2, 1.5), "advection_diffusion": (1.2, 0.9, 0.2, 28, -20), "helmholtz": (1, 11.5)}
"""Coefficients inside of what operators were trained on, and of what they were tuned to."""
EVOLUTIONS = {
    "bilinear": (1, 1e-3, 1, 0.1, 0.03, -0.02, 0.2, -0.1, 0.5),
    "active_scalar": (1, 1e-3, 1, 0.5),
    "burgers": (2e-3, 0.1, 0.5),
    "allen_cahn": (1, 1.5e-3, 0.5),
    "kuramoto_sivashinsky": (20, 1),
    "gray_scott": (0.04, 0.06, 8e-5, 4e-5, 20),
}
"""Coefficients of evolutions, the time of a step included."""
FIELDS = {
    "variable_diffusion": (lambda x, y: torch.exp(0.3 * torch.sin(x + y) * torch.cos(2 * y)),),
    "variable_advection": (lambda x, y: 2 + torch.cos(y), lambda x, y: 3 * torch.sin(2 * x)),
}
"""Coefficients that are fields."""


def numbers_of(predictor, coefficients):
    """For each of its systems: norm of a prediction, and three of its values.

    The source has mean 0 on 32 x 32 points, and is written down rather than drawn.
    """
    x = torch.arange(32, dtype=torch.float64) / 32 * 2 * math.pi
    source = torch.cos(x)[:, None] * torch.sin(2 * x) + 0.5 * torch.cos(3 * x[:, None] + x) + 0.2 * torch.sin(5 * x)
    found = []
    for system in predictor.systems:
        given = source.float()
        if system.name in FIELDS:  # an input too
            given = torch.stack(
                [*(field(x, x[:, None]).expand(32, 32).float() for field in FIELDS[system.name]), given]
            )
        if system.name == "gray_scott":  # a state of two fields
            share = given.sigmoid()
            given = torch.stack([1 - share / 2, share / 4])
        predicted = predictor.predict(
            given, torch.tensor((coefficients | EVOLUTIONS).get(system.name, ())).float(), system
        )
        field = predicted if isinstance(predicted, torch.Tensor) else predicted.mean
        field = field.view(-1, 32, 32)[-1]
        found += [field.norm(), field[3, 5], field[16, 9], field[29, 30]]
    return [float(f"{number:.7g}") for number in map(float, found)]


def predictions():
    """All that ships and predicts: by its name, what computes its numbers."""
    known = {name: (load_operator, name, PRETRAINED) for name in shipped_operators()}
    known |= {name: (load_operator, name, DOWNSTREAM) for name in shipped_adaptations()}
    known |= {f"ensemble {name}": (load_ensemble, name, PRETRAINED) for name in shipped_ensembles()}
    return {key: partial(lambda load, name, given: numbers_of(load(name), given), *one) for key, one in known.items()}


import_all()  # their records ship too


def pairs_of(table):
    """How many records a table has, how many belong to a run, and a hash of these pairs without their identities."""
    budget, _, measured = table.partition("-")
    experiments = [each for each in REGISTRY.values() if each.table == measured]
    runs = {identity(run): run for each in experiments for run in each.runs(budget)}
    records = {record["identity"]: record for record in read_table(shipped_tables()[table])}
    pairs = sorted(
        json.dumps([type(runs[key]).__name__, asdict(runs[key]), records[key] | {"identity": None}], sort_keys=True)
        for key in runs.keys() & records.keys()
    )
    return [len(records), len(pairs), hashlib.blake2b("".join(pairs).encode(), digest_size=8).hexdigest()]


def parents():
    """The operator that each packed bundle is the difference to."""
    packed = {name: read_header(path).packed for name, path in shipped_adaptations().items()}
    return {name: about and about.parent for name, about in packed.items()}


WEIGHTS = Path(sciml_fm_core.__file__).parent / "weights"
FROZEN = json.loads((Path(__file__).parent / "data" / "shipped.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("table", shipped_tables())
def test_every_shipped_record_belongs_to_the_run_that_it_was_made_by(table):
    assert pairs_of(table) == FROZEN["records"][table]


def test_packed_bundles_have_their_parents():
    assert parents() == FROZEN["parents"]


@pytest.mark.parametrize("name", predictions())
def test_what_ships_predicts_as_it_did(name):
    """And nearly as it did in float32, and fine-tunings in finer blocks, before they were rounded."""
    found = predictions()[name]()
    assert found == pytest.approx(FROZEN["predictions"][name], rel=1e-5, abs=1e-7)
    before = FROZEN["before rounding"].get(name, found)
    assert found == pytest.approx(before, abs=0.015 * max(before))


@pytest.mark.parametrize("name", ["sys-1", "adapted/sys-1-8", "ensembles/sys-1"])
def test_a_flipped_bit_in_a_copy_is_found(name, tmp_path):
    """Like reports of weights that one bad bit on a disk or on the way changed, and that load all the same."""
    path = WEIGHTS / f"{name}.safetensors"
    copy, whole = tmp_path / path.name, path.read_bytes()
    load = load_ensemble if name.startswith("ensembles") else load_operator
    header = 8 + int.from_bytes(whole[:8], "little")
    random = Random(0)
    positions = [random.randrange(header) for _ in range(30)] + [random.randrange(len(whole)) for _ in range(10)]
    positions += [whole.index(name) + 2 for name in (b"digest", b"format", b"version")]
    for position in positions:
        content = bytearray(whole)
        content[position] ^= 1 << random.randrange(8)
        copy.write_bytes(content)
        with pytest.raises(ValueError, match=path.name):
            load(copy)
    copy.write_bytes(whole)
    load(copy)
