"""The training loop: losses, schedule, best on validation, resuming, stopping, bad settings, CPU against CUDA."""

import itertools
import json
import math
import signal
from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sciml_fm_core import Examples, FixedBatches, FreshBatches, Task, TrainConfig, draw_split, fit
from sciml_fm_core.data.batches import TurnedBatches
from sciml_fm_core.digests import with_digest
from sciml_fm_core.training import loop as training_module
from sciml_fm_core.training import precision as precision_module
from sciml_fm_core.training.checkpoints import CheckpointError
from sciml_fm_core.training.config import COMPILE_STEPS
from sciml_fm_core.training.loop import Member, fit_together
from sciml_fm_core.training.losses import mean_losses, training_loss
from sciml_fm_core.training.precision import compiles

TASK = Task.parse("SYS-1(1,5)")
mean_errors = partial(mean_losses, loss="relative")


def fresh(seed=0, batch_size=4, n=16, **settings):
    return FreshBatches([TASK], batch_size, resolution=n, seed=seed, **settings)


def held_out(count=8, n=16):
    return [(TASK.system, draw_split(TASK, "validation", count, resolution=n))]


def weights(operator):
    return {key: value.clone() for key, value in operator.model.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


class Killed(Exception):
    """Stands for a killed process."""


# Losses ---------------------------------------------------------------------------------------------------------------


def test_losses_by_hand():
    solution = torch.stack([torch.full((4, 4), 2.0), torch.ones(4, 4)])
    prediction = torch.stack([torch.full((4, 4), 3.0), torch.full((4, 4), 1.5)])
    nothing = torch.zeros(2)
    parts = [(TASK.system, Examples(torch.zeros_like(solution), nothing, solution, nothing))]
    # relative: |3 - 2| / 2 and |1.5 - 1| / 1; squared: summed over 16 points, averaged over the batch
    torch.testing.assert_close(training_loss(prediction, parts, "relative"), torch.tensor((0.5 + 0.5) / 2))
    torch.testing.assert_close(training_loss(prediction, parts, "squared"), torch.tensor((16 * 1 + 16 * 0.25) / 2))


@pytest.mark.parametrize("loss", ["relative", "squared"])
@pytest.mark.parametrize("kind", ["paper", "dimensionless"])
def test_first_reported_loss_is_that_of_the_predictions(small_operator, loss, kind):
    operator, data = small_operator(kind=kind), fresh()
    ((system, examples),) = data.batch(0, 0)
    expected = training_loss(operator.predict(examples.source, examples.coefficients), [(TASK.system, examples)], loss)
    history = fit(operator, data, TrainConfig(steps=1, loss=loss, report_every=1))
    assert history.rows[0]["loss"] == pytest.approx(expected.item(), rel=1e-4)
    assert system is TASK.system


def test_mean_error_is_over_examples_not_sets(small_operator):
    operator = small_operator()
    many, one = held_out(7)[0][1], held_out(1, n=8)[0][1]
    errors = []
    for part in (many, one):
        prediction = operator.predict(part.source, part.coefficients)
        errors += ((prediction - part.solution).norm(dim=(1, 2)) / part.solution.norm(dim=(1, 2))).tolist()
    measured = mean_errors([operator], [(TASK.system, many), (TASK.system, one)])[0]
    assert measured == pytest.approx(sum(errors) / 8, rel=1e-5)


# Learning -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("loss", "kind"), [("relative", "dimensionless"), ("squared", "paper")])
def test_loss_falls(small_operator, loss, kind):
    operator, validation = small_operator(kind=kind), held_out(32)
    before = mean_errors([operator], validation)[0]
    config = TrainConfig(steps=120, learning_rate=5e-3, loss=loss, validate_every=40)
    history = fit(operator, fresh(batch_size=8), config, validation=validation)
    assert history.best_error < 0.6 * before
    assert mean_errors([operator], validation)[0] == pytest.approx(history.best_error, rel=1e-5)
    assert history.examples_seen == 120 * 8
    assert not operator.model.training


def test_mixtures_train(small_operator):
    labels = ("SYS-1(1,5)", "SYS-2(0.2,1)", "SYS-3(1,10)")
    operator, tasks = small_operator(*labels), [Task.parse(label) for label in labels]
    validation = [(task.system, draw_split(task, "validation", 8, resolution=16)) for task in tasks]
    before = mean_errors([operator], validation)[0]
    history = fit(
        operator,
        FreshBatches(tasks, 9, resolution=16),
        TrainConfig(steps=60, learning_rate=5e-3),
        validation=validation,
    )
    assert history.best_error < before


def test_rate_decays_to_zero_as_half_a_cosine_after_a_warmup(small_operator):
    config = TrainConfig(steps=20, learning_rate=3e-3, warmup=4, report_every=1)
    history = fit(small_operator(), fresh(), config)
    for row in history.rows:
        step = row["step"] - 1
        expected = 3e-3 * 0.5 * (1 + math.cos(math.pi * step / 20)) * min(1, (step + 1) / 5)
        assert row["learning_rate"] == pytest.approx(expected, rel=1e-9)
    assert history.rows[-1]["learning_rate"] < 0.01 * 3e-3


def test_same_seeds_same_weights(small_operator):
    first, again, other = small_operator(), small_operator(), small_operator()
    for operator, seed in ((first, 0), (again, 0), (other, 1)):
        fit(operator, fresh(seed), TrainConfig(steps=5))
    assert same(weights(first), weights(again))
    assert not same(weights(first), weights(other))


def test_weights_of_lowest_validation_error_are_kept(small_operator, monkeypatch):
    operator, snapshots = small_operator(), []
    errors = iter([0.5, 0.2, 0.3, 0.2, 0.4])

    def measured(operators, sets, loss):
        snapshots.append(weights(operators[0]))
        return [next(errors)]

    monkeypatch.setattr(training_module, "mean_losses", measured)
    history = fit(operator, fresh(), TrainConfig(steps=10, validate_every=2), validation=held_out())
    assert (history.best_error, history.best_step) == (0.2, 4)
    assert same(weights(operator), snapshots[1])
    assert not same(snapshots[0], snapshots[1])
    assert not same(snapshots[1], snapshots[3])


def test_without_validation_the_last_weights_are_kept(small_operator):
    operator, seen = small_operator(), []
    history = fit(
        operator, fresh(), TrainConfig(steps=4, report_every=1), callback=lambda _: seen.append(weights(operator))
    )
    assert history.best_error is None
    assert len(seen) == 4
    assert same(weights(operator), seen[-1])
    assert not same(seen[-2], seen[-1])


def test_progress_is_reported(small_operator):
    seen = []
    config = TrainConfig(steps=7, report_every=3, validate_every=3)
    history = fit(small_operator(), fresh(), config, validation=held_out(), callback=seen.append)
    assert [progress.step for progress in seen] == [3, 6, 7]
    assert all(progress.validation_error is not None for progress in seen)
    assert all(progress.examples_per_second > 0 and progress.steps == 7 for progress in seen)
    assert seen[-1].seconds_left == 0
    assert [row["step"] for row in history.rows] == [3, 6, 7]


# Stopping and resuming ------------------------------------------------------------------------------------------------


def test_callback_stops_and_keeps_the_best(small_operator):
    operator = small_operator()
    config = TrainConfig(steps=1000, report_every=5, validate_every=5)
    history = fit(operator, fresh(), config, validation=held_out(), callback=lambda progress: progress.step >= 10)
    assert history.stopped
    assert history.rows[-1]["step"] == 10
    assert mean_errors([operator], held_out())[0] == pytest.approx(history.best_error, rel=1e-5)


@pytest.mark.parametrize("fixed", [True, False])
def test_resumed_training_is_the_uninterrupted_one(small_operator, tmp_path, fixed):
    def data():
        if fixed:
            return FixedBatches([(TASK.system, draw_split(TASK, "train", 10, resolution=16))], 4)
        return fresh()

    config = TrainConfig(steps=24, learning_rate=5e-3, warmup=3, report_every=1, validate_every=4, checkpoint_every=7)
    whole = small_operator()
    expected = fit(whole, data(), config, validation=held_out())

    def kill(progress):
        if progress.step == 17:
            raise Killed

    checkpoint = tmp_path / "state"
    with pytest.raises(Killed):
        fit(small_operator(), data(), config, validation=held_out(), callback=kill, checkpoint=checkpoint)
    resumed, steps = small_operator(), []
    history = fit(
        resumed, data(), config, validation=held_out(), checkpoint=checkpoint, callback=lambda p: steps.append(p.step)
    )
    assert steps == list(range(15, 25))  # went on from the checkpoint at 14
    assert same(weights(resumed), weights(whole))
    assert (history.best_error, history.best_step) == (expected.best_error, expected.best_step)
    assert history.examples_seen == expected.examples_seen

    def numbers(rows):
        return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]

    assert numbers(history.rows) == numbers(expected.rows)
    # Once more: it is finished, and the same weights come back.
    finished = small_operator()
    fit(finished, data(), config, validation=held_out(), checkpoint=checkpoint)
    assert same(weights(finished), weights(whole))


