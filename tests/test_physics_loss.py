"""Losses that need no solution: their values by hand, what they may read, and training and tuning by them alone."""

import math

import pytest
import torch

from sciml_fm_core import (
    LOSSES,
    PAPER_TASKS,
    SYSTEMS,
    Evolution,
    FreshBatches,
    SpectralSystem,
    Task,
    TrainConfig,
    draw_split,
    fine_tune,
    fit,
    load_operator,
    pretrain,
    relative_error,
)
from sciml_fm_core.models.fno import SIZES
from sciml_fm_core.physics.parameter import Parameter
from sciml_fm_core.physics.spectral import laplacian
from sciml_fm_core.training.losses import LABEL_FREE, Batch, mean_losses, register_loss, training_loss
from sciml_fm_core.training.unlabelled import unlabelled_data

NEAR, FAR = Task.parse("SYS-1(1,5)"), Task.parse("SYS-1(5,10)")
WITHOUT_LABELS = ("residual", "physics")


@pytest.fixture(params=WITHOUT_LABELS)
def loss(request):
    """Each of the losses that read no solution."""
    return request.param


def examples_of(task, generator, count=4, n=32):
    return task.sample(count, n, generator, dtype=torch.float64)


def value(loss, prediction, task, examples):
    return LOSSES[loss](prediction, Batch(task.system, *examples))


def symbol_of(system, coefficients, n, *, preconditioned):
    """Symbol, divided by the preconditioner where asked, and the modes that L annihilates."""
    symbol, null = system.symbol_and_null(coefficients, n)
    return (symbol / system.preconditioner(coefficients, n) if preconditioned else symbol), null


# Preconditioners ------------------------------------------------------------------------------------------------------


