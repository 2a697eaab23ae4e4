"""Pre-training by reconstruction, and predictions mended by solved examples: exact cases and what may be read."""

import math

import pytest
import torch

from sciml_fm_core import FreshBatches, Task, TrainConfig, draw_split, fine_tune, new_operator, relative_error
from sciml_fm_core.experiments.unsupervised.in_context import in_context, scale_factor
from sciml_fm_core.experiments.unsupervised.reconstruction import (
    Degradation,
    ReconstructionBatches,
    pretrain_by_reconstruction,
    reconstruction,
    with_new_output,
)
from sciml_fm_core.experiments.unsupervised.runs import (
    BUDGETS,
    CHOSEN,
    SETTINGS,
    WAYS,
    Choice,
    InContextRun,
    unsupervised,
)
from sciml_fm_core.models.normalization import fit_normalization
from sciml_fm_core.study.runs import identity, run_study
from sciml_fm_core.training.unlabelled import WithoutSolutions

POISSON, HELMHOLTZ = Task.parse("SYS-1(1,20)"), Task.parse("SYS-3(1,20)")


@pytest.fixture(params=[POISSON, HELMHOLTZ], ids=["SYS-1", "SYS-3"])
def task(request):
    return request.param


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# Degradation ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.6])
@pytest.mark.parametrize("patch", [1, 4])
def test_an_exact_share_of_whole_patches_is_masked(ratio, patch):
    masked = Degradation(ratio, patch).masked(5, 32, generator())
    blocks = masked.reshape(5, 32 // patch, patch, 32 // patch, patch)
    assert torch.equal(blocks.all(dim=(2, 4)), blocks.any(dim=(2, 4))), "a patch is masked whole"
    shares = masked.double().mean(dim=(1, 2))
    assert torch.equal(shares, torch.full((5,), round(ratio * (32 // patch) ** 2) * patch**2 / 32**2).double())
    assert not ratio or not torch.equal(masked[0], masked[1]), "each example has a mask of its own"


def test_a_blur_widens_a_gaussian_by_its_variance_whatever_the_grid():
    """The filter of a periodic Gaussian of variance a by one of variance b has variance a + b, and keeps the mean."""
    width = 4 / 64

    def periodic(n, variance):
        x = torch.arange(n, dtype=torch.float64) / n
        one = sum(torch.exp(-((x - 0.5 + shift) ** 2) / (2 * variance)) for shift in range(-3, 4))
        one = one / math.sqrt(2 * math.pi * variance)
        return (one[:, None] * one).unsqueeze(0)

    for n in (32, 64):
        drawn = 3.0 / 64 * torch.rand(1, generator=generator()).double()
        blurred = Degradation(blur=3.0)(periodic(n, width**2), generator())
        expected = periodic(n, width**2 + float(drawn) ** 2)
        assert torch.allclose(blurred, expected, atol=1e-6 * expected.max())


def test_masked_points_are_zero_and_others_as_they_were():
    source = POISSON.sample(3, 32, generator()).source
    degradation = Degradation(0.4, patch=2)
    degraded, same = degradation(source, generator(1)), degradation(source, generator(1))
    assert torch.equal(degraded, same)
    kept = degraded != 0
    assert torch.equal(degraded[kept], source[kept])
    assert (~kept).double().mean() == pytest.approx(round(0.4 * 256) / 256, abs=0.01)
    assert torch.equal(Degradation()(source, generator()), source)


@pytest.mark.parametrize("values", [{"mask_ratio": 1.0}, {"mask_ratio": -0.1}, {"patch": 0}, {"blur": -1.0}])
def test_bad_degradations_are_refused(values):
    with pytest.raises(ValueError, match="degradation: expected a mask ratio"):
        Degradation(**values)


def test_patches_must_fill_the_grid():
    with pytest.raises(ValueError, match="a patch that divides 32 points, got 5"):
        Degradation(0.5, patch=5).masked(1, 32, generator())


# What the network is to learn -----------------------------------------------------------------------------------------


def test_the_target_is_the_clean_source_in_the_scale_of_the_network(task):
    """A network whose output is the clean source over the root mean square of its input has no error."""
    examples = task.sample(4, 32, generator(), dtype=torch.float64)
    given = reconstruction(task.system, examples.without_solution(), Degradation(0.5, 2, 2.0), generator(1))
    encoded = fit_normalization("dimensionless", [task]).encode(given.source, given.coefficients, task.system)
    size = given.source.square().mean(dim=(1, 2), keepdim=True).sqrt()
    output = (examples.source / size).unsqueeze(1)
    assert relative_error(encoded.decode(output), given.solution).max() < 1e-12
    assert torch.isfinite(given.solution).all(), "no solution was read"
    task.system.check_mean(given.source)
    assert relative_error(given.source, examples.source).min() > 0.1


def test_batches_are_a_function_of_the_seed_and_the_step():
    def batches(seed):
        fresh = FreshBatches([POISSON], 4, resolution=16)
        return ReconstructionBatches(WithoutSolutions(fresh), Degradation(0.5), seed=seed)

    ((_, first),), ((_, again),), ((_, other),) = (batches(seed).batch(3, 0.0) for seed in (0, 0, 1))
    assert torch.equal(first.source, again.source)
    assert torch.equal(first.solution, other.solution)
    assert not torch.equal(first.source, other.source)


@pytest.mark.parametrize("degradation", [Degradation(blur=4.0), Degradation(0.5)], ids=["blurred", "masked"])
def test_it_trains_also_where_nothing_is_masked(degradation):
    """The released loss is over masked points alone; a blur by itself would train nothing."""
    config = TrainConfig(steps=40, validate_every=20)
    operator, history = pretrain_by_reconstruction(
        [POISSON], degradation, config, size="64K", batch_size=8, resolution=16, validation_count=8
    )
    assert history.rows[0]["loss"] > 1.5 * history.rows[-1]["loss"]
    assert operator.card["kind"] == "pre-trained by reconstruction"
    assert operator.card["labels"] == "none"
    data, held_out = (draw_split(POISSON, split, 4, resolution=16) for split in ("train", "validation"))
    tuned = fine_tune(operator, data, validation=held_out, config=TrainConfig(steps=2, validate_every=1))
    assert math.isfinite(tuned.validation_error)


def test_a_new_output_leaves_the_blocks_as_they_were():
    operator = new_operator([POISSON], size="64K", seed=3)
    before = {key: value.clone() for key, value in operator.model.state_dict().items()}
    state = with_new_output(operator, seed=1).model.state_dict()
    changed = {key.split(".")[0] for key, value in state.items() if not torch.equal(value, before[key])}
    assert changed == {"project", "output"}
    assert all(torch.equal(value, before[key]) for key, value in operator.model.state_dict().items())
    with pytest.raises(ValueError, match="new output: expected a Fourier neural operator, got unet"):
        with_new_output(new_operator([POISSON], architecture="unet", size="64K"))


# Solved examples at test time -----------------------------------------------------------------------------------------


def fields(count, n=16, seed=0):
    """Smooth fields whose values are all different."""
    return HELMHOLTZ.sample(count, n, generator(seed), dtype=torch.float64).solution


def brute_force(prediction, example_predictions, example_solutions, k, spread):
    """All pairs, as the released code."""
    gap = (prediction.flatten()[:, None] - example_predictions.flatten()).abs()
    chosen = example_solutions.flatten()[gap.argsort(dim=1)[:, :k]].reshape(*prediction.shape, k)
    mean, deviation = chosen.mean(-1), chosen.std(-1, unbiased=False)
    relative = deviation / mean.abs()
    limit = relative.mean(dim=(-2, -1), keepdim=True) if spread is None else spread
    return torch.where(relative <= limit, mean, prediction)


@pytest.mark.parametrize("spread", [None, 0.1, math.inf])
@pytest.mark.parametrize(("neighbours", "count"), [(1, 1), (3, 4), (20, 4)])
def test_as_comparing_all_pairs(neighbours, count, spread):
    truth, examples = fields(2, seed=1), fields(count)
    noise = torch.randn(count, 16, 16, generator=generator(2), dtype=torch.float64)
    predicted, known = torch.tanh(truth), torch.tanh(examples) + 0.01 * noise
    found = in_context(predicted, known, examples, neighbours=neighbours, spread=spread)
    expected = brute_force(predicted, known, examples, int(neighbours * math.sqrt(count)), spread)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_one_neighbour_gives_the_examples_their_truth():
    truth = fields(3)
    predicted = torch.tanh(3 * truth) + 5
    assert torch.allclose(in_context(predicted, predicted, truth, neighbours=0.6, spread=1.0), truth, atol=1e-12)


@pytest.mark.parametrize("distort", [lambda u: u**3, lambda u: 2 * u + 1, torch.atan], ids=["cube", "affine", "atan"])
def test_a_monotone_distortion_of_the_truth_is_mended_and_the_better_the_more_examples(distort):
    truth = fields(4, 32, seed=5)
    errors = []
    for count in (1, 16, 256):
        examples = fields(count, 32)
        found = in_context(distort(truth), distort(examples), examples, neighbours=1, spread=math.inf)
        errors.append(relative_error(found, truth).mean())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02
    assert relative_error(distort(truth), truth).mean() > 2 * errors[2]


def test_what_is_no_function_of_the_predicted_value_is_not_mended():
    """A network that shuffles the points: neighbours say nothing, and where they disagree the prediction stays."""
    truth, examples = fields(2, 32, seed=1), fields(16, 32)
    noise = torch.randn(16, 32, 32, generator=generator(3), dtype=torch.float64)
    prediction = torch.randn(2, 32, 32, generator=generator(4), dtype=torch.float64)
    assert torch.equal(in_context(prediction, noise, examples, spread=1e-6), prediction)
    assert relative_error(in_context(prediction, noise, examples, spread=math.inf), truth).mean() > 0.5


def test_the_order_of_the_examples_does_not_matter():
    truth = fields(6)
    rounded = (20 * truth).round() / 20  # many equal predictions
    order = torch.randperm(6, generator=generator())
    first = in_context(rounded[:2], rounded, truth)
    assert torch.equal(first, in_context(rounded[:2], rounded[order], truth[order]))


def test_without_examples_the_prediction_is_kept():
    prediction, none = fields(2), torch.empty(0, 16, 16)
    assert in_context(prediction, none, none) is prediction
    assert scale_factor(none, none) == 1


def test_more_neighbours_than_points_average_all_of_them():
    truth = fields(1)
    found = in_context(truth, truth, truth, neighbours=1e6, spread=math.inf)
    assert torch.allclose(found, truth.mean().expand_as(found))


def test_one_factor_is_the_best_one():
    truth = fields(3)
    noisy = 3 * truth + torch.randn(truth.shape, generator=generator(), dtype=torch.float64)
    best = scale_factor(noisy, truth)
    errors = [(factor * noisy - truth).square().sum() for factor in (best - 1e-3, best, best + 1e-3)]
    assert errors[1] < min(errors[0], errors[2])
    assert scale_factor(torch.zeros(1, 4, 4), torch.ones(1, 4, 4)) == 1


def test_bad_examples_are_refused():
    with pytest.raises(ValueError, match=r"of one shape \(J, m, m\), got \(2, 16, 16\) and \(1, 16, 16\)"):
        in_context(fields(1), fields(2), fields(1))
    with pytest.raises(ValueError, match="neighbours and spread above 0, got 0 and None"):
        in_context(fields(1), fields(1), fields(1), neighbours=0)
    with pytest.raises(ValueError, match="scale factor: expected predictions of shape"):
        scale_factor(fields(2), fields(1))


# The experiment -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", BUDGETS)
def test_starts_are_alike_but_for_their_pre_training(budget):
    runs = unsupervised(budget)
    assert len(set(map(identity, runs))) == len(runs)
    for unlabelled, chosen in CHOSEN.items():
        own = [run for run in runs if getattr(run, "unlabelled", "") == unlabelled]
        alike = {(run.examples, run.steps, run.learning_rates, run.batch_size, run.resolution, run.size) for run in own}
        assert len(alike) == 1
        for seed in {run.seed for run in own}:
            starts = [run.start for run in own if run.seed == seed]
            tried = [
                {"mask_ratio": run.mask_ratio, "blur": run.blur, "new_output": run.new_output}
                for run in own
                if run.seed == seed and run.start == "unsupervised"
            ]
            assert starts.count("from scratch") == 1
            assert SETTINGS[chosen] in tried
            assert len(tried) == (len(SETTINGS) if seed == 0 else 1)
    assert {run.task for run in runs if isinstance(run, InContextRun)} == {"SYS-1(15,50)", "SYS-3(15,20)"}


def test_records_of_the_experiment(tmp_path):
    runs = [run for run in unsupervised("smoke") if run.task.startswith("SYS-1")]
    records = run_study(runs, tmp_path / "study")
    for record in records[:-1]:
        assert [point["examples"] for point in record["points"]] == [4, 8]
        assert all(0 < point["error"] < 5 for point in record["points"])
        assert (record["pretraining_error"] is None) == (record["start"] == "from scratch")
    few = records[-1]
    assert [(point["examples"], point["way"]) for point in few["points"]] == [
        (0, WAYS[0]), *((count, way) for count in (1, 2) for way in WAYS[1:])
    ]  # fmt: skip
    assert few["points"][0]["error"] == few["zero_shot"]
    with pytest.raises(ValueError, match="budget: expected one of smoke, laptop, gpu, paper, got 'huge'"):
        unsupervised("huge")
    with pytest.raises(ValueError, match="expected a number of steps for each number of examples"):
        InContextRun(trained="SYS-1(5,15)", task="SYS-1(15,50)", examples=(1, 2), steps=(1,))


def test_in_units_of_its_size_a_prediction_is_mended_whatever_its_scale():
    truth = fields(8, 32)
    sizes = 10 ** torch.linspace(-3, 3, 8, dtype=torch.float64)[:, None, None]
    predicted, solutions = sizes * truth, sizes * truth**3 / truth.square().mean(dim=(1, 2), keepdim=True)
    units, plain = Choice(1.0, math.inf, True), Choice(1.0, math.inf, False)
    own = [choice(predicted[:1], predicted[1:], solutions[1:]) for choice in (units, plain)]
    errors = [relative_error(found, solutions[:1]).item() for found in own]
    assert errors[0] < 0.1 < errors[1]
