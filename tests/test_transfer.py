"""Transfer: zero-shot, fine-tuning, from scratch, the learning-rate grid, and a new system through all of it."""

from dataclasses import replace
from typing import ClassVar

import pytest
import torch

from sciml_fm_core import (
    PAPER_TASKS,
    RECIPES,
    SIZES,
    SYSTEMS,
    DatasetFile,
    Examples,
    SpectralSystem,
    Task,
    TrainConfig,
    draw_split,
    error_map,
    evaluate,
    evaluate_shifts,
    fine_tune,
    generate,
    load_operator,
    new_operator,
    pretrain,
    relative_error,
    train_from_scratch,
)
from sciml_fm_core.evaluation import errors as errors_module
from sciml_fm_core.files import file_digest
from sciml_fm_core.models import normalization as normalization_module
from sciml_fm_core.models.operator import read_header
from sciml_fm_core.physics.parameter import Parameter
from sciml_fm_core.physics.spectral import wavenumbers
from sciml_fm_core.training import transfer as transfer_module
from sciml_fm_core.training.recipes import recipe_of

NEAR, FAR = Task.parse("SYS-1(1,5)"), Task.parse("SYS-1(5,10)")
QUICK = TrainConfig(steps=30, learning_rate=3e-3, validate_every=5)


