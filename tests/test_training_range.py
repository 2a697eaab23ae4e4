"""Distances to a training, and the flag made of them; statistics of ranks against known values."""

import pytest
import torch

from sciml_fm_core import Operator, Task, load_operator
from sciml_fm_core.experiments.ranks import area_under_roc, rank_correlation, ranks, roc_curve
from sciml_fm_core.experiments.training_range.method import KINDS, PARTS, TrainingRange, other_sources
from sciml_fm_core.physics.sources import PRESETS, place


@pytest.fixture(scope="module")
def operator():
    return load_operator("sys-1")


@pytest.fixture(scope="module")
def trained(operator):
    return TrainingRange.of(operator)


def examples(label, count=16, n=64, seed=1):
    return Task.parse(label).sample(count, n, torch.Generator().manual_seed(seed))


# Ranks ----------------------------------------------------------------------------------------------------------------


def test_area_of_scores_that_tell_all_none_or_nothing():
    positive = torch.tensor([False, False, True, True])
    assert area_under_roc(torch.tensor([1.0, 2, 3, 4]), positive) == 1
    assert area_under_roc(torch.tensor([4.0, 3, 2, 1]), positive) == 0
    assert area_under_roc(torch.zeros(4), positive) == 0.5
    assert torch.tensor(area_under_roc(torch.zeros(4), positive & False)).isnan()


def test_the_area_is_that_of_the_curve_and_the_share_of_ordered_pairs(generator):
    score = torch.randint(10, (60,), generator=generator).double()  # with many ties
    positive = torch.rand(60, generator=generator) < 0.4
    false, true = roc_curve(score, positive)
    pairs = score[positive][:, None] - score[~positive]
    shares = ((pairs > 0).double() + 0.5 * (pairs == 0)).mean().item()
    assert area_under_roc(score, positive) == pytest.approx(shares, abs=1e-12)
    assert torch.trapezoid(true, false).item() == pytest.approx(shares, abs=1e-12)


def test_ranks_of_ties_and_the_correlation_of_a_reversed_order(generator):
    assert ranks(torch.tensor([2.0, 1.0, 2.0, 5.0])).tolist() == [2.5, 1.0, 2.5, 4.0]
    x = torch.arange(10.0)
    correlation, p = rank_correlation(x, torch.exp(-x), generator=generator)
    assert correlation == pytest.approx(-1)
    assert p < 0.01


def test_the_p_value_of_no_relation_is_rarely_small(generator):
    found = [
        rank_correlation(*torch.rand(2, 12, generator=generator), generator=generator, draws=199)[1] for _ in range(60)
    ]
    assert sum(p <= 0.1 for p in found) <= 14  # 6 expected


@pytest.mark.parametrize("values", [torch.ones(2, 2), torch.tensor([torch.nan, 1.0, 2.0])])
def test_statistics_of_ranks_say_what_they_cannot_take(values):
    with pytest.raises(ValueError, match="expected"):
        area_under_roc(values, torch.ones(values.shape, dtype=torch.bool))


# Distances ------------------------------------------------------------------------------------------------------------


def test_training_examples_are_inside(trained):
    inside = examples("SYS-1(1,5)", 64)
    found = trained.distance(inside.source, inside.coefficients)
    assert tuple(found) == PARTS
    for name, values in found.items():
        assert (values == 0).float().mean() > 0.85, name
        assert values.max() < 0.7, name


def test_the_distance_grows_with_the_dial_and_so_does_the_error_expected(trained):
    system, source = trained.normalization.systems[0], examples("SYS-1(1,5)", 1).source
    dial = torch.tensor([5.0, 7.0, 10.0, 20.0])
    coefficients = system.coefficients(dial, source, torch.full((4, 1), 0.3))
    above = trained.distance(source, coefficients)["above"]
    torch.testing.assert_close(above, torch.log(dial.double() / 5), atol=1e-3, rtol=0)
    assert (trained.forecast(source, coefficients).error.diff() > 0).all()


def test_each_part_answers_to_its_own_kind_of_source(trained):
    inside = examples("SYS-1(2,2)", 8)
    x = torch.arange(64) / 64
    short = torch.cos(2 * torch.pi * 9 * x).expand(64, 64)
    dipole = place(PRESETS["dipole"], 64, zero_mean=True)
    for name, source in (("weak", short), ("negative", -inside.source), ("negative", dipole), ("peaks", dipole)):
        assert (trained.distance(source, inside.coefficients)[name] > 0).all(), name