def test_stopped_training_can_go_on(small_operator, tmp_path):
    config = TrainConfig(steps=12, report_every=1)
    whole, operator = small_operator(), small_operator()
    fit(whole, fresh(), config)
    stopped = fit(operator, fresh(), config, callback=lambda p: p.step == 5, checkpoint=tmp_path / "state")
    assert stopped.stopped
    history = fit(operator, fresh(), config, checkpoint=tmp_path / "state")
    assert not history.stopped
    assert same(weights(operator), weights(whole))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_the_state_between_two_steps(small_operator, tmp_path, number, monkeypatch):
    """Like reports on trainers that lose hours to Ctrl-C, or to the SIGTERM of a cluster whose time is up."""
    config = TrainConfig(steps=12, report_every=5, validate_every=3)  # between a validation and its report
    whole, stopped, data = small_operator(), small_operator(), fresh()
    expected = fit(whole, data, config, validation=held_out())
    draw = data.batch
    handlers = {each: signal.signal(each, signal.default_int_handler) for each in (signal.SIGINT, signal.SIGTERM)}

    def batch(step, progress):
        if step == 3:
            signal.raise_signal(number)
        return draw(step, progress)

    monkeypatch.setattr(data, "batch", batch)
    try:
        with pytest.raises(KeyboardInterrupt, match="4 of 12 steps are taken and are lost, as no checkpoint was asked"):
            fit(small_operator(), data, config)
        with pytest.raises(KeyboardInterrupt, match=r"stopped: 4 of 12 steps are taken and are kept in .*state, from"):
            fit(stopped, data, config, validation=held_out(), checkpoint=tmp_path / "state")
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
    for resumed in (stopped, small_operator()):  # as it was left, and from anew
        history = fit(resumed, fresh(), config, validation=held_out(), checkpoint=tmp_path / "state")
        assert same(weights(resumed), weights(whole))
        assert [row["validation_error"] for row in history.rows] == [row["validation_error"] for row in expected.rows]
        (tmp_path / "state").unlink()


