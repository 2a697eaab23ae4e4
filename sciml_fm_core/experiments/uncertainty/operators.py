"""Operators that say how uncertain they are, from one that is trained: by several heads, or by its last layer.

An ensemble of operators that differ in their random weights costs a training for each. What costs less starts from
one that is trained: heads that are pushed apart on the same trunk (DiverseNO: Mouli et al., arXiv:2403.10642), or a
Gaussian posterior of its last linear layer (Kristiadi et al., arXiv:2002.10118; of neural operators Magnani et al.,
arXiv:2208.01565).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import combinations
from typing import cast

import torch
from torch import Tensor, nn

from sciml_fm_core.data.batches import Batches, FreshBatches
from sciml_fm_core.data.splits import stream
from sciml_fm_core.eager import graph_where_needed
from sciml_fm_core.evaluation.errors import validation_sets
from sciml_fm_core.experiments.uncertainty.ensemble import Ensemble, Prediction
from sciml_fm_core.models.fno import FNO
from sciml_fm_core.models.operator import Operator
from sciml_fm_core.models.predict import encode_together
from sciml_fm_core.physics.examples import Examples
from sciml_fm_core.physics.system import System
from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.schema import takes_numpy
from sciml_fm_core.training.cards import hardware, versions
from sciml_fm_core.training.losses import mean_losses, training_loss

LAST_LAYERS = ("project", "output")
"""The layers of a Fourier neural operator that each head has for itself."""
PRECISIONS = tuple(10.0**power for power in range(-12, 3))
"""Prior precisions to choose from, in units of the mean curvature."""

# One trunk, several heads ---------------------------------------------------------------------------------------------


def diversity_of(heads: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """Distance between heads: the mean over pairs of ``||w_i - w_j||^2 / ||w||^2``.

    w are all weights of a head, without biases, and ||w||^2 is the mean over the heads, which no gradient flows into.
    (The released code of arXiv:2403.10642 has the plain squared distance of last-layer weights, among others; divided
    by their size it means the same for every network.)

    >>> heads = [{"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])}]
    >>> diversity_of(heads).item()
    2.0
    """
    weights = torch.stack([torch.cat([value.flatten() for value in head.values()]) for head in heads])
    size = weights.detach().square().sum(dim=1).mean()
    pairs = [(weights[i] - weights[j]).square().sum() for i, j in combinations(range(len(weights)), 2)]
    return torch.stack(pairs).mean() / size


@takes_numpy
def diverse_heads(
    operator: Operator,
    data: Batches,
    *,
    members: int = 4,
    diversity: float = 0.01,
    steps: int = 300,
    learning_rate: float = 1e-3,
    warmup: float = 0.2,
    perturbation: float = 0.1,
    seed: int = 0,
) -> Ensemble:
    """Train several heads on the trunk of a trained operator, pushed apart (DiverseNO, arXiv:2403.10642).

    The loss is the mean over heads of the relative error, minus ``diversity`` times `diversity_of` the heads after a
    warm-up. The trunk is trained with them. Heads begin as copies of the operator's, each with its own noise.

    Args:
        operator: a Fourier neural operator; it is not changed.
        data: what to train on.
        members: heads.
        diversity: weight of the diversity, 0 or more.
        steps, learning_rate: of Adam, with half a cosine.
        warmup: share of the steps without that term.
        perturbation: noise of the heads' first weights, in units of their root mean square.
        seed: of the noise.

    Raises:
        ValueError: on another architecture, fewer than two heads or a negative diversity.
        FloatingPointError: if the loss stops being finite.
    """
    if members < 2 or diversity < 0 or not 0 <= warmup <= 1:
        raise ValueError(
            "diverse heads: expected two members or more, a diversity of at least 0 and a warm-up in [0, 1], "
            f"got {members}, {diversity} and {warmup}"
        )
    trunk = _fno(operator.copy())
    generator = stream(seed, "heads")
    heads = []
    for _ in range(members):
        head = nn.ModuleDict({name: deepcopy(getattr(trunk, name)) for name in LAST_LAYERS})
        for weight in head.parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=torch.float32, device="cpu").to(weight)
            weight.data += perturbation * weight.detach().square().mean().sqrt() * noise
        heads.append(head)
    shared = [p for name, p in trunk.named_parameters() if name.split(".")[0] not in LAST_LAYERS]
    optimizer = torch.optim.Adam([*shared, *(p for head in heads for p in head.parameters())], lr=learning_rate)
    for step in range(steps):
        progress = step / steps
        optimizer.param_groups[0]["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
        parts = data.batch(step, progress)
        inputs = [(system, batch.source, batch.coefficients) for system, batch in parts]
        (encoded,) = encode_together([operator], inputs)
        hidden = trunk.hidden(*encoded.inputs)
        outputs = torch.stack([_with_head(trunk, head).head(hidden) for head in heads])
        loss = training_loss(encoded.decode(outputs), parts, "relative").mean()
        if progress >= warmup and diversity:
            weights = [{name: cast(nn.Linear, layer).weight for name, layer in head.items()} for head in heads]
            loss = loss - diversity * diversity_of(weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    if not math.isfinite(loss.item()):
        raise FloatingPointError(f"diverse heads: the loss is {loss.item()}; lower the learning rate or the diversity")
    made = [Operator(deepcopy(_with_head(trunk, head)).eval(), operator.normalization, operator.card) for head in heads]
    card = {"kind": "diverse heads", "tasks": operator.tasks, "members": members, "diversity": diversity}
    card |= {"steps": steps, "hardware": hardware(operator.device), "versions": versions()}
    return Ensemble(made, card)


def _with_head(trunk: FNO, head: nn.ModuleDict) -> FNO:
    """The trunk with the layers of a head in place of those it has."""
    for name, layer in head.items():
        setattr(trunk, name, layer)
    return trunk


def _fno(operator: Operator) -> FNO:
    if not isinstance(operator.model, FNO):
        raise ValueError(f"last layers: expected a Fourier neural operator, got {operator.model.architecture!r}")
    return operator.model


@dataclass
class ChosenHeads:
    """Diverse heads, and how their diversity was chosen.

    Attributes:
        ensemble: of the chosen diversity.
        diversity: the chosen one.
        tried: mean error of the heads on validation for each diversity; infinity where the training diverged.
        start: error of the operator they began as.
    """

    ensemble: Ensemble
    diversity: float
    tried: dict[float, float]
    start: float


@takes_numpy
def choose_diversity(
    operator: Operator,
    task: Task,
    *,
    diversities: Sequence[float] = (0.0, 0.01, 0.1, 1.0),
    allowed: float = 1.1,
    validation: int = 64,
    batch_size: int = 32,
    resolution: int | Mapping[float, int] = 64,
    seed: int = 0,
    **options,
) -> ChosenHeads:
    """Train `diverse_heads` with the largest diversity that costs no more accuracy inside the range than allowed.

    Args:
        operator: a Fourier neural operator, pre-trained on the task.
        task: what it was trained on; fresh examples of it are trained on, others are for validation.
        diversities: to try.
        allowed: how many times the error of the operator the heads may have, in the mean over heads.
        validation, batch_size, resolution, seed: as in `pretrain`.
        options: as in `diverse_heads`.

    Returns:
        `ChosenHeads`. Where none is as accurate, that of the lowest error.

    Raises:
        ValueError: as `diverse_heads`.
    """
    last = resolution if isinstance(resolution, int) else list(resolution.values())[-1]
    held_out = validation_sets([task], validation, resolution=last, device=operator.device)
    (start,) = mean_losses([operator], held_out, "relative")
    tried: dict[float, float] = {}
    best: tuple[float, Ensemble | None] = (0.0, None)
    for diversity in sorted(diversities):
        data = FreshBatches([task], batch_size, resolution=resolution, seed=10_000 + seed, device=operator.device)
        try:
            ensemble = diverse_heads(operator, data, diversity=diversity, seed=seed, **options)
        except FloatingPointError:
            tried[diversity] = math.inf
            continue
        errors = mean_losses(ensemble.members, held_out, "relative")
        tried[diversity] = sum(errors) / len(errors)
        if not math.isfinite(tried[diversity]):
            continue
        if best[1] is None or tried[diversity] <= allowed * start or tried[diversity] < tried[best[0]]:
            best = diversity, ensemble
    if best[1] is None:
        raise FloatingPointError("diverse heads: every training diverged; lower the learning rate")
    return ChosenHeads(best[1], best[0], tried, start)


# Last-layer Laplace ---------------------------------------------------------------------------------------------------


class LastLayerLaplace:
    """A Gaussian posterior of the weights of the last linear layer: the operator's prediction, and a spread.

    In the scale of the network a solution is ``phi(x) . w``, with phi the features of the last linear layer and 1 for
    its bias, less their means where the solution has none. With H the mean of ``phi phi^T`` over points of training
    examples, the posterior covariance of w is ``s^2 (H + a I)^-1`` and the variance at a point ``phi^T cov phi``. The
    prior precision a and the size s, which stands for the noise over how many independent values the examples are, are
    those of the highest Gaussian likelihood on validation examples. (The marginal likelihood takes all points for
    independent, of which a smooth error has few, and finds a spread that is far too small.)

    Attributes:
        operator: whose prediction is the mean.
        covariance: of the last layer's weights and bias, shape (p + 1, p + 1).
        precision: a, in units of the mean diagonal of H.
    """

    def __init__(self, operator: Operator, covariance: Tensor, precision: float):
        self.operator, self.covariance, self.precision = operator, covariance, precision

    @classmethod
    @torch.no_grad()
    def fit(
        cls, operator: Operator, examples: Examples, validation: Examples, system: System | None = None
    ) -> LastLayerLaplace:
        """Posterior from training examples, with what is open chosen on validation examples.

        Raises:
            ValueError: on another architecture, or a system that the operator was not trained for.
        """
        known = operator.normalization.resolve(system)
        curvature = sum(
            cast(Tensor, torch.einsum("byxp,byxq->pq", phi.double(), phi.double()))
            for phi, _ in _features(operator, examples.source, examples.coefficients, known)
        )
        curvature = cast(Tensor, curvature) / examples.source.numel()
        values, vectors = torch.linalg.eigh(curvature)
        units = values.mean()
        weights = 1 / (values.clamp(min=0)[:, None] + units * values.new_tensor(PRECISIONS))
        variances = torch.cat(
            [
                (phi.double() @ vectors).square() @ weights * scale.double()[:, None, None, None].square()
                for phi, scale in _features(operator, validation.source, validation.coefficients, known)
            ]
        )
        error = operator.predict(validation.source, validation.coefficients, known) - validation.solution
        ratio = error.double()[..., None].square() / variances
        size = ratio.mean(dim=(0, 1, 2))
        score = 0.5 * (variances * size).log().mean(dim=(0, 1, 2))  # and 1/2, as the size fits
        best = int(score.argmin())
        covariance = size[best] * (vectors * weights[:, best]) @ vectors.T
        return cls(operator, covariance, PRECISIONS[best])

    def predict(self, source: Tensor, coefficients: Tensor, system: System | None = None) -> Prediction:
        """The operator's prediction and the posterior's standard deviation at each point, (batch, n, n) each."""
        known = self.operator.normalization.resolve(system)
        mean = self.operator.predict(source, coefficients, known)
        with graph_where_needed(source, coefficients):
            spreads = [
                ((phi.double() @ self.covariance) * phi).sum(-1).clamp(min=0).sqrt() * scale[:, None, None]
                for phi, scale in _features(self.operator, source, coefficients, known)
            ]
        return Prediction(mean, torch.cat(spreads).to(mean.dtype))


def _features(operator: Operator, source: Tensor, coefficients: Tensor, system: System):
    """Features of the last layer, with 1, as `LastLayerLaplace` says, and the scale of the output, in parts."""
    model, part = _fno(operator), 64
    for start in range(0, len(source), part):
        own = slice(start, start + part)
        (encoded,) = encode_together([operator], [(system, source[own], coefficients[own])])
        phi = model.features(model.hidden(*encoded.inputs))
        phi = torch.cat([phi, torch.ones_like(phi[..., :1])], dim=-1)
        yield phi - phi.mean(dim=(1, 2), keepdim=True) * encoded.zero_mean[:, None, None, None], encoded.used_scale