def test_preconditioners_are_positive_and_real_whatever_the_grid(task, generator):
    coefficients = examples_of(task, generator).coefficients.float()
    for n in (8, 32, 64):
        size = task.system.preconditioner(coefficients, n)
        assert size.shape == (4, n, n // 2 + 1)
        assert size.dtype == torch.float64
        assert (size > 0).all()
        assert torch.isfinite(size).all()
    coarse, fine = (task.system.preconditioner(coefficients, n) for n in (16, 32))
    whole = slice(0, 5)  # shells of which the coarse grid has all waves
    torch.testing.assert_close(fine[:, whole, whole], coarse[:, whole, whole], rtol=1e-12, atol=0)


def test_preconditioners_of_the_papers_systems_do_not_invert_them(paper_system, generator):
    """Divided by them, the symbol still varies with its direction, by its sign or near its resonances."""
    task = Task.parse(PAPER_TASKS[paper_system.name]["pre-training"])
    coefficients = examples_of(task, generator, count=32).coefficients
    ratio, null = symbol_of(task.system, coefficients, 32, preconditioned=True)
    long_waves = laplacian(32, like=coefficients) <= 4 * math.pi**2 * 25
    ratio, kept = ratio[..., long_waves], ~null[..., long_waves]
    size = ratio.abs()
    largest = size.masked_fill(~kept, 0).amax(-1)
    smallest = size.masked_fill(~kept, math.inf).amin(-1)
    assert (largest / smallest).median() > 2
    assert (largest < 100).all()  # nor do they leave short waves to outweigh long ones


def test_those_of_poisson_and_advection_diffusion_know_the_mean_diffusivity_alone():
    generator = torch.Generator().manual_seed(0)
    for name in ("poisson", "advection_diffusion"):
        system = SYSTEMS[name]
        rows = torch.rand(3, len(system.coefficient_names), generator=generator, dtype=torch.float64)
        kappa = rows[:, :2].mean(-1)
        expected = kappa[:, None, None] * laplacian(16, like=rows)
        expected[:, 0, 0] = 4 * math.pi**2 * kappa  # counted with the longest waves
        torch.testing.assert_close(system.preconditioner(rows, 16), expected)
        changed = rows.clone()
        changed[:, 2:] = 0
        assert torch.equal(system.preconditioner(changed, 16), system.preconditioner(rows, 16))


def test_default_is_the_mean_over_waves_of_equal_length(registry):
    class Carried(SpectralSystem):
        name, label, equation = "carried", "CARRIED", "c u - lap u + a du/dx = f"
        coefficient_names, dialled, zero_mean = ("c", "a"), Parameter("c", 0.1, 5), False
        parameters = (Parameter("a", 1, 2),)

        def symbol(self, coefficients, n):
            c, a = coefficients[..., None, None].unbind(-3)
            kx = torch.arange(n // 2 + 1, dtype=coefficients.dtype) % (n // 2)
            return torch.complex(
                c + laplacian(n, like=coefficients), (2 * torch.pi * a * kx).expand(*c.shape[:-2], n, -1)
            )

    system, n = SYSTEMS["carried"], 16
    coefficients = torch.tensor([[1e-9, 30.0], [2.0, 1.0]], dtype=torch.float64)
    size, symbol = system.preconditioner(coefficients, n), system.symbol(coefficients, n).abs()
    # |k| < 3/2: the mean, (0, 1), (1, 0), (0, -1), (1, 1), (1, -1), of which those with kx > 0 stand for two
    longest = torch.stack([symbol[:, 0, 0], symbol[:, 1, 0], symbol[:, -1, 0]], -1).sum(-1)
    longest += 2 * (symbol[:, 0, 1] + symbol[:, 1, 1] + symbol[:, -1, 1])
    torch.testing.assert_close(size[:, 0, 0], longest / 9)
    assert torch.equal(size[:, 0, 0], size[:, 1, 1])
    assert (size[0, 0, 0] > 30).all(), "a symbol that is small at k = 0 does not make it small there"
    assert not torch.equal(size[:, 0, 1], size[:, 0, 2])


def test_the_residual_of_an_evolution_is_its_error(registry, generator):
    class Heat(Evolution):
        name, label, equation = "heat", "HEAT", "du/dt = d lap u"
        coefficient_names, dialled, zero_mean = ("d", "time"), Parameter("time", 0.1, 2), False
        parameters = (Parameter("d", 0.01, 0.02),)

        def symbol(self, coefficients, n):
            return coefficients[..., 0, None, None] * laplacian(n, like=coefficients)

    task = Task(SYSTEMS["heat"], 0.5, 1)
    examples = examples_of(task, generator, n=16)
    prediction = examples.solution + 0.1 * torch.randn(4, 16, 16, generator=generator, dtype=torch.float64)
    expected = (prediction - examples.solution).norm(dim=(1, 2)) / examples.source.norm(dim=(1, 2))
    for loss in WITHOUT_LABELS:
        torch.testing.assert_close(value(loss, prediction, task, examples), expected)


# Values ---------------------------------------------------------------------------------------------------------------


def test_exact_solutions_have_no_loss(task, generator, loss):
    examples = examples_of(task, generator)
    assert value(loss, examples.solution, task, examples).max() < 1e-9
    assert value(loss, torch.zeros_like(examples.solution), task, examples) == pytest.approx(torch.ones(4))


def test_an_error_of_one_mode_counts_by_its_symbol(task, generator, loss):
    """``loss = |symbol| ||e|| / ||f||``, or the same with both divided by P; a mode L annihilates does not count."""
    n, system = 32, task.system
    examples = examples_of(task, generator, n=n)
    symbol, null = symbol_of(system, examples.coefficients, n, preconditioned=loss == "physics")
    weights = torch.full((n // 2 + 1,), 2.0, dtype=torch.float64)
    weights[[0, -1]] = 1
    source_hat = torch.fft.rfft2(examples.source).masked_fill(null, 0)
    if loss == "physics":
        source_hat = source_hat / system.preconditioner(examples.coefficients, n)
    size = (weights * source_hat.abs() ** 2).sum((-2, -1)).sqrt() / n  # of f, or of f / P
    x = torch.arange(n, dtype=torch.float64) / n
    for kx, ky in ((1, 0), (0, 2), (3, -4), (7, 5)):
        wave = torch.cos(2 * torch.pi * (kx * x[None, :] + ky * x[:, None]) + 0.3)
        measured = value(loss, examples.solution + 0.01 * wave, task, examples)
        expected = symbol[:, ky, kx].abs() * 0.01 * wave.norm() / size
        assert not null[:, ky, kx].any()
        torch.testing.assert_close(measured, expected, rtol=1e-6, atol=1e-9)
    if system.zero_mean:
        assert value(loss, examples.solution + 1, task, examples).max() < 1e-9


def test_resonant_modes_are_left_out(loss):
    """-0.01 lap u - omega u = f with omega = 0.01 4 pi^2 5: the waves (1, 2), (2, 1), ... are annihilated."""
    n = 16
    x = torch.arange(n, dtype=torch.float64) / n
    coefficients = torch.tensor([[0.01, 0.01 * 4 * math.pi**2 * 5]], dtype=torch.float64)
    resonant = torch.cos(2 * torch.pi * (x[None, :] + 2 * x[:, None]))[None]
    other = torch.cos(2 * torch.pi * 3 * x).expand(1, n, n)
    system = SYSTEMS["helmholtz"]
    solution = other / (0.01 * 4 * math.pi**2 * (9 - 5))
    for source, prediction in ((other, solution + resonant), (other + resonant, solution)):
        batch = Batch(system, source, coefficients, torch.full_like(source, torch.nan), coefficients[:, 1])
        assert LOSSES[loss](prediction, batch).item() < 1e-10


def test_plain_residual_is_that_of_the_system(task, generator):
    examples = examples_of(task, generator)
    prediction = examples.solution + 0.1 * torch.randn(4, 32, 32, generator=generator, dtype=torch.float64)
    expected = task.system.residual(prediction, examples.source, examples.coefficients).norm(dim=(1, 2))
    torch.testing.assert_close(
        value("residual", prediction, task, examples), expected / examples.source.norm(dim=(1, 2))
    )


def test_the_preconditioned_loss_is_about_the_error(task, generator):
    """White noise in the solution: the plain residual sees its short waves alone."""
    examples = examples_of(task, generator, count=16)
    noise = torch.randn(16, 32, 32, generator=generator, dtype=torch.float64) * 1e-3
    prediction = examples.solution + noise - noise.mean((-2, -1), keepdim=True)
    error = relative_error(prediction, examples.solution).mean()
    preconditioned, plain = (value(name, prediction, task, examples).mean() for name in ("physics", "residual"))
    assert error / 5 < preconditioned < 5 * error
    assert plain > 20 * error


def test_both_losses_do_not_depend_on_scale(task, generator, loss):
    examples = examples_of(task, generator)
    prediction = examples.solution * 1.1
    larger = examples._replace(source=7 * examples.source)
    torch.testing.assert_close(value(loss, 7 * prediction, task, larger), value(loss, prediction, task, examples))
    single = examples._replace(source=examples.source.float())
    torch.testing.assert_close(
        value(loss, prediction.float(), task, single).double(),
        value(loss, prediction, task, examples),
        rtol=1e-3 if task.system.name == "biharmonic_advection" else 1e-4,  # rounding, times a large symbol
        atol=1e-6,
    )


# Gradients, and what is read ------------------------------------------------------------------------------------------


def test_no_solution_is_read(task, generator, loss):
    examples = examples_of(task, generator)
    prediction = torch.randn(4, 32, 32, generator=generator, dtype=torch.float64, requires_grad=True)
    found = []
    for own in (examples, examples.without_solution()):
        measured = value(loss, prediction, task, own).mean()
        (gradient,) = torch.autograd.grad(measured, prediction)
        found.append((measured.detach(), gradient))
    assert examples.without_solution().solution.isnan().all()
    assert examples.without_solution().solution.shape == examples.solution.shape
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert torch.isfinite(found[0][1]).all()


def test_gradients(generator, loss):
    task = Task.parse("SYS-2(0.2,1)")
    examples = examples_of(task, generator, count=2, n=8)
    prediction = torch.randn(2, 8, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda u: value(loss, u, task, examples), prediction)
    exact = examples.solution.clone().requires_grad_()
    value(loss, exact, task, examples).sum().backward()
    assert torch.isfinite(exact.grad).all(), "also where there is no residual"


def test_members_and_parts(generator, loss):
    """Predictions of several operators, of a batch of several systems."""
    tasks = [NEAR, Task.parse("SYS-3(1,10)")]
    parts = [(task.system, examples_of(task, generator, count=2, n=16)) for task in tasks]
    predictions = torch.randn(3, 4, 16, 16, generator=generator, dtype=torch.float64)
    measured = training_loss(predictions, parts, loss)
    for member, found in zip(predictions, measured, strict=True):
        each = [value(loss, own, task, part[1]) for own, task, part in zip(member.split(2), tasks, parts, strict=True)]
        torch.testing.assert_close(found, torch.cat(each).mean())


# Training -------------------------------------------------------------------------------------------------------------


def test_which_losses_need_labels():
    assert set(WITHOUT_LABELS) == LABEL_FREE
    assert TrainConfig(loss="physics").validation_loss == "physics"
    assert TrainConfig(loss="physics", validate_by="relative").validation_loss == "relative"
    assert TrainConfig(loss="squared").validation_loss == TrainConfig().validation_loss == "relative"
    with pytest.raises(
        ValueError, match="loss: expected one of relative, logarithmic, squared, residual, physics, got 'none'"
    ):
        TrainConfig(validate_by="none")


def test_operators_learn_from_the_equation_alone(small_operator):
    operator = small_operator()
    test = draw_split(NEAR, "test", 32, resolution=16)
    before = relative_error(operator.predict(test.source, test.coefficients), test.solution).mean()
    batches, held_out, _ = unlabelled_data(NEAR, operator, 8, 16)
    config = TrainConfig(steps=150, learning_rate=1e-2, loss="physics", validate_every=25)
    history = fit(operator, batches, config, validation=[(NEAR.system, held_out)])
    after = relative_error(operator.predict(test.source, test.coefficients), test.solution).mean()
    assert after < 0.5 * before
    measured = mean_losses([operator], [(NEAR.system, held_out)], "physics")[0]
    assert history.best_error == pytest.approx(measured, rel=1e-5), "validated by the loss, without labels"


def test_labels_that_are_not_there_cannot_be_used(small_operator):
    batches, _, _ = unlabelled_data(NEAR, small_operator(), 4, 16)
    with pytest.raises(ValueError, match="NaN or infinity in solution of example 0"):
        fit(small_operator(), batches, TrainConfig(steps=2, loss="relative"))


def test_pretraining_by_the_residual(monkeypatch):
    monkeypatch.setitem(SIZES, "tiny", {"width": 4, "modes": 4})
    config = TrainConfig(steps=3, loss="physics")
    operator, _ = pretrain([NEAR], config, size="tiny", batch_size=4, resolution=16, validation_count=4)
    assert operator.card["loss"] == "physics"


# Tuning without labels ------------------------------------------------------------------------------------------------


def test_tuning_without_labels(small_operator):
    parent = small_operator(examples_seen=123)
    before = {key: weight.clone() for key, weight in parent.model.state_dict().items()}
    config = TrainConfig(steps=60, learning_rate=1e-2, validate_every=10)
    result = fine_tune(parent, unlabelled=FAR, config=config, batch_size=8, resolution=16)
    test = draw_split(FAR, "test", 32, resolution=16)
    errors = [
        relative_error(o.predict(test.source, test.coefficients), test.solution).mean()
        for o in (parent, result.operator)
    ]
    assert errors[1] < errors[0]
    assert all(torch.equal(weight, before[key]) for key, weight in parent.model.state_dict().items())
    card = result.operator.card
    assert (card["kind"], card["labels"], card["downstream_examples"]) == ("fine-tuned", "none", 0)
    assert (card["loss"], card["downstream_task"], card["batch_size"]) == ("physics", "SYS-1(5,10)", 8)
    assert card["parent"]["examples_seen"] == 123
    assert result.operator.tasks == ["SYS-1(1,5)", "SYS-1(5,10)"]
    again = fine_tune(parent, unlabelled=FAR, config=config, batch_size=8, resolution=16).operator
    other = fine_tune(parent, unlabelled=FAR, config=config, batch_size=8, resolution=16, seed=1).operator
    lift = result.operator.model.lift.weight
    assert torch.equal(again.model.lift.weight, lift)
    assert not torch.equal(other.model.lift.weight, lift)


def test_tuning_reads_no_solution(small_operator, monkeypatch):
    """Solutions that are NaN from the start, in training and in validation, change nothing."""
    config = TrainConfig(steps=4, learning_rate=1e-2, validate_every=2)
    validation = draw_split(FAR, "validation", 4, resolution=16)
    options = {"unlabelled": FAR, "config": config, "batch_size": 4, "resolution": 16}
    labelled = fine_tune(small_operator(), validation=validation, **options)
    batch = FreshBatches.batch
    monkeypatch.setattr(
        FreshBatches,
        "batch",
        lambda self, *a: [(s, e._replace(solution=torch.full_like(e.solution, math.nan))) for s, e in batch(self, *a)],
    )
    without = fine_tune(small_operator(), validation=validation.without_solution(), **options)
    assert labelled.history.best_error == without.history.best_error
    state = without.operator.model.state_dict()
    assert all(torch.equal(weight, state[key]) for key, weight in labelled.operator.model.state_dict().items())


def test_learning_rates_are_chosen_without_labels(small_operator):
    config = TrainConfig(steps=10, validate_every=5)
    result = fine_tune(
        small_operator(), unlabelled=FAR, config=config, batch_size=4, resolution=16, learning_rates=(1e-9, 1e-2)
    )
    assert result.learning_rate == min(result.tried, key=result.tried.get) == 1e-2


def test_what_to_tune_on_is_one_of_two(small_operator):
    operator, data = small_operator(), draw_split(FAR, "train", 2, resolution=16)
    for arguments in ({}, {"data": data, "unlabelled": FAR}):
        with pytest.raises(ValueError, match=r"expected labelled data, or a task as unlabelled=\.\.\., and not both"):
            fine_tune(operator, **arguments)
    for config in (TrainConfig(steps=1, loss="squared"), TrainConfig(steps=1, validate_by="relative")):
        with pytest.raises(ValueError, match=r"that needs no labels, physics or residual, got '(squared|relative)'"):
            fine_tune(operator, unlabelled=FAR, config=config)
    with pytest.raises(ValueError, match="was trained for poisson, got helmholtz"):
        fine_tune(operator, unlabelled=Task.parse("SYS-3(1,10)"))


def test_the_grid_follows_the_network(small_operator):
    for modes, expected in ((4, {0.0: 32, 0.85: 64}), (24, {0.0: 48, 0.85: 96})):
        batches, held_out, _ = unlabelled_data(FAR, small_operator(width=2, modes=modes))
        assert batches.batches.schedule == expected
        assert held_out.source.shape[-1] == expected[0.85]


def test_the_shipped_specialist_is_tuned_without_labels():
    """40 small steps, seconds, take a quarter off the error out of its range."""
    config = TrainConfig(steps=40, learning_rate=3e-3)
    parent, test = load_operator("sys-1"), draw_split(FAR, "test", 64, resolution=32)
    tuned = fine_tune(parent, unlabelled=FAR, config=config, resolution=32, batch_size=16).operator
    before, after = (
        relative_error(operator.predict(test.source, test.coefficients), test.solution).mean()
        for operator in (parent, tuned)
    )
    assert after < 0.75 * before


def test_own_losses_may_be_label_free(monkeypatch):
    def smooth(prediction, batch):
        return prediction.diff(dim=-1).square().mean(dim=(-2, -1))

    register_loss(smooth, labels=False)
    assert TrainConfig(loss="smooth").validation_loss == "smooth"
    register_loss(smooth)
    assert TrainConfig(loss="smooth").validation_loss == "relative"
    del LOSSES["smooth"]


@pytest.mark.parametrize("label", ["SYS-4(0.3,0.6)", "SYS-5(0.4,1.6)"])
@pytest.mark.parametrize("name", ["residual", "physics"])
def test_residuals_where_coefficients_are_fields(label, name):
    task, loss = Task.parse(label), LOSSES[name]
    examples = task.sample(4, 16, torch.Generator().manual_seed(0), dtype=torch.float64)
    batch = Batch(task.system, *examples)
    assert loss(examples.solution, batch).max() < 1e-6
    assert torch.allclose(loss(torch.zeros_like(examples.solution), batch), torch.ones(4, dtype=torch.float64))
    several = torch.stack([0.5 * examples.solution, examples.solution]).requires_grad_()
    found = loss(several, batch)
    assert torch.allclose(found[0], torch.full((4,), 0.5, dtype=torch.float64), rtol=1e-6)
    found[0].sum().backward()
    assert torch.isfinite(several.grad).all()
    assert several.grad[0].abs().max() > 0