class Doubled:
    """Batches of a library's user."""

    def __init__(self, factor):
        self._factor = factor

    def batch(self, step, progress):
        """Batches of the package, times a factor that no public attribute tells."""
        ((system, examples),) = fresh().batch(step, progress)
        return [(system, examples._replace(solution=self._factor * examples.solution))]


EXAMPLES = draw_split(TASK, "train", 6, resolution=16)
ONE_OFF = EXAMPLES._replace(solution=EXAMPLES.solution + torch.eye(6)[5][:, None, None] * torch.eye(16))


def fixed(examples=EXAMPLES, batch_size=2, **settings):
    return FixedBatches([(TASK.system, examples)], batch_size, **settings)


ANOTHER = [
    ({"data": fresh(1)}, "data.seed: 0 in the file, 1 asked for"),
    ({"data": fresh(batch_size=2)}, "data.batch_size: 4 in the file, 2 asked for"),
    ({"data": fresh(n={0: 16, 0.5: 32})}, "data.schedule.0.5: nothing in the file, 32 asked for"),
    ({"data": FreshBatches([Task.parse("SYS-1(1,6)")], 4, resolution=16)}, "data.tasks.0.high: 5.0 in the file, 6.0"),
    ({"data": TurnedBatches(fresh())}, "data.kind: 'FreshBatches' in the file, 'TurnedBatches' asked for"),
    ({"data": fixed()}, "data.kind: 'FreshBatches' in the file, 'FixedBatches' asked for"),
    ({"data": fixed(ONE_OFF), "first": {"data": fixed()}}, "data.sets.0.1.solution: "),
    ({"data": Doubled(2), "first": {"data": Doubled(1)}}, "first_batch.0.1.solution: "),
    ({"data": fresh(share=(0, 2))}, "data.share.1: 1 in the file, 2 asked for"),
    ({"validation": held_out(4)}, "validation.0.1.examples: 8 in the file, 4 asked for"),
    ({"validation": held_out(n=32)}, "validation.0.1.points: 16 in the file, 32 asked for"),
    ({"model": {"seed": 1, "card": "other"}}, "operator.seed: 0 in the file, 1 asked for"),
    ({"model": {"width": 4}}, "model.width: 8 in the file, 4 asked for"),
    ({"model": {"kind": "paper"}}, "normalization.0.kind: 'dimensionless' in the file, 'paper' asked for"),
    ({"frozen": "lift.bias"}, "frozen.0.0: nothing in the file, 'lift.bias' asked for"),
    ({"config": {"learning_rate": 1e-4}}, "config.learning_rate.0: 0.005 in the file, 0.0001 asked for"),
    ({"config": {"steps": 3}}, r"config.steps: 2 in the file, 3 asked for \(the learning rate falls to 0 at the end"),
]


