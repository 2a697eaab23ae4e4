"""Runs that relate heavy tails in the spectra of weights to errors, across operators and along trainings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from sciml_fm_core.data.splits import draw_split
from sciml_fm_core.evaluation.metrics import mean_relative_error
from sciml_fm_core.experiments.shipped import SYSTEMS_OF
from sciml_fm_core.experiments.weight_spectra.method import fit_layers, layer_spectra, mean_exponent
from sciml_fm_core.models.operator import Operator, load_operator, shipped_adaptations
from sciml_fm_core.physics.examples import Examples
from sciml_fm_core.physics.tasks import PAPER_TASKS, Task
from sciml_fm_core.study.custom import CustomRun, Schedule
from sciml_fm_core.study.registry import experiment, for_budget
from sciml_fm_core.training.config import Progress, TrainConfig
from sciml_fm_core.training.recipes import find_recipe
from sciml_fm_core.training.transfer import fine_tune, pretrain


@dataclass(frozen=True)
class SpectraRun(CustomRun):
    """The exponents of an operator that ships, and its error on some tasks.

    Attributes:
        parent: shipped operator or adaptation, or a bundle.
        tasks: where it is measured.
        test, test_resolution, seed: of the examples.
    """

    parent: str
    tasks: tuple[str, ...]
    test: int = 64
    test_resolution: int = 64
    seed: int = 0
    kind: ClassVar[str] = "weight_spectra"

    def __post_init__(self):
        for label in self.tasks:
            Task.parse(label)

    def measure(self, device):
        """The mean ``exponent``; by layer, as lists, its exponent, the distance of the law to the tail and the share of
        the singular values in the tail; the errors in the order of the tasks."""
        operator = load_operator(self.parent, device)
        spectra = layer_spectra(operator.model)
        laws = fit_layers(spectra)
        return {
            "trained": operator.card.get("kind", "pre-trained"),
            "recipe": operator.card.get("recipe", ""),
            "exponent": round(sum(law.alpha for law in laws.values()) / len(laws), 4),
            "layers": list(laws),
            "exponents": [round(law.alpha, 4) for law in laws.values()],
            "distances": [round(law.distance, 4) for law in laws.values()],
            "tails": [round(law.size / len(spectra[name]), 4) for name, law in laws.items()],
            "error": [_error(operator, *_test(label, self)) for label in self.tasks],
        }


@dataclass(frozen=True)
class TrainingSpectraRun(CustomRun):
    """Exponents and errors along a training: a pre-training, or the fine-tuning of an operator.

    Attributes:
        task: what is trained on.
        outside: another task, where the error is measured too.
        parent: what is fine-tuned, on so many `examples`; a pre-training where empty.
        recipe, size, batch_size, resolution: of a pre-training, as in `pretrain`.
        steps, snapshots: of the training, and how often it is looked at, evenly.
        seed: of training and test.
        test, test_resolution: of the test examples.
    """

    task: str
    outside: str
    parent: str = ""
    examples: int = 0
    recipe: str = "dimensionless"
    size: str = "256K"
    batch_size: int = 32
    resolution: Schedule = ((0.0, 32),)
    steps: int = 600
    snapshots: int = 12
    seed: int = 0
    test: int = 64
    test_resolution: int = 64
    kind: ClassVar[str] = "training_spectra"

    def __post_init__(self):
        find_recipe(self.recipe)
        for label in (self.task, self.outside):
            Task.parse(label)
        if bool(self.parent) != bool(self.examples):
            raise ValueError("training spectra: expected examples to fine-tune a parent on, or neither of both")

    def measure(self, device):
        """At each snapshot, as lists: ``at`` step, mean ``exponent``, error on the task and outside."""
        found: dict[str, list] = {"at": [], "exponent": [], "error": [], "error_outside": []}
        inside, outside = _test(self.task, self), _test(self.outside, self)

        def look(step: int, operator: Operator) -> None:
            found["at"].append(step)
            found["exponent"].append(round(mean_exponent(operator.model), 4))
            found["error"].append(_error(operator, *inside))
            found["error_outside"].append(_error(operator, *outside))

        def callback(progress: Progress) -> None:
            assert progress.operator is not None
            if progress.step not in found["at"]:
                look(progress.step, progress.operator)

        every = max(1, self.steps // self.snapshots)
        config = TrainConfig(steps=self.steps, report_every=every, validate_every=every)
        task = Task.parse(self.task)
        if self.parent:
            operator = load_operator(self.parent, device)
            look(0, operator)
            drawn = {
                split: draw_split(task, split, self.examples, seed=self.seed, resolution=self.test_resolution)
                for split in ("train", "validation")
            }
            fine_tune(
                operator, drawn["train"], validation=drawn["validation"], config=config, seed=self.seed,
                callback=callback,
            )  # fmt: skip
        else:
            pretrain(
                [task], config, recipe=self.recipe, size=self.size, seed=self.seed, batch_size=self.batch_size,
                resolution=dict(self.resolution), validation_count=64, device=device, callback=callback,
            )  # fmt: skip
        return found


def _test(label: str, run: Any) -> tuple[Task, Examples]:
    task = Task.parse(label)
    return task, draw_split(task, "test", run.test, seed=run.seed, resolution=run.test_resolution)


def _error(operator: Operator, task: Task, test: Examples) -> float:
    prediction = operator.predict(test.source, test.coefficients, task.system)
    return float(f"{mean_relative_error(prediction, test.solution):.4g}")


SPECIALISTS = ("sys-1", "sys-2", "sys-3")
ADAPTED = {
    name: SYSTEMS_OF[parent]
    for name in shipped_adaptations()
    for parent in SPECIALISTS
    if name.startswith(f"{parent}-")
}
"""The adaptations that ship."""
FURTHEST = {name: list(tasks.values())[-1] for name, tasks in PAPER_TASKS.items()}
"""The named shift of each system that is furthest from its pre-training."""
SEEDS = (0, 1, 2)


@experiment("weight_spectra")
def weight_spectra(budget: str = "laptop") -> list[CustomRun]:
    """Every operator that ships on every named shift of its systems, and trainings of both kinds, three seeds each."""
    sizes: dict[str, dict[str, Any]] = {
        "smoke": {"test": 2, "test_resolution": 32},
        "laptop": {},
        "gpu": {"test": 1024, "test_resolution": 128},
        "paper": {"test": 1024, "test_resolution": 128},
    }
    smoke, test = budget == "smoke", for_budget(sizes, budget)
    trained = test | {"laptop": {}, "smoke": {"size": "64K", "steps": 3, "snapshots": 3}}.get(
        budget, {"size": "1M", "steps": 8000, "batch_size": 128, "snapshots": 20, "resolution": ((0.0, 32), (0.85, 64))}
    )
    tuned = test | ({"steps": 3, "snapshots": 3} if smoke else {"steps": 240})
    systems = ("poisson",) if smoke else tuple(PAPER_TASKS)
    seeds = SEEDS[:1] if smoke else SEEDS
    examples = 4 if smoke else 128
    specialists = {name: SYSTEMS_OF[name] for name in SPECIALISTS}
    runs: list[CustomRun] = [
        SpectraRun(parent, tuple(label for system in of for label in PAPER_TASKS[system].values()), **test)
        for parent, of in (specialists if smoke else SYSTEMS_OF | ADAPTED).items()
    ]
    for system in systems:
        tasks = PAPER_TASKS[system]
        runs += [TrainingSpectraRun(tasks["pre-training"], FURTHEST[system], seed=seed, **trained) for seed in seeds]
        parent = next(name for name, of in specialists.items() if of == (system,))
        runs += [
            TrainingSpectraRun(FURTHEST[system], tasks["pre-training"], parent, examples, seed=seed, **tuned)
            for seed in seeds
        ]
    return runs
