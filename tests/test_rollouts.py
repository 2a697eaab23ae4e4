"""Networks that take a step of an evolution: what they are told, their roll-outs, and how they are trained."""

import pytest
import torch

from sciml_fm_core import SYSTEMS, Task, TrainConfig, fine_tune, load_operator, pretrain, train_from_scratch
from sciml_fm_core.data.rollouts import FixedTrajectories, FreshTrajectories, Unrolled
from sciml_fm_core.evaluation.rollouts import (
    correlations,
    keeps_spectrum,
    rollout,
    rollout_errors,
    spectrum,
    steps_correlated,
)
from sciml_fm_core.experiments.evolutions import AS_MUCH, FOR_ALL, WHOLE, evolution_transfer, shared_verdicts
from sciml_fm_core.models.normalization import StepNormalization
from sciml_fm_core.physics.evolution import stages
from sciml_fm_core.physics.spectral import shell_sizes, transform
from sciml_fm_core.physics.trajectories import Trajectories, draw_trajectories
from sciml_fm_core.training.transfer import new_operator

LINEAR, BURGERS, SCALAR, NS = (
    Task.parse(label) for label in ("ADVDIFF(3e-4,3e-3)", "BURGERS(3e-4,3e-3)", "SCALAR(0.5,1.5)", "NS(3e-4,3e-3)")
)
SHAPE = {"width": 8, "modes": 6, "depth": 2}


def drawn(task, count=3, steps=3, n=32, seed=0, **options):
    return draw_trajectories(task, count, steps, n, torch.Generator().manual_seed(seed), **options)


def untrained(*tasks, form="corrected", count=4):
    """An operator with random weights; its normalisation needs no examples."""
    operator = new_operator(tasks or (BURGERS,), recipe="step", **SHAPE)
    normalization = StepNormalization(operator.systems, form, count)
    if form != "corrected":
        model = type(operator.model)(
            type(operator.model.config)(normalization.in_channels, mode_channels=4, **SHAPE),
            torch.Generator().manual_seed(0),
        )
        return type(operator)(model, normalization, {"recipe": "step"})
    return type(operator)(operator.model, normalization, operator.card)


def errors(operator, task, trajectories):
    pairs = trajectories.pairs()
    return rollout_errors(operator.predict(pairs.source, pairs.coefficients, task.system), pairs.solution)


def test_trajectories_are_repeated_steps():
    found = drawn(NS, dtype=torch.float64)
    pairs = found.pairs()
    assert found.steps == 3
    assert pairs.size == 9
    stepped = NS.system.step(pairs.source, pairs.coefficients)
    assert torch.allclose(stepped, pairs.solution, atol=1e-12)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_the_pushes_are_the_stages_of_the_solver(number):
    """Told of a short step, the pushes nearly are the increments of classical Runge-Kutta: all alike."""
    system, found = NS.system, drawn(NS, dtype=torch.float64)
    state, step = torch.fft.rfft2(found.states[:, 0]), torch.full((3,), 1e-4, dtype=torch.float64)
    rest = system.dealiased_rest(found.coefficients, 32, torch.float64)
    symbol = system.symbol(found.coefficients, 32)
    pushes = stages(state, symbol, step, rest, number)
    assert len(pushes) == number
    for push in pushes:
        assert torch.allclose(push, 1e-4 * rest(state), rtol=1e-2, atol=1e-2 * push.abs().max())


@pytest.mark.parametrize("form", ["corrected", "exponential"])
def test_without_a_rest_a_step_is_exact(form):
    found = drawn(Task.parse("ADVDIFF(1e-4,3e-4)"), steps=200)  # so that a third of the state is left in the end
    operator = untrained(LINEAR, form=form)
    went = rollout(operator, found.states[:, 0], found.coefficients, 200)
    assert rollout_errors(went, found.states).max() < 1e-5
    residual = untrained(LINEAR, form="residual")
    assert errors(residual, LINEAR, found).min() > 1e-2  # random weights


@pytest.mark.parametrize("task", [NS, BURGERS])
def test_waves_that_decay_keep_their_spectrum_whatever_the_weights(task):
    found = drawn(task, 4, 60)
    start, coefficients = found.states[:, 20], found.coefficients
    kept = {}
    for form in ("corrected", "exponential"):
        went = rollout(untrained(task, form=form), start, coefficients, 40, task.system)
        kept[form] = keeps_spectrum(went[:, -10:], found.states[:, -10:], 10).double().mean().item()
    assert kept["corrected"] == 1
    assert kept["exponential"] == 0