@pytest.mark.parametrize("name", ["sys-1", "sys-2", "symbol"])
def test_scaling_the_source_or_the_equation_changes_nothing(name):
    operator = load_operator(name)
    trained, given = TrainingRange.of(operator), examples("SYS-2(0.5,3)" if name != "sys-1" else "SYS-1(1,12)")
    system = "SYS-2" if name != "sys-1" else "SYS-1"
    once = trained.distance(given.source, given.coefficients, system)
    again = trained.distance(7 * given.source, 3 * given.coefficients, system)
    for part in PARTS:
        torch.testing.assert_close(once[part], again[part], atol=1e-4, rtol=1e-4)


def test_the_range_is_kept_and_made_the_same_again(operator, trained):
    assert TrainingRange.of(operator) is trained
    again = TrainingRange.of(operator.copy())
    assert again.weights == trained.weights
    assert again.scatter == trained.scatter


def test_the_downstream_task_of_an_adapted_operator_counts(trained):
    adapted = TrainingRange.of(load_operator("sys-1-512"))
    given = examples("SYS-1(8,8)")
    assert trained.distance(given.source, given.coefficients)["above"].min() > 0.4
    assert adapted.distance(given.source, given.coefficients)["above"].max() == 0


def test_an_equation_never_seen_is_judged_by_what_the_network_is_told():
    trained, given = TrainingRange.of(load_operator("symbol")), examples("SCREENED(1,10)", 4)
    found = trained.distance(given.source, given.coefficients, "SCREENED")
    assert not found["above"].any()
    assert all(values.isfinite().all() for values in found.values())


@pytest.mark.parametrize(
    ("name", "task", "system", "dial"),
    [
        ("sys-1-symbol", "BIHARM(5,5)", "BIHARM", None),
        ("sys-1-symbol", "SYS-2(0.5,0.5)", "SYS-2", None),
        ("sys-1-symbol", "SYS-3(8,8)", "SYS-3", None),
        ("mixed", "SYS-3(7,7)", "SYS-3", 7.4),
    ],
)
def test_distance_gives_no_all_clear_where_nothing_was_trained(name, task, system, dial):
    """Like reports that a detector of unusual inputs passes whole classes that its calibration never had."""
    trained, given = TrainingRange.of(load_operator(name)), examples(task, 4)
    coefficients = given.coefficients
    if dial:
        whole = trained.forecast(given.source, coefficients, system)
        assert whole.probability.isfinite().all()
        coefficients = coefficients.clone()
        coefficients[:, 1] = dial
    forecast = trained.forecast(given.source, coefficients, system)
    assert forecast.likely.all()
    assert forecast.probability.isnan().all()
    assert forecast.error.isnan().all()
    assert not trained.forecast(given.source, coefficients, system, level=1e-6).error.isnan().any(), "warnings stay"


@pytest.mark.parametrize("kind", KINDS)
def test_other_sources_are_finite_and_others(kind, generator):
    source = examples("SYS-1(1,5)", 8, 32).source
    made = other_sources(source, kind, generator)
    assert made.shape == source.shape
    assert made.isfinite().all()
    assert not torch.allclose(made, source)


def test_what_cannot_be_judged_is_said(operator, trained):
    given = examples("SYS-1(1,5)", 2, 32)
    with pytest.raises(ValueError, match="names no tasks"):
        TrainingRange.of(Operator(operator.model, operator.normalization))
    with pytest.raises(ValueError, match="level"):
        trained.forecast(given.source, given.coefficients, level=0)
    with pytest.raises(ValueError, match="coefficients"):
        trained.distance(given.source, given.coefficients[:, :2])
    with pytest.raises(ValueError, match="kind"):
        other_sources(given.source, "unknown", torch.Generator())


# The flag -------------------------------------------------------------------------------------------------------------


def test_the_flag_tells_large_errors_from_small_ones_on_shifts_that_did_not_set_it(operator, trained):
    found = [examples(label, 24) for label in ("SYS-1(1,5)", "SYS-1(5,10)", "SYS-1(10,20)")]
    source, coefficients, solution = (torch.cat(parts) for parts in list(zip(*found, strict=True))[:3])
    prediction = operator.predict(source, coefficients)
    off = torch.linalg.vector_norm(prediction - solution, dim=(1, 2)) / torch.linalg.vector_norm(solution, dim=(1, 2))
    forecast = trained.forecast(source, coefficients)
    assert area_under_roc(forecast.probability, off > 0.05) > 0.9
    assert ((forecast.likely) == (off > 0.05)).float().mean() > 0.8
    torch.testing.assert_close(forecast.likely, forecast.error > 0.05)