@pytest.mark.parametrize(("other", "told"), ANOTHER, ids=[told.split(":")[0] for _, told in ANOTHER])
def test_a_checkpoint_belongs_to_one_training(small_operator, tmp_path, other, told):
    """Like reports on training frameworks that resume from whatever file lies at the path, and train something else."""

    def run(data=None, validation=None, model=None, frozen=None, config=None, first=None):
        operator = small_operator(**model or {})
        for name, parameter in operator.model.named_parameters():
            parameter.requires_grad_(name != frozen)
        settings = TrainConfig(**{"steps": 2, "checkpoint_every": 1 + len(model or {})} | (config or {}))
        fit(operator, data or fresh(), settings, validation=validation or held_out(), checkpoint=tmp_path / "state")
        return operator

    first = other.get("first", {})
    done = run(**first)
    assert same(weights(run(**first)), weights(done))
    with pytest.raises(
        CheckpointError, match=f"belongs to another training: .*{told}.*; remove it or use another name"
    ):
        run(**other)


@pytest.mark.parametrize("settings", [{}, {"config": {}}, {"config": 3, "a\nb": 1}, {"weights": [{"a\n": 1.0}]}])
def test_a_checkpoint_that_describes_no_training_is_refused_in_one_line(small_operator, tmp_path, settings):
    checkpoint, config = tmp_path / "state", TrainConfig(steps=2)
    fit(small_operator(), fresh(), config, checkpoint=checkpoint)
    rewrite(checkpoint, lambda header, tensors: header.update(training=settings))
    with pytest.raises(CheckpointError, match=r"belongs to another training: .+; remove it") as refused:
        fit(small_operator(), fresh(), config, checkpoint=checkpoint)
    assert str(refused.value).isprintable()