@pytest.mark.parametrize("form", ["corrected", "exponential", "residual"])
def test_a_prediction_scales_with_its_state(form):
    """With s u for a state, a rest that is quadratic is that of s times the strength: the network cannot tell them."""
    found, operator = drawn(BURGERS, n=32), untrained(form=form)
    scaled = found.coefficients * torch.tensor([1.0, 0.25, 1.0])
    plain = operator.predict(found.states[:, 0], found.coefficients)
    assert torch.allclose(operator.predict(4 * found.states[:, 0], scaled), 4 * plain, rtol=1e-4, atol=1e-4)


def test_a_mean_that_the_equation_keeps_is_kept():
    found, operator = drawn(NS), untrained(NS)
    state = found.states[:, 0] + 0.3
    went = rollout(operator, state, found.coefficients, 5)
    assert torch.allclose(went.mean((-2, -1)), torch.full((3, 6), 0.3), atol=1e-5)


def test_any_number_of_states_of_any_size_is_followed():
    found, operator = drawn(LINEAR), untrained(LINEAR)
    states = 1e7 * found.states[:, 0]
    assert rollout(operator, states, found.coefficients, 2).isfinite().all()
    assert rollout(operator, states[:0], found.coefficients[:0], 2).shape == (0, 3, *states.shape[1:])
    with pytest.raises(ValueError, match="steps: expected at least 0"):
        rollout(operator, states, found.coefficients, -1)


def test_an_operator_takes_evolutions_that_it_was_not_trained_for(tmp_path):
    operator, found = untrained(LINEAR, BURGERS), drawn(NS)
    expected = operator.predict(found.states[:, 0], found.coefficients, "NS")
    kept = load_operator(operator.save(tmp_path / "step.safetensors"))
    assert torch.equal(kept.predict(found.states[:, 0], found.coefficients, "NS"), expected)
    assert kept.digest == operator.digest
    with pytest.raises(ValueError, match="trained for"):
        operator.predict(found.states[:, 0], found.coefficients[:, :3], "SYS-1")


@pytest.mark.parametrize("number", [0, 2])
def test_other_numbers_of_stages(number, tmp_path):
    operator, found = untrained(BURGERS, form="exponential", count=number), drawn(BURGERS)
    kept = load_operator(operator.save(tmp_path / "step.safetensors"))
    assert torch.isfinite(kept.predict(found.states[:, 0], found.coefficients)).all()


def test_a_roll_out_that_fails_is_no_number_from_there_on():
    operator, found = untrained(), drawn(BURGERS, steps=4)
    with torch.no_grad():
        operator.model.output.bias.fill_(torch.nan)
    went = rollout(operator, found.states[:, 0], found.coefficients, 4)
    assert torch.equal(went[:, 0], found.states[:, 0])
    assert went[:, 1:].isnan().all()
    assert rollout_errors(went, found.states)[:, 1:].isinf().all()
    assert (correlations(went, found.states)[:, 1:] == 0).all()
    assert (steps_correlated(correlations(went, found.states)) == 1).all()


def test_a_correction_is_bounded_by_the_doubt_in_the_cheap_step():
    """A network that says too much, as it may far from its training, does not carry a roll-out away."""
    found = drawn(BURGERS)
    start, coefficients = found.states[:, 0], found.coefficients
    silent, wild = untrained(), untrained()
    with torch.no_grad():
        wild.model.output.weight.mul_(1e9)
        for parameter in silent.model.output.parameters():
            parameter.zero_()
    change = wild.predict(start, coefficients, BURGERS.system) - silent.predict(start, coefficients, BURGERS.system)
    doubt = BURGERS.system.cheap_step(start, coefficients).doubt
    share = shell_sizes(transform(change)) / doubt
    assert 1 < share[:, 1:8].mean() < 2.5


def test_spectra():
    found = drawn(NS, n=64).states
    field = found[:, 0] - found[:, 0].mean((-2, -1), keepdim=True)
    assert torch.allclose(spectrum(field).sum(-1), field.double().square().mean((-2, -1)), rtol=1e-2)
    assert keeps_spectrum(found, found, 21).all()
    assert not keeps_spectrum(2 * found, found, 21).any()


