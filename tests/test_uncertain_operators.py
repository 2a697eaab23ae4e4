"""Ways to a spread: members trained apart, heads pushed apart on one trunk, and the posterior of the last layer."""

import pytest
import torch

from sciml_fm_core import FreshBatches, Operator, Task, TrainConfig, draw_split, load_operator, new_operator
from sciml_fm_core.experiments.uncertainty.ensemble import ensemble_of, pretrain_ensemble
from sciml_fm_core.experiments.uncertainty.operators import (
    LastLayerLaplace,
    choose_diversity,
    diverse_heads,
    diversity_of,
)
from sciml_fm_core.models.predict import encode_together

TASK = Task.parse("SYS-1(1,5)")


@pytest.fixture(scope="module")
def operator():
    return load_operator("sys-1")


@pytest.fixture(scope="module")
def examples():
    return draw_split(TASK, "test", 6, resolution=32)


def encoded(operator, examples, task=TASK):
    return encode_together([operator], [(task.system, examples.source, examples.coefficients)])[0]


def weights(heads):
    return [{name: getattr(member.model, name).weight for name in ("project", "output")} for member in heads.members]


@pytest.mark.parametrize("recipe", ["dimensionless", "symbol", "paper"])
def test_the_head_of_what_is_hidden_is_the_network(recipe, examples):
    operator = new_operator([TASK], recipe=recipe, size="64K", seed=3)
    inputs = encoded(operator, examples)
    hidden = operator.model.hidden(*inputs.inputs)
    assert hidden.shape == (6, 32, 32, operator.model.config.width)
    whole = operator.model(*inputs.inputs)
    torch.testing.assert_close(operator.model.head(hidden), whole, rtol=1e-4, atol=1e-5)


def test_members_are_pretrained_apart():
    config = TrainConfig(steps=2)
    options = {"size": "64K", "resolution": 32, "batch_size": 2, "validation_count": 2}
    ensemble = pretrain_ensemble([TASK], config, members=3, seed=5, **options)
    assert ensemble.card["seeds"] == [5, 6, 7]
    assert (ensemble.card["steps"], ensemble.card["recipe"]) == (2, "dimensionless")
    first, second, _ = (member.model.lift.weight for member in ensemble.members)
    assert not torch.equal(first, second)
    with pytest.raises(ValueError, match="two members or more"):
        pretrain_ensemble([TASK], config, members=1, **options)
    assert ensemble_of(ensemble.members, command="mine").card["command"] == "mine"


def test_diversity_by_hand():
    heads = [{"a": torch.tensor([[3.0, 0.0]]), "b": torch.tensor([4.0])}, {"a": torch.zeros(1, 2), "b": torch.zeros(1)}]
    assert diversity_of(heads).item() == pytest.approx(25 / 12.5)
    assert diversity_of([heads[0]] * 3).item() == 0
    scaled = [{name: 10 * value for name, value in head.items()} for head in heads]
    assert diversity_of(scaled).item() == pytest.approx(2), "whatever the size of the weights"


def test_heads_on_one_trunk_are_pushed_apart(operator, examples):
    before = operator.predict(examples.source, examples.coefficients)
    apart = []
    for diversity in (0.0, 1.0):
        data = FreshBatches([TASK], 4, resolution=32)
        ensemble = diverse_heads(operator, data, members=3, diversity=diversity, steps=10, perturbation=0.01)
        apart.append(diversity_of(weights(ensemble)).item())
        shared, other = (dict(member.model.named_parameters()) for member in ensemble.members[:2])
        same = {name for name in shared if torch.equal(shared[name], other[name])}
        assert {name.split(".")[0] for name in set(shared) - same} == {"project", "output"}
        assert ensemble.predict(examples.source, examples.coefficients).spread.min() > 0
        assert ensemble.card["diversity"] == diversity
    assert 2 * apart[0] < apart[1]
    assert torch.equal(operator.predict(examples.source, examples.coefficients), before), "it is left as it was"
    with pytest.raises(ValueError, match="diversity of at least 0"):
        diverse_heads(operator, data, diversity=-1.0)
    with pytest.raises(ValueError, match="Fourier neural operator"):
        diverse_heads(new_operator([TASK], architecture="unet", size="64K"), data)


def test_the_largest_diversity_that_costs_little_is_chosen(operator):
    options = {"validation": 8, "batch_size": 4, "resolution": 32, "steps": 8, "members": 2, "perturbation": 0.01}
    chosen = choose_diversity(operator, TASK, diversities=(1000.0, 0.0, 0.001), allowed=3.0, **options)
    assert list(chosen.tried) == [0.0, 0.001, 1000.0]
    affordable = [d for d, error in chosen.tried.items() if error <= 3.0 * chosen.start]
    assert chosen.diversity == (max(affordable) if affordable else min(chosen.tried, key=chosen.tried.get))
    assert chosen.ensemble.card["diversity"] == chosen.diversity


@pytest.mark.parametrize("label", ["SYS-1(1,5)", "SYS-3(1,10)"])
def test_the_posterior_is_that_of_the_last_layer(label, generator):
    """Its spread is that of solutions whose last layer is drawn from it."""
    task = Task.parse(label)
    operator = new_operator([task], size="64K", seed=1)
    train, validation, test = (draw_split(task, name, 8, resolution=32) for name in ("train", "validation", "test"))
    posterior = LastLayerLaplace.fit(operator, train, validation)
    mean, spread = posterior.predict(test.source, test.coefficients)
    torch.testing.assert_close(mean, operator.predict(test.source, test.coefficients))
    torch.testing.assert_close(posterior.covariance, posterior.covariance.T)
    values, vectors = torch.linalg.eigh(posterior.covariance)
    drawn = operator.copy()
    weight, bias = drawn.model.output.weight.detach().clone(), drawn.model.output.bias.detach().clone()
    samples = []
    for _ in range(400):
        noise = torch.randn(len(values), generator=generator, dtype=torch.float64)
        change = (vectors @ (values.clamp(min=0).sqrt() * noise)).float()
        drawn.model.output.weight.data = weight + change[:-1]
        drawn.model.output.bias.data = bias + change[-1:]
        samples.append(drawn.predict(test.source, test.coefficients))
    assert (torch.stack(samples).std(dim=0).norm() / spread.norm()).item() == pytest.approx(1, abs=0.1)


def test_the_size_of_the_posterior_fits_the_validation_errors(operator):
    train, validation = (draw_split(TASK, name, 16, resolution=32) for name in ("train", "validation"))
    posterior = LastLayerLaplace.fit(operator, train, validation)
    mean, spread = posterior.predict(validation.source, validation.coefficients)
    ratio = ((mean - validation.solution) / spread).square().mean()
    assert ratio.item() == pytest.approx(1, rel=1e-2)
    with pytest.raises(ValueError, match="Fourier neural operator"):
        LastLayerLaplace.fit(new_operator([TASK], architecture="unet", size="64K"), train, validation)


def test_an_ensemble_of_heads_is_a_small_file(operator, tmp_path):
    data = FreshBatches([TASK], 2, resolution=32)
    heads = diverse_heads(operator, data, members=4, steps=1)
    assert all(isinstance(member, Operator) for member in heads.members)
    path = heads.save(tmp_path / "heads.safetensors", packed=True)
    assert path.stat().st_size < 0.6 * operator.save(tmp_path / "one.safetensors", half=True).stat().st_size