def test_what_is_no_checkpoint_is_refused(small_operator, tmp_path):
    checkpoint, config = tmp_path / "state", TrainConfig(steps=2)
    fit(small_operator(), fresh(), config, checkpoint=checkpoint)
    before = checkpoint.read_bytes()
    rewrite(checkpoint, lambda header, tensors: header.update(config=header.pop("training")["config"]))
    with pytest.raises(ValueError, match="an earlier version wrote it, and not what training it belongs to; remove it"):
        fit(small_operator(), fresh(), config, checkpoint=checkpoint)
    checkpoint.write_bytes(before[: len(before) // 2])
    with pytest.raises(ValueError, match=r"checkpoint .*: not a readable safetensors file.*; remove it to start again"):
        fit(small_operator(), fresh(), config, checkpoint=checkpoint)
    bundle = small_operator().save(tmp_path / "bundle.safetensors")
    with pytest.raises(ValueError, match="not one written by a training; remove it"):
        fit(small_operator(), fresh(), config, checkpoint=bundle)


def test_a_damaged_checkpoint_is_refused_and_changes_nothing(small_operator, tmp_path, generator):
    checkpoint, config = tmp_path / "state", TrainConfig(steps=2)
    fit(small_operator(), fresh(), config, checkpoint=checkpoint)
    whole = checkpoint.read_bytes()
    first = 8 + int.from_bytes(whole[:8], "little")
    operator = small_operator()
    before = {key: value.clone() for key, value in weights(operator).items()}
    for bit in torch.randint(8 * first, 8 * len(whole), (20,), generator=generator).tolist():
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        checkpoint.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged: its digest is not that of its contents"):
            fit(operator, fresh(), config, checkpoint=checkpoint)
    for key, value, told in (
        ("members", 3, "members: expected a list, got 3"),
        ("members", [{"learning_rate": "fast"}], r"members\[0\]: lacks status, history"),
        ("step", -1, "step: expected at least 0, got -1"),
        ("training", None, "training: expected names and values, got None"),
    ):
        checkpoint.write_bytes(whole)
        rewrite(checkpoint, lambda header, tensors, key=key, value=value: header.update({key: value}))
        with pytest.raises(CheckpointError, match=rf"checkpoint .*: {told}.*; remove it to start again"):
            fit(operator, fresh(), config, checkpoint=checkpoint)
    for change in (
        lambda header, tensors: tensors["0.model.output.bias"].fill_(torch.nan),
        lambda header, tensors: tensors.pop("0.model.output.bias"),
        lambda header, tensors: tensors.update({"0.model.output.bias": torch.zeros(2)}),
        lambda header, tensors: tensors.update({"optimizer.x.step": torch.zeros(())}),
        lambda header, tensors: tensors.pop("optimizer.0.exp_avg"),
    ):
        checkpoint.write_bytes(whole)
        rewrite(checkpoint, change)
        with pytest.raises(CheckpointError, match="expected the tensors of this training"):
            fit(operator, fresh(), config, checkpoint=checkpoint)
    assert same(weights(operator), before)


def rewrite(checkpoint, change):
    """A checkpoint with another header and other tensors, and the digest of these."""
    with safe_open(checkpoint, framework="pt") as file:
        header = json.loads(file.metadata()["header"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    change(header, tensors)
    save_file(tensors, checkpoint, metadata={"header": json.dumps(with_digest(header, tensors))})


def test_time_limit_ends_training_with_the_rate_at_zero(small_operator, monkeypatch):
    clock = itertools.count(0, 0.5)
    monkeypatch.setattr(training_module.time, "perf_counter", lambda: next(clock))
    config = TrainConfig(steps=100_000, learning_rate=2e-3, warmup=0, time_limit=30, report_every=1)
    history = fit(small_operator(), fresh(batch_size=1), config)
    assert 5 < history.rows[-1]["step"] < 100
    rates = [row["learning_rate"] for row in history.rows]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.05 * config.learning_rate


# Several operators together -------------------------------------------------------------------------------------------

RATES = (1e-4, 1e-3, 5e-3)


def members_of(make, rates=RATES, **settings):
    return [Member(make(seed=seed), rate, **settings) for seed, rate in enumerate(rates)]


def difference(one, other):
    """Difference of the predictions: a bias that the zero mean takes out again is trained by rounding alone."""
    (_, examples), *_ = held_out()
    predictions = [operator.predict(examples.source, examples.coefficients) for operator in (one, other)]
    return (predictions[0] - predictions[1]).norm() / predictions[0].norm()


@pytest.mark.parametrize("kind", ["paper", "dimensionless"])
def test_members_take_the_steps_they_would_take_alone(small_operator, kind):
    config = TrainConfig(steps=12, warmup=2, report_every=4, validate_every=4)
    members = members_of(lambda seed: small_operator(kind=kind, seed=seed))
    fit_together(members, fresh(), config, validation=held_out())
    for seed, member in enumerate(members):
        alone = small_operator(kind=kind, seed=seed)
        history = fit(alone, fresh(), replace(config, learning_rate=member.learning_rate), validation=held_out())
        assert difference(alone, member.operator) < 1e-4
        assert member.history.best_error == pytest.approx(history.best_error, rel=1e-5)
        assert [row["step"] for row in member.history.rows] == [row["step"] for row in history.rows]
        assert member.history.rows[-1]["loss"] == pytest.approx(history.rows[-1]["loss"], rel=1e-5)
        assert (member.status, member.history.examples_seen) == ("finished", 48)


def test_members_may_have_their_own_normalisation(small_operator):
    config, rate = TrainConfig(steps=6, learning_rate=1e-3), 1e-3
    operators = [small_operator(kind="paper", seed=0), small_operator(kind="paper", seed=1)]
    operators[1].normalization = operators[1].normalization.__class__(operators[1].systems, 0.3, (0.1, 0.2, 0.3))
    alone = [operator.copy() for operator in operators]
    fit_together([Member(operator, rate) for operator in operators], fresh(), config)
    for operator, together in zip(alone, operators, strict=True):
        fit(operator, fresh(), config)
        assert difference(operator, together) < 1e-4


def test_a_member_that_diverges_leaves_the_others_alone(small_operator):
    config = TrainConfig(steps=30, report_every=1)
    members = members_of(lambda seed: small_operator(), (1e30, 1e-3))
    fit_together(members, fresh(), config)
    assert [member.status for member in members] == ["diverged", "finished"]
    alone = small_operator()
    fit(alone, fresh(), replace(config, learning_rate=1e-3))
    assert difference(alone, members[1].operator) < 1e-4


def test_a_resumed_grid_is_the_uninterrupted_one(small_operator, tmp_path):
    config = TrainConfig(steps=20, report_every=1, validate_every=4, checkpoint_every=6)
    settings = {"validation": held_out()}
    whole, killed, resumed = (members_of(small_operator) for _ in range(3))
    fit_together(whole, fresh(), config, **settings)

    def kill(progress):
        if progress.step == 15:
            raise Killed

    with pytest.raises(Killed):
        fit_together(killed, fresh(), config, **settings, callback=kill, checkpoint=tmp_path / "state")
    fit_together(resumed, fresh(), config, **settings, checkpoint=tmp_path / "state")
    for one, other in zip(whole, resumed, strict=True):
        assert same(weights(one.operator), weights(other.operator))
        assert (one.status, one.history.best_error) == (other.status, other.history.best_error)


# Bad settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["source", "coefficients", "solution"])
def test_data_that_are_not_finite_are_named(small_operator, name, value):
    """Like reports that one NaN among the data of a surrogate is told as a training that diverges."""
    bad = EXAMPLES._replace(**{name: getattr(EXAMPLES, name).clone()})
    getattr(bad, name)[4].fill_(value)
    config, label_free = TrainConfig(steps=20), TrainConfig(steps=20, loss="physics")
    told = rf"data: .* NaN or infinity in {name} of example \d in the batch of step \d"
    if name != "coefficients":
        with pytest.raises(ValueError, match=told if name == "solution" else f"{name}: expected finite values"):
            fit(small_operator(), fixed(bad), config)
    with pytest.raises(
        ValueError, match=rf"validation: expected finite numbers, got NaN or infinity in {name} of example 4"
    ):
        fit(small_operator(), fresh(), config, validation=[(TASK.system, bad)])
    if name == "solution":
        fit(small_operator(), fixed(bad), label_free, validation=[(TASK.system, bad)])


def test_a_training_that_diverges_says_so(small_operator):
    told = r"the loss is (nan|inf) at step 10; lower the learning rate \(1e\+30\)"
    with pytest.raises(FloatingPointError, match=told):
        fit(small_operator(), fresh(), TrainConfig(steps=20, learning_rate=1e30))


def test_nothing_to_train_is_refused(small_operator):
    """Like reports on fine-tuning in which all was frozen and autograd complains."""
    operator = small_operator()
    operator.model.requires_grad_(False)
    with pytest.raises(ValueError, match=r"no weight requires a gradient; call model.requires_grad_"):
        fit(operator, fresh(), TrainConfig(steps=2))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"loss": "absolute"},
            "one of relative, logarithmic, squared, residual, physics, got 'absolute'",
        ),
        ({"precision": "half"}, "precision: expected one of float32, tf32, bfloat16, got 'half'"),
        ({"steps": 2.5}, "steps: expected a whole number, got 2.5"),
        ({"warmup": True}, "warmup: expected a whole number, got True"),
        ({"steps": 0}, "expected steps and intervals of at least 1"),
        ({"steps": 10**30}, "steps: expected at most 1000000000000, got 1000000000000000000000000000000"),
        ({"report_every": 0}, "expected steps and intervals of at least 1"),
        ({"validate_every": 0}, "expected steps and intervals of at least 1"),
        ({"learning_rate": 0.0}, "learning_rate: expected a finite number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate: expected a finite number above 0"),
        ({"learning_rate": float("inf")}, "learning_rate: expected a finite number above 0"),
        ({"time_limit": 0}, "time_limit: expected seconds above 0"),
        ({"time_limit": math.nan}, "time_limit: expected seconds above 0"),
        ({"warmup": -1}, "warmup: expected steps of at least 0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)


# How the network is run -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "device", "compiled"),
    [
        ({"steps": COMPILE_STEPS}, "cuda", True),
        ({"steps": COMPILE_STEPS - 1}, "cuda", False),
        ({"steps": COMPILE_STEPS, "time_limit": 10}, "cuda", False),
        ({"steps": COMPILE_STEPS}, "cpu", False),
        ({"steps": COMPILE_STEPS, "precision": "tf32"}, "cuda", False),
        ({"steps": 10, "compile": True}, "cpu", True),
        ({"steps": COMPILE_STEPS, "compile": False}, "cuda", False),
    ],
)
def test_long_trainings_on_a_gpu_are_compiled(settings, device, compiled, monkeypatch):
    monkeypatch.setattr(precision_module, "_has_compiler", lambda device: True)
    assert compiles(TrainConfig(**settings), torch.device(device)) == compiled
    monkeypatch.setattr(precision_module, "_has_compiler", lambda device: False)
    assert compiles(TrainConfig(**settings), torch.device(device)) == settings.get("compile", False)


def test_pointwise_products_of_fewer_bits_train_as_well(small_operator):
    task = Task.parse("SYS-1(1,5)")
    data, test = (draw_split(task, split, 32, resolution=32) for split in ("train", "test"))
    errors = {}
    for precision in ("float32", "bfloat16"):
        operator = small_operator()
        config = TrainConfig(steps=60, learning_rate=5e-3, precision=precision)
        fit(operator, FixedBatches([(task.system, data)], 8), config)
        errors[precision] = mean_errors([operator], [(task.system, test)])[0]
    assert errors["bfloat16"] != errors["float32"]
    assert errors["bfloat16"] == pytest.approx(errors["float32"], rel=0.1)


def test_tf32_needs_a_gpu(small_operator):
    task = Task.parse("SYS-1(1,5)")
    with pytest.raises(ValueError, match="precision: expected a CUDA GPU for tf32, got a CPU; use float32"):
        fit(small_operator(), FreshBatches([task], 4, resolution=32), TrainConfig(steps=1, precision="tf32"))


# CPU and CUDA ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("label", ["SYS-1(1,5)", "SYS-2(0.2,1)", "SYS-3(1,10)"])
def test_cuda_solves_trains_and_predicts_as_the_cpu_does(small_operator, tmp_path, label):
    task = Task.parse(label)
    data = draw_split(task, "train", 32, resolution=32)
    test = draw_split(task, "test", 16, resolution=32)
    on_gpu = task.sample(4, 32, torch.Generator("cuda").manual_seed(0))
    assert {tensor.device.type for tensor in on_gpu} == {"cuda"}  # fields stay on the device
    solved = task.system.solve(test.source.cuda(), test.coefficients.cuda())
    torch.testing.assert_close(solved.cpu(), test.solution, rtol=1e-3, atol=1e-4)
    errors, operators = {}, {}
    for device in ("cpu", "cuda"):
        operator = small_operator(label).to(device)
        batches = FixedBatches([(task.system, data)], 8, device=device)
        fit(operator, batches, TrainConfig(steps=60, learning_rate=5e-3))
        errors[device], operators[device] = mean_errors([operator], [(task.system, test)])[0], operator
    assert errors["cuda"] == pytest.approx(errors["cpu"], rel=0.05)
    prediction = operators["cuda"].predict(test.source, test.coefficients)
    assert prediction.device.type == "cpu"
    moved = operators["cuda"].copy().to("cpu").predict(test.source, test.coefficients)
    torch.testing.assert_close(prediction, moved, rtol=1e-3, atol=1e-3)
    history = fit(operators["cuda"], FreshBatches([task], 8, resolution=32, device="cuda"), TrainConfig(steps=5))
    assert history.examples_seen == 40


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("settings", [{"compile": True}, {"precision": "tf32"}, {"precision": "bfloat16"}])
def test_cuda_trains_as_well_compiled_and_with_fewer_bits(small_operator, settings):
    task = Task.parse("SYS-1(1,5)")
    data, test = (draw_split(task, split, 32, resolution=32) for split in ("train", "test"))
    errors = []
    for case in ({}, settings):
        operator = small_operator().to("cuda")
        batches = FixedBatches([(task.system, data)], 8, device="cuda")
        fit(operator, batches, TrainConfig(steps=60, learning_rate=5e-3, **case))
        errors.append(mean_errors([operator], [(task.system, test)])[0])
    assert errors[1] == pytest.approx(errors[0], rel=0.1)