def weights(operator):
    return {key: value.clone() for key, value in operator.model.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def downstream():
    """Downstream examples to train on, and to validate on."""
    return draw_split(FAR, "train", 8, resolution=16), draw_split(FAR, "validation", 8, resolution=16)


def error(operator, examples):
    prediction = operator.predict(examples.source, examples.coefficients)
    return ((prediction - examples.solution).norm(dim=(1, 2)) / examples.solution.norm(dim=(1, 2))).mean().item()


# Starts ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["paper", "dimensionless"])
def test_fine_tuning_learns_and_leaves_its_parent_alone(small_operator, downstream, kind):
    data, validation = downstream
    parent = small_operator(kind=kind, examples_seen=123)
    before, card = weights(parent), dict(parent.card)
    result = fine_tune(parent, data, validation=validation, config=QUICK)
    assert same(weights(parent), before)
    assert parent.card == card
    assert not same(weights(result.operator), before)
    assert error(result.operator, validation) < error(parent, validation)
    assert result.operator.normalization.to_dict() == parent.normalization.to_dict()  # the pre-trained one
    assert result.operator.card["kind"] == "fine-tuned"
    assert result.operator.card["downstream_examples"] == 8
    assert result.operator.card["parent"]["examples_seen"] == 123


def test_fine_tuning_starts_from_the_parents_weights(small_operator, downstream):
    parent = small_operator()
    tiny = TrainConfig(steps=1, learning_rate=1e-12)
    tuned = fine_tune(parent, downstream[0], config=tiny).operator
    scratch = train_from_scratch(parent, downstream[0], config=tiny).operator
    lift = parent.model.lift.weight
    torch.testing.assert_close(tuned.model.lift.weight, lift, rtol=0, atol=1e-9)
    assert (scratch.model.lift.weight - lift).abs().max() > 1e-2


def test_from_scratch_is_the_same_network_from_random_weights(small_operator, downstream):
    data, validation = downstream
    parent = small_operator()
    before = weights(parent)
    first, again, other = (
        train_from_scratch(parent, data, validation=validation, config=QUICK, seed=seed) for seed in (0, 0, 1)
    )
    assert first.operator.model.config == parent.model.config
    assert same(weights(first.operator), weights(again.operator))
    assert not same(weights(first.operator), weights(other.operator))
    assert same(weights(parent), before)
    assert first.operator.card["kind"] == "from scratch"
    assert first.operator.normalization.to_dict() == parent.normalization.to_dict()  # dimensionless


def test_paper_normalisation_from_scratch_is_of_the_downstream_examples(small_operator, downstream):
    parent = small_operator(kind="paper")
    scratch = train_from_scratch(parent, downstream[0], config=QUICK).operator.normalization
    data = downstream[0]
    median = data.coefficients.abs().median(dim=0).values
    assert scratch.coefficient_medians == pytest.approx(median.tolist(), rel=1e-6)
    assert scratch.coefficient_medians != parent.normalization.coefficient_medians


def test_files_serve_as_data(small_operator, tmp_path):
    path = generate(FAR, tmp_path / "data.h5", 8, resolution=16)
    config = TrainConfig(steps=3)
    with DatasetFile(path) as file:
        from_file = fine_tune(small_operator(), file, config=config).operator
    in_memory = fine_tune(small_operator(), draw_split(FAR, "train", 8, resolution=16), config=config).operator
    assert same(weights(from_file), weights(in_memory))


def test_mixed_operator_is_tuned_on_one_of_its_systems(small_operator, downstream):
    mixed = small_operator("SYS-1(1,5)", "SYS-3(1,10)")
    config = TrainConfig(steps=2)
    with pytest.raises(ValueError, match="say which with system="):
        fine_tune(mixed, downstream[0], config=config)
    tuned = fine_tune(mixed, downstream[0], system="poisson", config=config).operator
    assert [system.name for system in tuned.systems] == ["poisson", "helmholtz"]
    with pytest.raises(ValueError, match="was trained for poisson, got helmholtz"):
        fine_tune(small_operator(), downstream[0], system="helmholtz", config=config)


# Learning-rate grid ---------------------------------------------------------------------------------------------------


def test_grid_keeps_the_rate_that_is_best_on_validation(small_operator, downstream):
    data, validation = downstream
    rates = (1e-9, 3e-3, 1e-8)
    result = fine_tune(small_operator(), data, validation=validation, config=QUICK, learning_rates=rates)
    assert set(result.tried) == set(rates)
    assert result.learning_rate == min(rates, key=result.tried.get) == 3e-3
    assert error(result.operator, validation) == pytest.approx(result.validation_error, rel=1e-4)
    assert result.validation_error <= result.tried[3e-3]
    alone = fine_tune(small_operator(), data, validation=validation, config=QUICK, learning_rates=[3e-3])
    assert alone.tried[3e-3] == pytest.approx(result.tried[3e-3], rel=1e-3)  # each rate starts afresh


def test_zero_solutions_do_not_choose(small_operator, downstream):
    """Like reports that one example of zeros makes each validation error NaN, and the first learning rate wins."""
    data, validation = downstream
    zeros = Examples(*(torch.zeros_like(part[:1]) for part in validation))._replace(coefficients=data.coefficients[:1])
    mixed = Examples(*(torch.cat(parts) for parts in zip(zeros, validation, strict=True)))
    rates = (1e-9, 3e-3)
    alone, among = (
        fine_tune(small_operator(), data, validation=each, config=QUICK, learning_rates=rates)
        for each in (validation, mixed)
    )
    assert among.learning_rate == alone.learning_rate == 3e-3
    assert among.tried == pytest.approx(alone.tried, rel=1e-5)
    with pytest.raises(ValueError, match="validation: expected an example whose solution is not zero"):
        fine_tune(small_operator(), data, validation=zeros, config=QUICK)


def test_grid_needs_validation(small_operator, downstream):
    for start in (fine_tune, train_from_scratch):
        with pytest.raises(ValueError, match="choosing among several needs validation examples"):
            start(small_operator(), downstream[0], config=QUICK, learning_rates=(1e-4, 1e-3))


def test_stopping_ends_the_grid(small_operator, downstream):
    data, validation = downstream
    result = fine_tune(
        small_operator(),
        data,
        validation=validation,
        config=QUICK,
        learning_rates=(1e-4, 1e-3),
        callback=lambda _: True,
    )
    assert result.history.stopped
    assert result.history.rows[-1]["step"] <= QUICK.report_every


# Choice of the weights ------------------------------------------------------------------------------------------------


def test_the_untouched_start_is_a_candidate(small_operator, downstream):
    """A rate that ruins the weights leaves them as they were; so does training from scratch."""
    data, validation = downstream
    parent = small_operator()
    ruinous = TrainConfig(steps=3, learning_rate=3.0, validate_every=1)
    result = fine_tune(parent, data, validation=validation, config=ruinous)
    assert (result.chosen_step, result.interpolation) == (0, 0.0)
    assert same(weights(result.operator), weights(parent))
    assert result.validation_error == pytest.approx(error(parent, validation), rel=1e-5)
    assert result.tried[3.0] > result.validation_error  # what that rate reached is recorded all the same
    card = result.operator.card
    assert (card["chosen_step"], card["interpolation"]) == (0, 0.0)
    assert card["best_validation_error"] == result.validation_error
    scratch = train_from_scratch(parent, data, validation=validation, config=ruinous)
    assert scratch.chosen_step == 0
    begun = train_from_scratch(parent, data, config=TrainConfig(steps=1, learning_rate=1e-30)).operator
    assert same(weights(scratch.operator), weights(begun))


@pytest.mark.parametrize("rate", [1e-3, 1e-2, 3e-2, 1e-1])
def test_fine_tuned_is_never_worse_than_its_start_on_validation(small_operator, downstream, rate):
    data, validation = downstream
    parent = small_operator()
    result = fine_tune(parent, data, validation=validation, config=replace(QUICK, learning_rate=rate))
    assert error(result.operator, validation) <= error(parent, validation) * (1 + 1e-6)
    assert result.validation_error == pytest.approx(error(result.operator, validation), rel=1e-5)
    assert result.validation_error <= result.history.best_error


def test_weights_are_chosen_along_the_line_from_the_start(small_operator, downstream, monkeypatch):
    data, validation = downstream
    parent = small_operator()
    monkeypatch.setattr(transfer_module, "LINE", ())
    plain = fine_tune(parent, data, validation=validation, config=QUICK)
    assert (plain.chosen_step, plain.interpolation) == (plain.history.best_step, 1.0)
    shares = [0.1 * tenth for tenth in range(1, 20) if tenth != 10]
    monkeypatch.setattr(transfer_module, "LINE", shares)
    result = fine_tune(parent, data, validation=validation, config=QUICK)
    start, end = weights(parent), weights(plain.operator)

    def at(share):
        operator = parent.copy()
        operator.model.load_state_dict({key: start[key] + share * (end[key] - start[key]) for key in start})
        return error(operator, validation)

    errors = {share: at(share) for share in (0.0, 1.0, *shares)}
    assert result.interpolation == min(errors, key=errors.get) not in (0.0, 1.0)
    assert error(result.operator, validation) == pytest.approx(min(errors.values()), rel=1e-4)
    assert result.chosen_step == plain.chosen_step
    assert not result.operator.model.training


def test_training_from_scratch_tries_no_line(small_operator, downstream, monkeypatch):
    data, validation = downstream
    monkeypatch.setattr(transfer_module, "LINE", tuple(i / 50 for i in range(1, 100) if i != 50))
    result = train_from_scratch(small_operator(), data, validation=validation, config=QUICK)
    assert (result.chosen_step, result.interpolation) == (result.history.best_step, 1.0)


def test_without_validation_the_last_weights_are_kept(small_operator, downstream):
    result = fine_tune(small_operator(), downstream[0], config=QUICK)
    assert (result.chosen_step, result.interpolation, result.validation_error) == (QUICK.steps, 1.0, None)
    assert "best_validation_error" in result.operator.card


# Zero-shot and pre-training -------------------------------------------------------------------------------------------


def test_zero_shot_evaluation_is_reproducible_and_on_the_test_stream(small_operator):
    operator = small_operator()
    torch.manual_seed(1)
    first = evaluate(operator, FAR, count=16, resolution=16)
    torch.manual_seed(2)
    assert evaluate(operator, FAR, count=16, resolution=16) == first
    assert evaluate(operator, FAR, count=16, resolution=16, seed=1)["error"] != first["error"]
    test = draw_split(FAR, "test", 16, resolution=16)
    assert first["error"] == pytest.approx(error(operator, test), rel=1e-5)
    assert first["median"] <= first["percentile_90"] <= first["worst"]
    assert (first["task"], first["examples"], first["resolution"]) == ("SYS-1(5,10)", 16, 16)
    with pytest.raises(ValueError, match="was trained for poisson, got helmholtz"):
        evaluate(operator, Task.parse("SYS-3(1,10)"), count=2, resolution=16)


def test_every_shift_of_the_paper_is_measured(small_operator):
    errors = evaluate_shifts(small_operator("SYS-1(1,5)", "SYS-3(1,10)"), count=2, resolution=16)
    assert set(errors) == {
        "SYS-1(1,5)", "SYS-1(1,2.5)", "SYS-1(2.5,7.5)", "SYS-1(5,10)", "SYS-1(10,20)",
        "SYS-3(1,10)", "SYS-3(1,5)", "SYS-3(5,12)",
    }  # fmt: skip


def map_of(task, count=3, points=4, n=32):
    """Sources of a task and values of its dial and parameters."""
    source = task.sample(count, n, torch.Generator().manual_seed(0)).source
    dial = torch.linspace(task.low, task.high, points, dtype=torch.float64).round()
    parameters = torch.rand(points, 1, len(task.system.parameters), generator=torch.Generator().manual_seed(1)) + 1
    return source, dial.clamp(min=0.5), parameters


def test_error_map_is_the_error_at_every_point(small_operator, task, monkeypatch):
    system, labels = task.system, [task.label]
    operators = [small_operator(*labels), small_operator(*labels, seed=1), small_operator(*labels, width=6)]
    source, dial, parameters = map_of(task)
    errors = error_map(operators, source, dial, parameters)
    assert errors.shape == (3, 4)
    for i, value in enumerate(dial):
        rows = parameters[i].double().expand(len(source), -1)
        coefficients = system.coefficients(value.expand(len(source)), source, rows).float()
        solution = system.solve(source, coefficients)
        for operator, error in zip(operators, errors[:, i], strict=True):
            expected = relative_error(operator.predict(source, coefficients), solution).mean()
            assert error.item() == pytest.approx(expected.item(), rel=1e-4)
    monkeypatch.setattr(errors_module, "MAP_POINTS", 1)  # one point at a time
    torch.testing.assert_close(error_map(operators, source, dial, parameters), errors, rtol=1e-4, atol=0)


def test_error_map_leaves_out_what_a_source_cannot_reach(small_operator):
    operator = small_operator("SYS-2(0.2,1)")
    band = torch.cos(2 * torch.pi * torch.arange(32) / 32)[None, :, None].expand(1, 32, 32).contiguous()
    parameters = torch.tensor([[[0.0, 2.0, 0.0]], [[1.5, 2.0, 0.0]]])  # it varies only across a flow in x
    errors = error_map([operator], band, torch.tensor([5.0, 5.0]), parameters)
    assert errors.isnan().tolist() == [[True, False]]


def test_error_map_of_a_trained_operator_rises_out_of_its_range(paper_system):
    name = {"poisson": "sys-1", "advection_diffusion": "sys-2", "helmholtz": "sys-3"}[paper_system.name]
    task = Task.parse(PAPER_TASKS[paper_system.name]["pre-training"])
    source, _, parameters = map_of(task, n=64)
    dial = torch.tensor([task.high / 2, 2 * task.high], dtype=torch.float64)
    inside, outside = error_map([load_operator(name)], source, dial, parameters[:1])[0]
    assert inside < 0.05 < outside


def test_error_map_refuses_wrong_shapes(small_operator):
    source, dial, parameters = map_of(NEAR)
    operator = small_operator()
    with pytest.raises(ValueError, match=r"expected sources \(s, n, n\) .*, got \(32, 32\) and \(4,\)"):
        error_map([operator], source[0], dial, parameters)
    with pytest.raises(ValueError, match="expected at least one operator, got none"):
        error_map([], source, dial, parameters)
    with pytest.raises(ValueError, match=r"parameters: expected to broadcast to \(4, 3, 1\), got \(2, 1\)"):
        error_map([operator], source, dial, torch.ones(2, 1))
    with pytest.raises(ValueError, match="dial: expected finite values"):
        error_map([operator], source, dial * torch.nan, parameters)


# those for coefficients that are fields, and for evolutions, have tests of their own
@pytest.mark.parametrize("recipe", [name for name in RECIPES if name != "correction" and not name.startswith("step")])
def test_pretraining_writes_its_card(monkeypatch, recipe):
    monkeypatch.setitem(SIZES, "tiny", {"width": 4, "modes": 4})
    config = TrainConfig(steps=4, loss=RECIPES[recipe].loss, report_every=1, validate_every=2)
    operator, history = pretrain(
        [NEAR], config, recipe=recipe, size="tiny", batch_size=4, resolution=16, validation_count=4, seed=7
    )
    card = operator.card
    assert (card["tasks"], card["recipe"], card["size"], card["seed"]) == (["SYS-1(1,5)"], recipe, "tiny", 7)
    assert card["examples_seen"] == history.examples_seen == 16
    assert card["parameters"] == operator.model.parameter_count
    assert (card["kind"], card["precision"]) == ("pre-trained", "float32")
    assert [step for step, _ in card["curve"]] == [2, 4]
    assert card["best_validation_error"] == history.best_error
    assert operator.normalization.kind == RECIPES[recipe].normalization
    assert bool(operator.model.config.gate_width) == (recipe in ("dimensionless", "fields"))
    assert bool(operator.model.config.mode_channels) == recipe.startswith("symbol")


def test_second_operators_are_for_pretraining(monkeypatch):
    """They make it broad; few-shot training meets one equation, and is told that alone."""
    monkeypatch.setitem(SIZES, "tiny", {"width": 4, "modes": 4})
    calls, second_operator = [], normalization_module.second_operator
    monkeypatch.setattr(normalization_module, "second_operator", lambda *a: calls.append(1) or second_operator(*a))
    settings = {"recipe": "symbol-composed", "size": "tiny", "batch_size": 4, "resolution": 16, "validation_count": 4}
    operator, _ = pretrain([NEAR], TrainConfig(steps=3), **settings)
    assert len(calls) == 2 * 3  # of the source and of the symbol, in each step
    data = NEAR.sample(4, 16, torch.Generator().manual_seed(0))
    for start in (fine_tune, train_from_scratch):
        start(operator, data, config=TrainConfig(steps=2))
    pretrain([NEAR], TrainConfig(steps=2), **settings | {"recipe": "symbol"})
    assert len(calls) == 6
    with pytest.raises(ValueError, match=r"composed: expected a share in \[0, 1\], got 2"):
        TrainConfig(composed=2)


def test_pretraining_on_files(monkeypatch, tmp_path):
    monkeypatch.setitem(SIZES, "tiny", {"width": 4, "modes": 4})
    path = generate(NEAR, tmp_path / "data.h5", 10, resolution=16)
    config = TrainConfig(steps=3)
    with DatasetFile(path) as file:
        operator, history = pretrain([NEAR], config, size="tiny", batch_size=4, data=[file], validation_count=4)
        assert history.examples_seen == 4 + 4 + 4  # two of ten are held out
        said = {"file": "data.h5", "system": "poisson", "task": "SYS-1(1,5)", "split": "train", "seed": 0, "of": 10}
        said |= {"resolution": 16, "digest": file_digest(path)}
        assert operator.card["data"] == [said | {"examples": 8}]
        assert operator.card["validation"] == [said | {"examples": 2}]
        assert operator.card["resolution"] == 16
        coarse, _ = pretrain([NEAR], config, size="tiny", batch_size=4, data=path, resolution=8, validation=path)
        assert (coarse.card["resolution"], coarse.card["data"][0]["examples"]) == (8, 10)
        with pytest.raises(ValueError, match="expected examples of helmholtz, got poisson"):
            pretrain([Task.parse("SYS-3(1,10)")], config, size="tiny", data=[file])


def test_the_normalisation_is_that_of_the_given_examples(monkeypatch):
    """Like reports that statistics of another data set are used to scale the given one."""
    monkeypatch.setitem(SIZES, "tiny", {"width": 4, "modes": 4})
    data = draw_split(NEAR, "train", 8, resolution=16)
    larger = data._replace(source=7 * data.source, solution=7 * data.solution)
    settings = dict(recipe="paper", size="tiny", validation=data)
    one, other = (pretrain([NEAR], TrainConfig(steps=1), data=each, **settings)[0] for each in (data, larger))
    assert other.normalization.source_rms == pytest.approx(7 * one.normalization.source_rms)
    assert one.normalization.coefficient_medians == pytest.approx(data.coefficients.abs().median(dim=0).values.tolist())


def test_data_in_other_forms_work_or_are_one_line(small_operator, downstream):
    """Like reports of tracebacks from inside a training, on arrays, other types and other shapes."""
    data, validation = downstream
    start, config = small_operator(), TrainConfig(steps=3, validate_every=1)
    expected = fine_tune(start, data, validation=validation, config=config)
    for form in (
        lambda each: Examples(*(part.double() for part in each)),
        lambda each: Examples(*(part.numpy() for part in each)),
        lambda each: tuple(part.double().numpy() for part in each),
    ):
        found = fine_tune(start, form(data), validation=form(validation), config=config)
        assert same(weights(found.operator), weights(expected.operator))
    row = data._replace(coefficients=data.coefficients[0])
    full = row._replace(coefficients=row.coefficients.expand(8, 3))
    tuned = [weights(fine_tune(start, each, config=config).operator) for each in (row, full)]
    assert same(*tuned)
    for wrong, message in (
        ({"source": data.source[:, None], "solution": data.solution[:, None]}, r"got \(8, 1, 16, 16\).*source.squeeze"),
        ({"coefficients": data.coefficients[:, :2]}, r"poisson expects shape \(..., 3\) for k11 k22 k12, got \(8, 2\)"),
        (
            {"coefficients": data.coefficients[:3]},
            r"expected coefficients \(count, c\) and dial \(count,\) for 8",
        ),
        ({"solution": data.solution[:4]}, "sources and solutions of one shape"),
        ({"solution": torch.nan * data.solution}, "solution: expected finite values"),
        ({"source": data.source + 1}, "expects a source of zero mean"),
        ({"source": data.source + 0j}, "expected a dense tensor of real numbers"),
        ({"solution": 0 * data.solution}, "data: expected an example whose solution is not zero"),
    ):
        for change in (fine_tune, train_from_scratch):
            with pytest.raises(ValueError, match=message):
                change(start, data._replace(**wrong), config=config)
    for wrong, message in (
        (data.take(slice(0, 0)), "data: expected at least one example, got none"),
        ([1, 2], "data: expected a path, a DatasetFile, or Examples"),
    ):
        with pytest.raises(ValueError, match=message):
            fine_tune(start, wrong, config=config)
    with pytest.raises(ValueError, match="batch size: expected at least 1, got 0"):
        fine_tune(start, data, batch_size=0, config=config)
    with pytest.raises(ValueError, match="expected at least one example for each of 1 tasks"):
        pretrain([NEAR], config, size="64K", batch_size=0)
    grids = [data, data.resampled(8)]
    with pytest.raises(ValueError, match=r"data: on grids of \[8, 16\] points; give the resolution to train on"):
        pretrain([FAR, FAR], config, size="64K", data=grids)


def test_given_examples_lie_in_the_range_of_their_task():
    with pytest.raises(ValueError, match=r"expected values of eigenvalue within SYS-1\(1,5\), got "):
        pretrain([NEAR], size="64K", data=draw_split(FAR, "train", 4, resolution=16))


def test_evaluation_on_given_examples_leaves_out_zero_solutions(small_operator, downstream):
    operator, (data, _) = small_operator(), downstream
    zeros = data._replace(source=data.source * (torch.arange(8) > 2)[:, None, None])
    zeros = zeros._replace(solution=FAR.system.solve(zeros.source, zeros.coefficients))
    found = evaluate(operator, data=zeros)
    assert (found["examples"], found["left_out"], found["resolution"]) == (8, 3, 16)
    assert found["error"] == pytest.approx(error(operator, data.take(slice(3, None))), rel=1e-5)
    assert evaluate(operator, FAR, data=data, count=4, resolution=32)["resolution"] == 32


def test_pretraining_on_fixed_examples(monkeypatch):
    """Each is read as often as there are epochs, and they need not be in a file."""
    monkeypatch.setitem(SIZES, "tiny", {"width": 4, "modes": 4})
    tasks = [NEAR, Task.parse("SYS-3(1,10)")]
    data = [draw_split(task, "train", 4, resolution=16) for task in tasks]
    settings = dict(size="tiny", batch_size=4, validation_count=4)
    operator, history = pretrain(tasks, TrainConfig(steps=6), data=data, **settings)
    assert history.examples_seen == 4 + 2 + 4 + 2 + 4 + 2  # one of each four is held out
    assert [one["examples"] for one in operator.card["data"] + operator.card["validation"]] == [3, 3, 1, 1]
    assert operator.card["resolution"] == 16
    with pytest.raises(ValueError, match="expected one set of examples for each task"):
        pretrain(tasks, TrainConfig(steps=1), data=data[:1], **settings)


def test_unknown_recipes_and_sizes_are_refused():
    with pytest.raises(
        ValueError,
        match="recipe: expected one of dimensionless, symbol, paper, symbol-composed, fields, correction, step, "
        "step-residual, got 'theirs'",
    ):
        new_operator([NEAR], recipe="theirs")
    with pytest.raises(ValueError, match="size: expected one of 64K, 256K, 1M, 16M, 256M, auto, got '2M'"):
        new_operator([NEAR], size="2M")


def test_inputs_for_an_equation_that_it_is_not_trained_on():
    """Channels of both, scaled to the values of both; what it was not trained on can be told, and is heard."""
    other = Task.parse("SYS-2(0.2,1)")
    alone, wide = new_operator([NEAR], size="64K"), new_operator([NEAR], size="64K", inputs_for=[other])
    assert wide.card == alone.card
    names = wide.normalization.channel_names
    assert set(names) - set(alone.normalization.channel_names) == {"advection_x", "advection_y"}
    examples = draw_split(other, "test", 8, resolution=32)
    encoded = wide.normalization.encode(examples.source, examples.coefficients, other.system)
    assert encoded.scalars.abs().max() < 3
    flowing = wide.predict(examples.source, examples.coefficients, other.system)
    still = examples.coefficients * torch.tensor([1.0, 1, 1, 0, 0])
    assert relative_error(wide.predict(examples.source, still, other.system), flowing).min() > 1e-4
    config = TrainConfig(steps=2)
    trained, _ = pretrain(
        [NEAR], config, size="64K", batch_size=4, resolution=16, validation_count=2, inputs_for=[other]
    )
    assert (trained.card["tasks"], trained.card["examples_seen"]) == (["SYS-1(1,5)"], 8)
    assert trained.normalization.to_dict() == wide.normalization.to_dict()


# A new system ---------------------------------------------------------------------------------------------------------


def test_a_new_system_goes_through_everything(monkeypatch, tmp_path, registry):
    class Biharmonic(SpectralSystem):
        """``b lap^2 u = f``: all that a new PDE needs."""

        name = "biharmonic"
        label = "SYS-8"
        equation = r"b \Delta^2 u = f"
        coefficient_names = ("b",)
        dialled = Parameter("b", 0.1, 4)
        shifts: ClassVar = {"pre-training": (0.5, 2)}
        zero_mean = True

        def symbol(self, coefficients, n):
            kx, ky = wavenumbers(n, dtype=coefficients.dtype, device=coefficients.device)
            return coefficients[..., 0, None, None] * (4 * torch.pi**2 * (kx**2 + ky**2)) ** 2

    monkeypatch.setitem(SIZES, "tiny", {"width": 6, "modes": 4})
    task = Task.parse("SYS-8(0.5,2)")
    assert Task.parse("biharmonic(0.5,2)") == task

    examples = task.sample(8, 16, torch.Generator().manual_seed(0), dtype=torch.float64)
    assert task.system.residual(examples.solution, examples.source, examples.coefficients).abs().max() < 1e-10
    x = torch.arange(16, dtype=torch.float64) / 16
    wave = torch.cos(2 * torch.pi * 2 * x).expand(16, 16)
    solution = task.system.solve(wave, torch.tensor([0.7], dtype=torch.float64))
    torch.testing.assert_close(solution, wave / (0.7 * (4 * torch.pi) ** 4), rtol=1e-12, atol=1e-16)

    path = generate(task, tmp_path / "data.h5", 12, resolution=16)
    config = TrainConfig(steps=40, learning_rate=1e-2, validate_every=10)
    with DatasetFile(path) as file:
        assert file.system is SYSTEMS["biharmonic"]
        for settings in ({"data": [file]}, {"resolution": 16}, {"resolution": 16, "recipe": "paper"}):
            trained, history = pretrain([task], config, size="tiny", batch_size=8, validation_count=8, **settings)
            assert history.best_error < history.rows[0]["validation_error"]

    bundle = trained.save(tmp_path / "bundle.safetensors")
    source, coefficients, _, _ = examples
    prediction = load_operator(bundle).predict(source, coefficients)
    assert torch.equal(prediction, trained.predict(source, coefficients))

    mixed, _ = pretrain(
        [task, NEAR], TrainConfig(steps=2), size="tiny", batch_size=4, resolution=16, validation_count=4
    )
    assert mixed.predict(source, coefficients, "biharmonic").shape == (8, 16, 16)
    tuned = fine_tune(mixed, draw_split(task, "train", 4, resolution=16), system="SYS-8", config=TrainConfig(steps=2))
    assert evaluate(tuned.operator, task, count=4, resolution=16)["error"] > 0
    assert set(evaluate_shifts(tuned.operator, count=2, resolution=16)) >= {"SYS-1(1,5)"}


# What is left open is the recipe's, and cards are made anew -----------------------------------------------------------


def test_unset_fields_are_the_recipes():
    settings = {"size": "64K", "batch_size": 4, "resolution": 16, "validation_count": 2}
    for recipe, rate, loss in (("paper", 1e-3, "squared"), ("dimensionless", 5e-3, "relative")):
        operator, history = pretrain([NEAR], TrainConfig(steps=2, report_every=1), recipe=recipe, **settings)
        assert (operator.card["loss"], operator.card["learning_rate"]) == (loss, rate)
        warmup = {"paper": 1, "dimensionless": 1 / 21}[recipe]
        assert history.rows[0]["learning_rate"] == pytest.approx(rate * warmup)
    paper, _ = pretrain([NEAR], TrainConfig(steps=2), recipe="paper", **settings)
    tuned = fine_tune(paper, draw_split(FAR, "train", 4, resolution=16), config=TrainConfig(steps=1)).operator
    assert (tuned.card["loss"], tuned.card["learning_rate"]) == ("squared", 1e-3)
    own = fine_tune(paper, draw_split(FAR, "train", 4, resolution=16), config=TrainConfig(steps=1, loss="relative"))
    assert own.operator.card["loss"] == "relative"


def test_cards_say_nothing_that_belongs_to_the_parent():
    parent = load_operator("sys-1")
    data = draw_split(FAR, "train", 4, resolution=32)
    for adapt, kind, origin in ((fine_tune, "fine-tuned", "parent"), (train_from_scratch, "from scratch", "twin_of")):
        card = adapt(parent, data, config=TrainConfig(steps=2), batch_size=3).operator.card
        assert card["kind"] == kind
        assert not {"errors", "command", "data", "tasks"} & set(card)
        assert (card["batch_size"], card["downstream_examples"], card["examples_seen"]) == (3, 4, 4)
        assert card[origin]["errors"] == parent.card["errors"]
        assert card[origin]["tasks"] == ["SYS-1(1,5)"]


def test_a_bundle_keeps_its_recipe(small_operator, tmp_path):
    """One that version 0.1.0 called otherwise, too; one that nobody knows is an error, and no other is trained by."""
    operator = small_operator()
    operator.card["recipe"] = "ours"
    again = load_operator(operator.save(tmp_path / "former.safetensors"))
    assert again.card["recipe"] == read_header(tmp_path / "former.safetensors").card["recipe"] == "dimensionless"
    assert recipe_of(again) is RECIPES["dimensionless"]
    operator.card["recipe"] = "theirs"
    with pytest.raises(ValueError, match=r"recipe: expected one of dimensionless, .*, got 'theirs'"):
        fine_tune(operator, draw_split(NEAR, "train", 2, resolution=32), config=TrainConfig(steps=1))
