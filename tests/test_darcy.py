"""Darcy flow: the set as it is read, the solver on it, own examples like it, networks that learn from both."""

import json
import sys
from pathlib import Path

import pytest
import torch

from sciml_fm_core import find_system
from sciml_fm_core.evaluation.metrics import relative_error
from sciml_fm_core.experiments.darcy import five_point
from sciml_fm_core.experiments.darcy.method import (
    DarcyNetwork,
    Flows,
    draw_own,
    fit_solver,
    read_darcy,
    solve,
    train,
    turned,
    whole,
)
from sciml_fm_core.experiments.darcy.runs import METHODS, PEERS, SOLVER, DarcyRun, darcy, darcy_table, points
from sciml_fm_core.study.custom import record_of

PART = Path(__file__).parent / "data" / "darcy"
FITTED = (18.75, 2.6)


@pytest.fixture(scope="module")
def sets():
    return read_darcy(PART)


@pytest.fixture(scope="module")
def own():
    return draw_own(64, FITTED, torch.Generator().manual_seed(0), points=64)


def test_the_part_is_read_whatever_its_files_are(sets, tmp_path):
    assert sets["train_16"].high.shape == sets["train_16"].solution.shape == (16, 16, 16)
    assert sets["test_32"].solution.shape == (4, 32, 32)
    assert torch.equal(sets["test_32"].high[:, ::2, ::2], sets["test_16"].high)
    for name, flows in sets.items():
        torch.save({"x": flows.high, "y": flows.solution}, tmp_path / f"darcy_{name}.pt")
    assert torch.equal(read_darcy(tmp_path)["test_16"].solution, sets["test_16"].solution)
    assert "MIT License" in (PART / "LICENSE").read_text()
    with pytest.raises(ValueError, match=r"no file .*darcy_train_16.pt; `make darcy` brings it"):
        read_darcy(tmp_path / "none")


def test_the_solver_is_of_second_order_where_nothing_varies():
    errors = []
    for n in (16, 32):
        exact = find_system("SYS-1-DIRICHLET").solve(torch.ones(128, 128), torch.tensor([1.0, 1.0, 0.0]))
        ones = torch.ones(1, n, n, dtype=torch.float64)
        errors.append(relative_error(five_point.solve(ones, ones), exact[None, :: 128 // n, :: 128 // n]).item())
    assert errors[1] < errors[0] / 3.5 < 2e-3


def test_the_solver_fits_the_set_with_two_numbers(sets):
    contrast, factor = fit_solver(sets["train_16"])
    assert contrast == pytest.approx(19, abs=1)
    errors = []
    for name in ("test_16", "test_32"):
        found = factor * solve(sets[name].high, contrast)
        errors.append(relative_error(found, sets[name].solution).mean().item())
    assert errors[0] < 0.1
    assert errors[1] < errors[0] / 2


def test_own_examples_are_like_the_set(sets, own):
    def correlations(high):
        sign = 2.0 * high - 1
        return torch.tensor([(sign[:, :, :-d] * sign[:, :, d:]).mean() for d in (1, 2, 4)])

    alike = turned(own, torch.zeros(64, dtype=torch.long), 16)
    assert torch.allclose(correlations(alike.high.float()), correlations(sets["train_16"].high.float()), atol=0.1)
    assert alike.solution.mean() == pytest.approx(sets["train_16"].solution.mean().item(), rel=0.15)
    contrast, factor = fit_solver(alike)
    assert contrast == pytest.approx(FITTED[0], rel=0.05), "taken for what the set is taken for"
    assert factor == pytest.approx(FITTED[1], rel=0.05)


@pytest.mark.parametrize("element", range(8))
def test_turned_examples_solve_the_same_problem(own, element):
    few = Flows(*(part[:4] for part in own))
    high, solution = turned(few, torch.full((4,), element), 32)
    assert high.shape == solution.shape == (4, 32, 32)
    found = FITTED[1] * 1.02 * solve(high, FITTED[0])
    assert relative_error(found, solution).mean() < 0.08
    assert not solution[:, 0].any()


def test_the_set_gets_its_last_row_and_column(sets):
    high, solution = whole(sets["train_16"])
    assert high.shape == (16, 17, 17)
    assert torch.equal(high[:, -1, :-1], sets["train_16"].high[:, -1])
    assert not solution[:, -1].any()


@pytest.mark.parametrize("boundary", ["reflection", "margin"])
def test_networks_meet_the_boundary_and_begin_as_the_solver(sets, boundary):
    high = sets["test_32"].high
    plain = DarcyNetwork(boundary, width=4, modes=4).predict(high)
    assert plain.shape == high.shape
    assert max(plain[:, 0].abs().max(), plain[:, :, 0].abs().max()) < 1e-6
    given = DarcyNetwork(boundary, FITTED, width=4, modes=4).predict(high)
    assert torch.allclose(given, FITTED[1] * solve(high, FITTED[0]), rtol=1e-2, atol=1e-3)


def test_training_corrects_the_solver(own):
    torch.manual_seed(0)
    alike = turned(own, torch.zeros(64, dtype=torch.long), 16)
    network = DarcyNetwork("margin", (25.0, 2.6), width=4, modes=4)
    before = relative_error(network.predict(alike.high), alike.solution).mean()
    trained, steps = train(network, iter(lambda: alike, None), 0.5, 1e-2)
    assert steps > 1
    assert relative_error(trained.predict(alike.high), alike.solution).mean() < before


def test_runs_of_each_method_and_their_table():
    runs = darcy("smoke")
    assert [run.method for run in runs] == [SOLVER, *PEERS, *METHODS, PEERS[1]]
    records = [record_of(run, "0" * 16, "cpu") for run in runs if run.method not in PEERS]
    shown = darcy_table(records, 16)
    for point in points(records, 16):
        assert f"{point['error']:.2%}" in shown
    assert json.loads(json.dumps(records)) == [{**r, "examples": list(r["examples"])} for r in records]
    with pytest.raises(ValueError, match=r"darcy: expected a method of five-point solver, .* got 'UNO'"):
        DarcyRun("UNO", (4,))


def test_peers_are_skipped_where_they_are_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "neuralop", None)
    record = record_of(darcy("smoke")[1], "0" * 16, "cpu")
    assert record["skipped"] == "neuraloperator is not installed"
    assert not points([record], 16)
    assert "not installed" in darcy_table([record], 32)
