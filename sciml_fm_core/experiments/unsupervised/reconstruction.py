"""Pre-training without solutions and without an equation: a network restores degraded sources.

Chen et al., arXiv:2402.15734: sources are blurred and partly masked, and a network learns to give them back, before it
is fine-tuned on a few solved examples. Unlike `training.unlabelled` it uses no equation, only which sources occur.

Where it differs from the released code (github.com/delta-lab-ai/data_efficient_nopt):

- Its loss is over masked points alone, so that with no mask, only blurred, it trains nothing (and its configuration for
  Poisson offers a ratio of 0). Here it is the relative error of the whole field, which trains whatever the degradation.
- Its network has an output for each input, so also for coefficients, as maps that are constant in space. Here they are
  a few exact numbers, statistically independent of the source: told, they need not be restored; masked, they cannot be,
  as nothing tells their value. So the source alone is restored, and the coefficients are told.
- Its fine-tuning keeps the backbone alone, as the number of outputs changes. Here it does not, and both can be had:
  `with_new_output`.
- Masked points are chosen anew for each example and step, an exact share of them.

The network's one output stands for the source in place of the solution. In the scale of its output both are of order
one: the target is the field ``f / S``, with S = `System.scale`, which a `DimensionlessNormalization` turns into f over
the root mean square of what is left of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciml_fm_core.data.batches import Batches, FreshBatches
from sciml_fm_core.data.splits import stream
from sciml_fm_core.evaluation.errors import validation_sets
from sciml_fm_core.models.fno import FNO
from sciml_fm_core.models.operator import Operator
from sciml_fm_core.physics.examples import Examples
from sciml_fm_core.physics.spectral import check_grid, filter_modes, laplacian
from sciml_fm_core.physics.system import System
from sciml_fm_core.physics.tasks import Task
from sciml_fm_core.schema import TakesNumpy, takes_numpy
from sciml_fm_core.training.cards import training_card
from sciml_fm_core.training.config import Callback, History, TrainConfig
from sciml_fm_core.training.loop import fit
from sciml_fm_core.training.recipes import completed, find_recipe
from sciml_fm_core.training.transfer import new_operator
from sciml_fm_core.training.unlabelled import WithoutSolutions

BLUR_UNIT = 64
"""Points of the grid in whose spacings a blur is given, whatever the grid at hand."""


@dataclass(frozen=True)
class Degradation(TakesNumpy):
    """Degradation of sources: blurred first, then masked.

    Attributes:
        mask_ratio: share of the patches that are set to zero, in [0, 1).
        patch: points in each direction of a patch; 1 masks single points.
        blur: largest standard deviation of the Gaussian filter, in units of 1 / `BLUR_UNIT` of the period; that of an
            example is drawn uniformly between 0 and it.

    Raises:
        ValueError: on values out of these ranges.

    >>> source = torch.ones(1, 8, 8)
    >>> Degradation(mask_ratio=0.5)(source, torch.Generator().manual_seed(0)).mean()
    tensor(0.5000)
    """

    mask_ratio: float = 0.0
    patch: int = 1
    blur: float = 0.0

    def __post_init__(self):
        if not (0 <= self.mask_ratio < 1 and self.patch >= 1 and 0 <= self.blur < math.inf):
            raise ValueError(
                "degradation: expected a mask ratio in [0, 1), a patch of at least 1 and a blur of at least 0, got "
                f"{self.mask_ratio}, {self.patch} and {self.blur}"
            )

    def masked(self, count: int, n: int, generator: torch.Generator) -> Tensor:
        """Mask of points, boolean (count, n, n): of each example the same number of patches.

        >>> Degradation(0.25, patch=2).masked(3, 8, torch.Generator().manual_seed(0)).float().mean(dim=(1, 2))
        tensor([0.2500, 0.2500, 0.2500])

        Raises:
            ValueError: if patches do not fill the grid.
        """
        if n % self.patch:
            raise ValueError(f"degradation: expected a patch that divides {n} points, got {self.patch}")
        patches = (n // self.patch) ** 2
        order = torch.rand(count, patches, generator=generator, device=generator.device, dtype=torch.float32)
        order = order.argsort(dim=1).argsort(dim=1)
        chosen = (order < round(self.mask_ratio * patches)).unflatten(1, (n // self.patch, n // self.patch))
        return chosen.repeat_interleave(self.patch, dim=1).repeat_interleave(self.patch, dim=2)

    def __call__(self, source: Tensor, generator: torch.Generator) -> Tensor:
        """Degrade sources, shape (batch, n, n) as the sources; randomness is drawn on the generator's device.

        The blur of standard deviation s multiplies each mode by ``exp(-2 pi^2 s^2 |k|^2)``, the exact Gaussian filter
        on the torus.

        Raises:
            ValueError: if patches do not fill the grid.
        """
        n, count = check_grid(source, "source"), len(source)
        deviation = torch.rand(count, generator=generator, device=generator.device, dtype=torch.float32)
        deviation = self.blur / BLUR_UNIT * deviation
        masked = self.masked(count, n, generator).to(source.device)
        if self.blur:
            variance = deviation.to(source).square()[:, None, None]
            source = filter_modes(source, torch.exp(-variance / 2 * laplacian(n, like=source)))
        return source.masked_fill(masked, 0)


def reconstruction(
    system: System, examples: Examples, degradation: Degradation, generator: torch.Generator
) -> Examples:
    """Examples whose source is degraded and whose solution is the source as it was, over ``System.scale``.

    The solutions of the examples are not read. Where the equation has no mean, that of the degraded source is
    subtracted, as that of every source is.

    >>> task, generator = Task.parse("SYS-1(1,20)"), torch.Generator().manual_seed(0)
    >>> examples = task.sample(2, 16, generator)
    >>> restored = reconstruction(task.system, examples, Degradation(0.5), generator)
    >>> scale = task.system.scale(examples.coefficients)[:, None, None]
    >>> torch.allclose(restored.solution * scale, examples.source), torch.allclose(restored.source, examples.source)
    (True, False)
    """
    degraded = degradation(examples.source, generator)
    if system.zero_mean:
        degraded = degraded - degraded.mean(dim=(-2, -1), keepdim=True)
    clean = examples.source / system.scale(examples.coefficients)[:, None, None]
    return examples._replace(source=degraded, solution=clean)


class ReconstructionBatches:
    """Batches of `reconstruction`, degraded anew in each step by a stream of the seed.

    Args:
        batches: sources and coefficients; solutions are not read.
        degradation: how sources are degraded.
        seed: seed of masks and blurs.
    """

    def __init__(self, batches: Batches, degradation: Degradation, *, seed: int = 0):
        self.batches, self.degradation, self.seed = batches, degradation, seed

    def batch(self, step: int, progress: float) -> list[tuple[System, Examples]]:
        """Examples of one step."""
        generator = stream(self.seed, "reconstruction", step)
        return [
            (system, reconstruction(system, examples, self.degradation, generator))
            for system, examples in self.batches.batch(step, progress)
        ]


@takes_numpy
def pretrain_by_reconstruction(
    tasks: Sequence[Task],
    degradation: Degradation,
    config: TrainConfig | None = None,
    *,
    recipe: str = "dimensionless",
    architecture: str = "fno",
    size: str = "1M",
    seed: int = 0,
    batch_size: int | None = None,
    resolution: int | Mapping[float, int] = 64,
    validation_count: int = 64,
    device: str | torch.device = "cpu",
    callback: Callback | None = None,
) -> tuple[Operator, History]:
    """Train an operator to restore the degraded sources of tasks; `fine_tune` then makes a solver of it.

    No solution reaches it: `WithoutSolutions` puts NaN in their place. Its own predictions are sources over
    ``System.scale``, until it is fine-tuned.

    >>> config = TrainConfig(steps=2)
    >>> operator, history = pretrain_by_reconstruction(
    ...     [Task.parse("SYS-1(1,20)")], Degradation(0.5), config, size="64K", batch_size=4, resolution=16,
    ...     validation_count=2)
    >>> operator.card["labels"], history.examples_seen
    ('none', 8)

    Args:
        tasks: whose sources and coefficients are drawn.
        degradation: what is to be undone.
        config: how to train; what it leaves open is the recipe's, so the loss of ``dimensionless`` is the relative
            error of the whole field.
        recipe, architecture, size, seed, batch_size, resolution, validation_count, device, callback: as in `pretrain`.

    Returns:
        The operator, with its card, and the history.

    Raises:
        ValueError: on unknown names, or patches that do not fill one of the grids.
    """
    chosen = find_recipe(recipe)
    operator = new_operator(tasks, recipe=recipe, architecture=architecture, size=size, seed=seed, device=device)
    config = completed(config, operator)
    batch_size = batch_size or chosen.batch_size
    fresh = FreshBatches(tasks, batch_size, resolution=resolution, seed=seed, device=device)
    batches = ReconstructionBatches(WithoutSolutions(fresh), degradation, seed=seed)
    last = resolution if isinstance(resolution, int) else resolution[max(resolution)]
    generator = stream(seed, "reconstruction", "validation")
    held_out = [
        (system, reconstruction(system, examples.without_solution(), degradation, generator))
        for system, examples in validation_sets(tasks, validation_count, seed=seed, resolution=last, device=device)
    ]
    history = fit(operator, batches, config, validation=held_out, callback=callback)
    operator.card |= {
        "kind": "pre-trained by reconstruction",
        "labels": "none",
        "batch_size": batch_size,
        "resolution": resolution if isinstance(resolution, int) else {str(k): v for k, v in resolution.items()},
        "mask_ratio": degradation.mask_ratio,
        "patch": degradation.patch,
        "blur": degradation.blur,
        "learning_rate": config.learning_rate,
        "loss": config.loss,
        **training_card(history, operator),
    }
    return operator, history


def with_new_output(operator: Operator, *, seed: int = 0) -> Operator:
    """A copy whose last pointwise network is random again, so that the fine-tuning keeps the blocks before it alone.

    Raises:
        ValueError: if the network is no FNO.
    """
    copy = operator.copy()
    if not isinstance(copy.model, FNO):
        raise ValueError(f"new output: expected a Fourier neural operator, got {copy.model.architecture}")
    fresh = FNO.create(copy.model.config, stream(seed, "output"))
    for name in ("project", "output"):
        getattr(copy.model, name).load_state_dict(getattr(fresh, name).state_dict())
    return copy