def test_rounding_beside_a_mean_is_no_pattern():
    """Fisher-KPP ends where all is full: its states then differ from 1 by rounding, which no roll-out follows."""
    noise = torch.randn(3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    exact, alike, uneven = 1 + 1e-7 * noise, 1 + 1e-6 * noise.roll(1, 1), 1 + 1e-2 * noise.roll(1, 1)
    assert (correlations(alike, exact) > 0.99).all()
    assert keeps_spectrum(alike, exact, 21).all()
    assert (correlations(uneven, exact) < 0.1).all()
    assert not keeps_spectrum(uneven, exact, 21).any()


@pytest.mark.parametrize("size", [0, 1e-24, 1e-13, 1e10, 1e18])
def test_a_state_of_any_size_is_correlated_with_itself(size):
    state = size * torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(correlations(state, state), torch.ones(1, 3))


class TestBatches:
    def test_steps_follow_each_other(self):
        batches = FreshTrajectories([NS, BURGERS], 6, Unrolled(3), resolution=32, pool=4, length=5)
        rolled = batches.rolled(7, 0.0)
        assert len(rolled) == 3
        assert [part.size for _, part in rolled[0]] == [3, 3]
        for i, (system, first) in enumerate(rolled[0]):
            second, third = rolled[1][i][1], rolled[2][i][1]
            assert torch.equal(first.source, second.source)
            stepped = system.step(first.solution, first.coefficients)
            assert torch.allclose(stepped, second.solution, atol=1e-4)
            assert torch.allclose(system.step(second.solution, first.coefficients), third.solution, atol=1e-4)

    def test_a_batch_is_a_function_of_seed_and_step(self):
        make = lambda seed: FreshTrajectories([NS], 4, Unrolled({0: 1, 0.5: 2}), resolution=32, seed=seed, pool=3)  # noqa: E731
        one, other = make(0), make(0)
        one.batch(3, 0.1)
        assert torch.equal(one.batch(50, 0.1)[0][1].source, other.batch(50, 0.1)[0][1].source)
        assert not torch.equal(one.batch(50, 0.1)[0][1].source, make(1).batch(50, 0.1)[0][1].source)
        assert len(one.rolled(3, 0.4)) == 1
        assert len(one.rolled(3, 0.5)) == 2

    def test_noise_is_of_the_size_asked_for(self):
        found = drawn(NS, 8, 2)
        plain, noisy = (
            FixedTrajectories(NS.system, found, 64, Unrolled(1, noise=noise)).batch(0, 0.0)[0][1]
            for noise in (0.0, 0.1)
        )
        assert torch.equal(plain.solution, noisy.solution)
        size = rollout_errors(noisy.source, plain.source)
        assert 0.05 < size.mean() < 0.12

    def test_processes_share_a_batch(self):
        make = lambda share: FreshTrajectories(  # noqa: E731
            [NS, BURGERS, LINEAR], 8, Unrolled(1, noise=0.1), resolution=16, pool=3, length=2, share=share
        )
        (whole,) = make((0, 1)).rolled(1, 0.0)
        parts = [make((rank, 2)).rolled(1, 0.0)[0] for rank in (0, 1)]
        sizes = [[examples.size for _, examples in each] for each in (whole, *parts)]
        assert sizes[0] == [sum(both) for both in zip(*sizes[1:], strict=True)] == [3, 2, 3]
        assert sum(sizes[1]) == sum(sizes[2])
        joined = torch.cat([each[0][1].source for each in parts])
        assert torch.equal(joined.sum(0), whole[0][1].source[[0, 2, 1]].sum(0))
        with pytest.raises(ValueError, match="a multiple of the number of processes"):
            make((0, 3))

    def test_what_cannot_be_is_said(self):
        with pytest.raises(ValueError, match="no evolution"):
            FreshTrajectories([Task.parse("SYS-1(1,5)")], 4)
        with pytest.raises(ValueError, match="at least 4 steps"):
            FixedTrajectories(NS.system, drawn(NS, 2, 3), 4, Unrolled(4))
        with pytest.raises(ValueError, match="begins at 0"):
            Unrolled({0.5: 2})
        with pytest.raises(ValueError, match="noise"):
            Unrolled(1, noise=2)
        with pytest.raises(ValueError, match="steps of at least 1"):
            Unrolled(1.5)
        found = drawn(BURGERS, 2, 1)
        with pytest.raises(ValueError, match="as many of each, got 2, 1, 2"):
            FixedTrajectories(BURGERS.system, found._replace(coefficients=found.coefficients[:1]), 4)
        with pytest.raises(ValueError, match="expects shape"):
            FixedTrajectories(BURGERS.system, found._replace(coefficients=found.coefficients[:, :2]), 4)


class TestTraining:
    CONFIG = TrainConfig(steps=6, validate_every=3, report_every=2)

    def test_from_pre_training_to_fine_tuning(self, tmp_path):
        operator, history = pretrain(
            [LINEAR, BURGERS], self.CONFIG, recipe="step", resolution=32, batch_size=4, validation_count=32,
            unrolled=Unrolled({0: 1, 0.5: 2}), **SHAPE,
        )  # fmt: skip
        assert history.best_error is not None
        assert operator.card["unrolled"]["steps"] == {"0": 1, "0.5": 2}
        data, validation = drawn(NS, 4, 4), drawn(NS, 2, 4, seed=1)
        options = {
            "system": "NS", "validation": validation, "config": self.CONFIG, "unrolled": Unrolled(2), "batch_size": 4,
            "learning_rates": (1e-3, 3e-3),
        }  # fmt: skip
        tuned = fine_tune(operator, data, **options)
        assert tuned.operator.card["downstream_examples"] == 4
        assert set(tuned.tried) == {1e-3, 3e-3}
        before = rollout_errors(
            rollout(operator, validation.states[:, 0], validation.coefficients, 4, "NS"), validation.states
        )[:, 1:].mean()
        assert tuned.validation_error <= before + 1e-6
        scratch = train_from_scratch(operator, data, **options)
        assert scratch.operator.card["kind"] == "from scratch"
        assert load_operator(tuned.operator.save(tmp_path / "tuned.safetensors")).tasks[:2] == [
            LINEAR.label, BURGERS.label,
        ]  # fmt: skip

    def test_resumed_training_ends_the_same(self, tmp_path):
        def trained(stop=None):
            config = TrainConfig(steps=6, validate_every=3, report_every=1, checkpoint_every=2)
            return pretrain(
                [BURGERS], config, recipe="step", resolution=32, batch_size=4, validation_count=16,
                unrolled=Unrolled(2), checkpoint=tmp_path / f"{bool(stop)}.ckpt", callback=stop, **SHAPE,
            )[0]  # fmt: skip

        class Stop(Exception):
            pass

        def stop(progress):
            if progress.step == 5:
                raise Stop

        whole = trained()
        with pytest.raises(Stop):
            trained(stop)
        resumed = trained(lambda progress: False)
        assert all(map(torch.equal, whole.model.state_dict().values(), resumed.model.state_dict().values()))

    def test_push_forward_has_no_gradient_through_the_states(self):
        found = drawn(BURGERS, 4, 3)
        ends = []
        for push_forward in (False, True):
            result = fine_tune(
                untrained(), found, config=TrainConfig(steps=1), unrolled=Unrolled(2, push_forward), batch_size=4
            )
            ends.append(result.operator.model.lift.weight.detach())
        assert not torch.equal(*ends)

    def test_an_operator_of_two_fields(self):
        system = SYSTEMS["gray_scott"]
        task = Task(system, *next(iter(system.shifts.values())))
        operator, _ = pretrain(
            [task], TrainConfig(steps=2), recipe="step", resolution=32, batch_size=2, validation_count=0, **SHAPE
        )
        found = drawn(task, 2, 2)
        assert rollout(operator, found.states[:, 0], found.coefficients, 2).shape == found.states.shape

    def test_trajectories_are_validated_by_trajectories(self):
        found = drawn(BURGERS, 2, 2)
        with pytest.raises(ValueError, match="expected trajectories"):
            fine_tune(untrained(), found, validation=found.pairs(), config=TrainConfig(steps=1))
        assert isinstance(found.take(slice(1)), Trajectories)


def test_one_network_for_all_meets_rivals_that_see_as_much():
    """Numbers of states of their own equation, or in all."""
    runs = [run for run in evolution_transfer("laptop") if run.kind == "shared" and run.steps]
    (one,) = {(run.steps, run.batch_size, run.tasks) for run in runs if run.name == FOR_ALL}
    tasks = one[2].split("+")
    alone = {(run.name, run.tasks, run.steps, run.batch_size) for run in runs if run.name != FOR_ALL}
    assert alone == {(AS_MUCH, task, one[0], one[1] // len(tasks)) for task in tasks} | {
        (WHOLE, task, *one[:2]) for task in tasks
    }
    assert all(run.task not in one[2] for run in runs)


def test_who_is_ahead_is_said_of_every_seed():
    first, second, unseen = tests = ("AC(0.5,1.5)", "SCALAR(0.5,1.5)", "NS(0.0003,0.003)")

    def record(name, tasks, seed, *errors):
        about = {"kind": "shared", "name": name, "tasks": tasks, "seed": seed, "tests": tests}
        return about | {"each_after_10": errors, "after_10": errors[-1]}

    records = [record(FOR_ALL, f"{first}+{second}", seed, 0.1, 0.1, 0.1) for seed in (0, 1)]
    for name in (AS_MUCH, WHOLE):
        records += [record(name, task, seed, 0.2, 0.05 + 0.1 * seed, 0.05) for task in tests[:2] for seed in (0, 1)]
    rows = shared_verdicts(records).splitlines()[2:]
    assert rows[0] == f"| {AS_MUCH} | what it was trained on | {first} |  | {second} |"
    assert rows[1] == f"| {AS_MUCH} | {unseen} |  | {first}, {second} |  |"
    assert len(rows) == 6
