"""What an error is made of: waves, the space of equations, numbers of examples; without a display."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch

from sciml_fm_core import SYSTEMS, Operator, Task, energy_spectrum, evaluate, load_operator
from sciml_fm_core.evaluation.errors import error_map
from sciml_fm_core.experiments.learned_symbol import learned_symbol

pytest.importorskip("panel_material_ui", reason="the dashboard extra is not installed")
sys.path.insert(0, str(Path(__file__).parent.parent / "dashboards"))

from explorer.bundles import Bundle
from explorer.compute import compute
from explorer.insight import _sources_at, atlas, examples_curve, spectrum
from explorer.settings import Adapted, AdaptSettings
from explorer.state import ExploreState

LABELS = {
    "poisson": "SYS-1(1,5)", "advection_diffusion": "SYS-2(0.2,1)", "helmholtz": "SYS-3(1,10)",
    "screened_poisson": "SCREENED(0.1,5)",
}  # fmt: skip


class Exact(Operator):
    """The exact solver, times a factor."""

    def __init__(self, operator, factor=1.0):
        super().__init__(operator.model, operator.normalization)
        self.factor = factor

    def predict(self, source, coefficients, system=None, *, symmetries=False):
        return self.factor * system.solve(source, coefficients)


@pytest.fixture(scope="module")
def operators(small_operator):
    """Untrained operators by system."""
    return {name: small_operator(label) for name, label in LABELS.items()}


@pytest.fixture
def state_of(operators, tmp_path):
    """Function making a state for a system, on an untrained operator of it."""

    def make(name, **kept):
        operator = operators[name]
        bundle = Bundle(
            name="small", path=operator.save(tmp_path / "small.safetensors"), systems=(name,),
            tasks=(Task.parse(LABELS[name]),), recipe="dimensionless", size="tiny", examples_seen=0, shipped=False,
        )  # fmt: skip
        return ExploreState({"small": bundle}, lambda _: operator, system_name=name, **kept)

    return make


def plain(result):
    """The result after a journey through strict JSON."""
    return json.loads(json.dumps(result, allow_nan=False))


# Spectrum -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_source", [False, True])
@pytest.mark.parametrize("name", list(LABELS))
def test_spectrum_of_the_exact_solver(state_of, operators, name, at_source):
    query = state_of(name).query()
    query = replace(query, operators={"exact": lambda: Exact(operators[name], 0.5), "none": None})
    found = plain(spectrum(query, at_source=at_source, max_wavenumber=5, per_shell=3))
    assert found["wavenumbers"] == [1, 2, 3, 4, 5]
    assert set(found["operators"]) == {"exact"}
    exact = found["operators"]["exact"]
    assert exact["gain"] == pytest.approx([0.5] * 5, rel=1e-4)
    assert exact["off"] == pytest.approx([0.5] * 5, rel=1e-4)
    assert max(exact["phase"]) < 0.01
    assert max(exact["leak"]) < 1e-3
    assert len(found["exact"]) == len(found["resonant"]) == 5


def test_spectrum_is_the_learned_symbol_of_the_operator(state_of, operators):
    query = state_of("poisson").query()
    found = spectrum(query, max_wavenumber=2, per_shell=99)
    coefficients = torch.tensor(list(compute(query).coefficients.values()))
    symbol = learned_symbol(operators["poisson"], "poisson", coefficients, max_wavenumber=2)
    for number in (1, 2):
        own, given = symbol.shell == number, found["operators"]["zero_shot"]
        assert given["gain"][number - 1] == pytest.approx(symbol.ratio.abs()[own].mean().item(), rel=1e-3)
        assert given["leak"][number - 1] == pytest.approx(symbol.leak[own].mean().item(), rel=1e-3)
        assert found["exact"][number - 1] == pytest.approx(symbol.exact.abs()[own].mean().item(), rel=1e-3)


def test_energies_are_those_of_the_solution_and_the_error(state_of):
    query = state_of("helmholtz").query()
    found, frame = spectrum(query, max_wavenumber=8), compute(query)
    energy = found["energy"]
    assert energy["wavenumbers"] == list(range(9))
    error = frame.predictions["zero_shot"].error
    for found, field in ((energy["solution"], frame.solution), (energy["errors"]["zero_shot"], error)):
        expected = energy_spectrum(torch.from_numpy(field).double())
        assert found == pytest.approx(expected[:9].tolist(), rel=1e-3)
        assert sum(found) == pytest.approx(np.mean(field.astype(float) ** 2), rel=0.02)  # the rest is beyond the shells


@pytest.mark.parametrize("at_resonance", [False, True])
def test_waves_near_a_resonance_are_marked(state_of, at_resonance):
    """omega = 5 is nearest to |k|^2 = 13, of which 4 pi^2 d |k|^2 is 5.13."""
    query = replace(state_of("helmholtz").query(), dial=0.04 * math.pi**2 * 13 if at_resonance else 5.0)
    found = plain(spectrum(query, max_wavenumber=5, per_shell=2))
    assert found["resonant"] == [False, False, False, True, False]
    assert sorted(map(tuple, found["resonances"])) == [(-3, 2), (-2, 3), (2, 3), (3, 2)]
    if not at_resonance:  # else the solver removes these waves
        assert found["exact"][3] > 2 * max(found["exact"][:3])


def test_an_equation_that_damps_every_wave_has_no_resonance(state_of):
    for name in ("poisson", "screened_poisson"):
        assert not any(spectrum(state_of(name).query(), max_wavenumber=3)["resonant"])


def test_a_spectrum_without_a_source_says_why(state_of):
    state = state_of("poisson")
    state.place_gaussians([])
    with pytest.raises(ValueError, match="source is empty"):
        spectrum(state.query())


# Atlas --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(LABELS))
def test_atlas_is_the_error_at_every_point(state_of, operators, name):
    query, told = state_of(name).query(), []
    found = plain(atlas(query, Event(), told.append, shape=(6, 5)))
    system = SYSTEMS[name]
    dial, across = found["dial"]["values"], found["across"]["values"]
    assert (len(dial), len(across)) == (6, 5)
    assert (dial[0], dial[-1]) == (system.dialled.low, system.dialled.high)
    assert found["across"]["name"] == (system.parameters[0].name if system.parameters else "sparsity")
    assert found["fraction"] == 1
    assert told[-1] == found
    fractions = [each["fraction"] for each in told]
    assert len(fractions) > 1
    assert fractions == sorted(fractions)
    source, parameters = _sources_at(query, across[3])
    expected = error_map([operators[name]], source, torch.tensor(dial[:2]), parameters, system)[0]
    assert found["errors"]["zero_shot"][3][:2] == pytest.approx(expected.tolist(), rel=1e-3)
    assert set(found["errors"]) == {"zero_shot"}


def test_an_atlas_goes_once_round_an_angle_and_stays_where_the_rest_is(state_of):
    state = state_of("advection_diffusion")
    state.set_parameter("eigenvalue", 4.0)
    across = atlas(state.query(), Event(), lambda _: None, shape=(2, 4))["across"]
    assert across["angle"]
    assert across["values"] == pytest.approx(np.radians([0, 90, 180, 270]))
    _, parameters = _sources_at(state.query(), across["values"][1])
    assert parameters.tolist() == pytest.approx([math.pi / 2, 4.0, state.parameters["principal axis"]])


def test_sources_of_an_atlas_lose_gaussians_as_they_become_sparse(state_of):
    query = state_of("helmholtz").query()
    filled = [(_sources_at(query, sparsity)[0] > 0.05).double().mean().item() for sparsity in (0.0, 0.5, 0.9)]
    assert filled[0] > filled[1] > filled[2]


def test_a_stopped_atlas_keeps_what_it_has_and_a_beginning_spans_all(state_of):
    stop, told = Event(), []

    def tell(found):
        told.append(found)
        stop.set()

    found = atlas(state_of("poisson").query(), stop, tell, shape=(10, 8))
    assert len(told) == 1
    assert found["fraction"] == 20 / 80
    measured = np.array(found["measured"])
    assert measured[[0, 0, -1, -1], [0, -1, 0, -1]].all()
    assert measured.any(axis=0).sum() >= 4
    assert measured.any(axis=1).sum() >= 4
    none = np.array([[error is None for error in row] for row in found["errors"]["zero_shot"]])
    assert np.array_equal(none, ~measured)


def test_an_atlas_of_nothing_is_empty(state_of):
    query = replace(state_of("poisson").query(), operators={"zero_shot": None})
    assert atlas(query, Event(), pytest.fail)["fraction"] == 0


# Examples -----------------------------------------------------------------------------------------------------------


def result(low, high, examples, errors, *, physics=False, finished=1.0):
    settings = AdaptSettings(Task(SYSTEMS["poisson"], low, high), examples, 60, 1e-3, physics)
    return Adapted(settings, {}, {"fine_tuned": 1e-3}, errors, finished)


def test_results_are_curves_by_window(state_of, operators):
    results = [
        result(8.0, 12.0, 128, {"fine_tuned": 0.02, "from_scratch": 0.3}, finished=0.0),
        result(8.0, 12.0, 8, {"fine_tuned": 0.05, "from_scratch": 0.5}, finished=0.0),
        result(8.0, 12.0, 0, {"zero_shot": 0.09, "fine_tuned": 0.01}, physics=True),
        result(5.0, 7.0, 32, {"zero_shot": 0.08, "fine_tuned": math.inf}),
        result(5.0, 7.0, 0, {"zero_shot": 0.08, "fine_tuned": 0.08}),
        result(1.0, 2.0, 16, {"fine_tuned": 0.04}, finished=0.0),
    ]
    state = state_of("poisson", kept={("poisson", "small"): {each.key: each for each in results}})
    found = plain(examples_curve(state))
    assert found["system"] == "poisson"
    inside, middle, outside = found["windows"]
    assert (outside["task"], outside["zero_shot"]) == ("SYS-1(8,12)", 0.09)
    assert outside["curves"]["fine_tuned"] == [[8, 0.05, "60 steps", "1"], [128, 0.02, "60 steps", "0"]]
    assert [error for _, error, *_ in outside["curves"]["from_scratch"]] == [0.5, 0.3]
    assert outside["unlabelled"] == [[0, 0.01, "60 steps", "2"]]
    # What trained without success is no number; the operator itself is no fine-tuning.
    assert middle["curves"] == {"fine_tuned": [[32, None, "60 steps", "3"]]}
    # No result has it: it is measured.
    expected = evaluate(operators["poisson"], Task.parse("SYS-1(1,2)"), count=256, resolution=64)["error"]
    assert inside["zero_shot"] == pytest.approx(expected)


def test_without_results_there_are_no_windows(state_of):
    assert examples_curve(state_of("poisson"))["windows"] == []
    assert examples_curve(ExploreState({}, system_name="helmholtz"))["windows"] == []


def test_what_ships_improves_with_examples():
    from explorer.bundles import find_bundles
    from explorer.shared import shipped_results

    bundles = {name: bundle for name, bundle in find_bundles()[0].items() if bundle.shipped}
    state = ExploreState(bundles, lambda bundle: load_operator(bundle.path), kept=shipped_results())
    state.choose_bundle("sys-1")
    (window,) = examples_curve(state)["windows"]
    tuned, scratch = ([error for _, error, *_ in window["curves"][key]] for key in ("fine_tuned", "from_scratch"))
    assert len(tuned) == len(scratch) == 3
    assert window["zero_shot"] > tuned[0] > tuned[-1]
    assert all(np.array(tuned) < scratch)
