"""Experiments as grids of runs: the paper's on downstream data, model size, shifted physics, mixed operators and seeds,
and this project's on architectures and on equations never seen.

Each function returns the runs of one figure at a budget, and `study.run_study` does what is missing of them. A point
that two figures share is the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import update_wrapper
from typing import Any

from sciml_fm_core.physics.system import SYSTEMS
from sciml_fm_core.physics.tasks import PAPER_TASKS, Task, tasks_of
from sciml_fm_core.study.custom import Schedule
from sciml_fm_core.study.registry import REGISTRY, experiment, for_budget
from sciml_fm_core.study.runs import COARSE_FIRST, STARTS, AdaptationRun, PretrainingRun
from sciml_fm_core.training.recipes import LEARNING_RATES, PAPER_LEARNING_RATES

PAPER_SIZES = ("64K", "1M", "16M", "256M")
EXAMPLES = tuple(2**power for power in range(3, 16))
"""The paper's downstream examples, 8 to 32,768; zero-shot is one more point."""


@dataclass(frozen=True)
class Budget:
    """How much of an experiment to run.

    Attributes:
        examples: downstream examples at the medium shifts, where the paper asks about data.
        other_examples: at the other shifts, and for sizes.
        few_examples: for mixtures and seeds.
        steps: optimiser steps by number of examples: ``(up to, steps)`` in rising order.
        learning_rates, symmetries: see `AdaptationRun`.
        resolution: schedule of the adaptations and of the study's own pre-training.
        sizes: of the model-size experiment, each pre-trained with `pretraining_steps`.
        seeds: downstream seeds of the seed experiment.
        parents: pre-trained operators by task and recipe; trained by the study where absent.
        validation, test, batch_size: see `AdaptationRun`.
        equation_steps, equation_size: of training from random weights without labels.
        tuning_steps: of fine-tuning without labels, one run for each.
        architecture_steps: pre-training steps of each architecture, which take the same time; `pretraining_steps` each
            where they were not measured.
        pretraining_examples: examples of each task that the study's own pre-training reads again and again; 0 for fresh
            ones in every step.
        settings: what single experiments set otherwise, by their names.
    """

    examples: tuple[int, ...]
    other_examples: tuple[int, ...]
    few_examples: tuple[int, ...]
    steps: tuple[tuple[int, int], ...]
    learning_rates: tuple[float, ...] = LEARNING_RATES
    resolution: Schedule = COARSE_FIRST
    sizes: tuple[str, ...] = PAPER_SIZES
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    pretraining_steps: int = 2000
    pretraining_batch: int = 32
    parents: dict[tuple[str, str], str] = field(default_factory=dict)
    validation: int = 64
    test: int = 256
    test_resolution: int = 64
    batch_size: int = 32
    architecture_steps: tuple[tuple[str, int], ...] = ()
    symmetries: bool = False
    equation_steps: int = 600
    equation_size: str = "256K"
    tuning_steps: tuple[int, ...] = (50, 150, 300)
    pretraining_examples: int = 0
    settings: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {"architectures": {"learning_rates": LEARNING_RATES[1:]}}
    )

    def of(self, experiment: str) -> Budget:
        """The budget with the settings of one experiment."""
        return replace(self, **self.settings.get(experiment, {}))

    def steps_for(self, examples: int) -> int:
        """Optimiser steps for a number of examples."""
        return next((steps for most, steps in self.steps if examples <= most), self.steps[-1][1])


SYS_1, SYS_2, SYS_3 = (PAPER_TASKS[name]["pre-training"] for name in ("poisson", "advection_diffusion", "helmholtz"))
ARCHITECTURES = ("fno", "unet", "vit")
TRAINED_ON = {"poisson": SYS_1, "advection_diffusion": SYS_2}
"""Pre-training tasks of the systems that most questions are about."""
MIXTURE = f"{SYS_1} + {SYS_2} + {SYS_3}"
UNSEEN = tuple(
    tasks_of(SYSTEMS[name])["whole"] for name in ("fractional_laplacian", "screened_poisson", "biharmonic_advection")
)
"""Tasks of equations that no operator that ships was trained on."""
SHIPPED = {
    (SYS_1, "dimensionless"): "sys-1",
    (SYS_1, "paper"): "sys-1-paper",
    (SYS_2, "dimensionless"): "sys-2",
    (SYS_3, "dimensionless"): "sys-3",
    (MIXTURE, "dimensionless"): "mixed",
    (MIXTURE, "symbol"): "symbol",
}

SMOKE = Budget(
    (4,), (4,), (4,), ((4, 2),), (1e-3,), ((0.0, 32),), ("64K",), (0, 1), 2, 4, SHIPPED, 2, 2, 32, 4,
    equation_steps=2, equation_size="64K", tuning_steps=(1, 2),
)  # fmt: skip
BUDGETS: dict[str, Budget] = {
    # seconds: only shows that everything runs
    "smoke": SMOKE,
    # minutes on two cores, from the operators that ship
    "laptop": Budget(
        (8, 64, 512, 2048),
        (8, 64, 512),
        (8, 64),
        ((8, 100), (512, 400), (2048, 800)),
        resolution=((0.0, 32), (0.95, 64)),
        sizes=("64K", "256K", "1M"),
        seeds=(0, 1, 2, 3, 4),
        pretraining_steps=1500,
        parents=SHIPPED,
        # 400 s of one core of an AMD EPYC, at 16.2, 4.1 and 7.3 steps/s
        architecture_steps=(("fno", 6500), ("unet", 1650), ("vit", 2900)),
        symmetries=True,
        settings={
            "unseen": {"steps": ((8, 100), (64, 200))},
            # for other steps and without symmetries, equally fair to both starts
            "architectures": {
                "steps": ((8, 150), (64, 250), (512, 500), (2048, 1000)),
                "learning_rates": LEARNING_RATES[1:],
                "resolution": COARSE_FIRST,
                "symmetries": False,
            },
        },
    ),
    # hours on one data-centre GPU
    "gpu": Budget(
        (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768),
        (8, 32, 128, 512, 2048, 8192),
        (8, 32, 128, 512, 2048, 8192),
        ((64, 500), (1024, 2000), (32768, 8000)),
        resolution=((0.0, 64), (0.7, 128)),
        sizes=("64K", "1M", "16M"),
        pretraining_steps=40_000,
        pretraining_batch=64,
        validation=512,
        test=4096,
        test_resolution=128,
        batch_size=64,
        symmetries=True,
        equation_steps=20_000,
        equation_size="1M",
        tuning_steps=(100, 300, 1000, 3000),
    ),
    # the paper's own: 32K examples, batch 128, 500 epochs = 128,000 steps at the largest size
    "paper": Budget(
        EXAMPLES,
        EXAMPLES,
        EXAMPLES,
        tuple((count, 500 * max(1, count // 128)) for count in EXAMPLES),
        PAPER_LEARNING_RATES,
        resolution=((0.0, 128),),
        pretraining_steps=128_000,
        pretraining_batch=128,
        pretraining_examples=32_768,
        validation=4096,
        test=4096,
        test_resolution=128,
        batch_size=128,
        equation_steps=128_000,
        equation_size="1M",
        tuning_steps=(100, 1000, 10_000),
    ),
}


REPEATS = 3
"""Seeds of the points that the headline and its like are computed from."""


Curves = Iterator[list[AdaptationRun]]


def _curves(name: str) -> Callable[[Callable[[Budget], Curves]], Callable[..., list[AdaptationRun]]]:
    """Decorator that registers the curves of a budget as an experiment, a function of the name of one; see `registry`.

    Of runs that two curves share, one is kept.
    """

    def register(curves: Callable[[Budget], Curves]) -> Callable[..., list[AdaptationRun]]:
        def runs(budget: str | Budget = "laptop") -> list[AdaptationRun]:
            return list(dict.fromkeys(run for curve in curves(find_budget(budget, name)) for run in curve))

        return experiment(name, table="")(update_wrapper(runs, curves, assigned=("__doc__", "__name__")))

    return register


@_curves("q1_downstream_data")
def downstream_data(chosen: Budget) -> Curves:
    """Question 1 (Figure 3): error against downstream examples at the medium shifts, by both recipes for SYS-1.

    `REPEATS` seeds of the specialists, but for the most examples.
    """
    curves = (("poisson", "dimensionless"), ("poisson", "paper"), ("advection_diffusion", "dimensionless"))
    for system, recipe in curves:
        parent, task = _parent(chosen, TRAINED_ON[system], recipe), PAPER_TASKS[system]["medium"]
        settings = replace(chosen, symmetries=False) if recipe == "paper" else chosen  # as it was published
        for seed in chosen.seeds[:REPEATS]:
            examples = chosen.examples if seed == chosen.seeds[0] else chosen.other_examples
            yield _curve(settings, parent, task, examples, seed=seed)
    for system in TRAINED_ON:
        yield _curve(chosen, _parent(chosen, MIXTURE, "symbol"), PAPER_TASKS[system]["medium"], chosen.other_examples)


@_curves("q2_model_size")
def model_size(chosen: Budget) -> Curves:
    """Question 2 (Figure 4): the same for networks of several sizes, each pre-trained by the study in equal steps."""
    for system, tasks in TRAINED_ON.items():
        for size in chosen.sizes:
            parent = _pretraining(chosen, tasks, "dimensionless", size)
            yield _curve(chosen, parent, PAPER_TASKS[system]["medium"], chosen.other_examples)


@_curves("q3_physics_shift")
def physics_shift(chosen: Budget) -> Curves:
    """Question 3 (Figures 5, A.2, B.1): no, mild, medium and large shifts of SYS-1 and SYS-2."""
    for system, tasks in TRAINED_ON.items():
        for shift in ("none", "mild", "medium", "large"):
            examples = chosen.examples if shift == "medium" else chosen.other_examples
            yield _curve(chosen, _parent(chosen, tasks, "dimensionless"), PAPER_TASKS[system][shift], examples)
            yield _curve(chosen, _parent(chosen, MIXTURE, "symbol"), PAPER_TASKS[system][shift], (), STARTS[:1])
            if system == "poisson":
                published = replace(chosen, symmetries=False)
                yield _curve(published, _parent(chosen, tasks, "paper"), PAPER_TASKS[system][shift], (), STARTS[:1])


@_curves("q4_mixed_operators")
def mixed_operators(chosen: Budget) -> Curves:
    """Question 4 (Figures 6, B.2): one operator pre-trained on all three systems against the three specialists.

    Inside the pre-training ranges (shift "none") and outside them ("medium").
    """
    for tasks in (SYS_1, SYS_2, SYS_3):
        for shift in ("none", "medium"):
            task = PAPER_TASKS[Task.parse(tasks).system.name][shift]
            yield _curve(chosen, _parent(chosen, tasks, "dimensionless"), task, chosen.few_examples)
            yield _curve(chosen, _parent(chosen, MIXTURE, "dimensionless"), task, chosen.few_examples, STARTS[:1])
            yield _curve(chosen, _parent(chosen, MIXTURE, "symbol"), task, (), STARTS[:1])


@_curves("seeds")
def seeds(chosen: Budget) -> Curves:
    """Figure B.3: the medium shifts with several draws of the downstream examples, shuffles and random weights."""
    for system, tasks in TRAINED_ON.items():
        parent, task = _parent(chosen, tasks, "dimensionless"), PAPER_TASKS[system]["medium"]
        for seed in chosen.seeds:
            yield _curve(chosen, parent, task, chosen.few_examples, seed=seed)


PRINTED = {"SYS-1(5,10)": {"fine-tuned": (64, 0.01), "from scratch": (8000, 0.01)}}
"""Points that the paper prints in its text, by task and start: about how many examples an error takes."""

PATIENCE = 4
"""How many times longer the headline trains from scratch beside its equal steps."""


@_curves("headline")
def headline(chosen: Budget) -> Curves:
    """Labelled examples against error on SYS-1(5,10): what each of our changes to few-shot training is worth.

    Both recipes fine-tuned without the symmetries of the square, then ours with them, and its twin from scratch, with
    them too; of the latter two, but for the most examples, `REPEATS` seeds. From scratch also `PATIENCE` times as long:
    it gains more from further steps, so that what is saved depends on them. The mixture conditioned on the symbol has
    no labels of this task at all.
    """
    task = PAPER_TASKS["poisson"]["medium"]
    yield _curve(chosen, _parent(chosen, MIXTURE, "symbol"), task, (), STARTS[:1])
    for recipe in ("paper", "dimensionless"):
        parent = _parent(chosen, SYS_1, recipe)
        yield _curve(replace(chosen, symmetries=False), parent, task, chosen.examples, STARTS[:1])
    parent, chosen = _parent(chosen, SYS_1, "dimensionless"), replace(chosen, symmetries=True)
    longer = replace(chosen, steps=tuple((most, PATIENCE * steps) for most, steps in chosen.steps))
    patient = [count for count in chosen.examples if min(chosen.few_examples) < count <= max(chosen.other_examples)]
    for seed in chosen.seeds[:REPEATS]:
        examples = chosen.examples if seed == chosen.seeds[0] else chosen.other_examples
        yield _curve(chosen, parent, task, examples, seed=seed)
        yield _curve(longer, parent, task, patient, STARTS[1:], seed)[1:]


@_curves("architectures")
def architectures(chosen: Budget) -> Curves:
    """Networks of other architectures, pre-trained on SYS-1(1,5) for equal time, at the medium shift."""
    steps_of = chosen.architecture_steps or tuple((name, chosen.pretraining_steps) for name in ARCHITECTURES)
    for architecture, steps in steps_of:
        parent = PretrainingRun(
            SYS_1, steps=steps, batch_size=chosen.pretraining_batch, resolution=chosen.resolution,
            size=_size(chosen), architecture=architecture,
        )  # fmt: skip
        yield _curve(chosen, parent, PAPER_TASKS["poisson"]["medium"], chosen.other_examples)


LONGER = 3
"""How many times longer the operator that meets SYS-3 is pre-trained, beside its equal steps."""


@_curves("unseen")
def unseen(chosen: Budget) -> Curves:
    """Equations that the pre-training never saw: each of the paper's held out in turn, and those of `UNSEEN`.

    An operator of the paper's other two systems meets the third, in its pre-training range. By the recipe that is told
    coefficients it has inputs for those of the third; by the recipes that are conditioned on the symbol it needs none.
    The one that meets SYS-3, the hardest, is also pre-trained `LONGER` times as long. The recipe that is told
    compositions has `REPEATS` seeds of the examples, the others one. The mixture of all three meets the equations
    beside them.
    """
    systems = (SYS_1, SYS_2, SYS_3)
    for held_out in systems:
        others = " + ".join(tasks for tasks in systems if tasks != held_out)
        for recipe in ("symbol-composed", "symbol", "dimensionless"):
            parent = PretrainingRun(
                others, recipe, _size(chosen), steps=chosen.pretraining_steps, batch_size=chosen.pretraining_batch,
                resolution=chosen.resolution[:1], inputs_for=held_out if recipe == "dimensionless" else "",
            )  # fmt: skip
            for seed in chosen.seeds[: REPEATS if recipe == "symbol-composed" else 1]:
                yield _curve(chosen, parent, held_out, chosen.few_examples, seed=seed)
                if (held_out, recipe) == (SYS_3, "symbol-composed"):
                    longer = replace(parent, steps=LONGER * parent.steps)
                    yield _curve(chosen, longer, held_out, chosen.few_examples, STARTS[:1], seed)
    for task in UNSEEN:
        yield _curve(chosen, _parent(chosen, MIXTURE, "symbol"), task, chosen.few_examples)


def find_budget(budget: str | Budget, experiment: str) -> Budget:
    """A budget by name, with the settings of an experiment.

    Raises:
        ValueError: if there is none of that name.
    """
    return (budget if isinstance(budget, Budget) else for_budget(BUDGETS, budget)).of(experiment)


def _parent(budget: Budget, tasks: str, recipe: str) -> str | PretrainingRun:
    return budget.parents.get((tasks, recipe)) or _pretraining(budget, tasks, recipe, "1M")


def _size(budget: Budget) -> str:
    """Size of networks where the size is not the question."""
    return "1M" if "1M" in budget.sizes else budget.sizes[0]


def _pretraining(budget: Budget, tasks: str, recipe: str, size: str) -> PretrainingRun:
    return PretrainingRun(
        tasks, recipe, size, steps=budget.pretraining_steps, batch_size=budget.pretraining_batch,
        resolution=budget.resolution, fixed_examples=budget.pretraining_examples,
    )  # fmt: skip


_SHARED = ("batch_size", "learning_rates", "resolution", "validation", "test", "test_resolution", "symmetries")
"""What an `AdaptationRun` has of its budget, besides the steps."""


def _curve(budget, parent, task, examples, starts=STARTS, seed=0) -> list[AdaptationRun]:
    """Both starts over the examples; zero examples are the zero-shot and the untrained error."""
    settings = {name: getattr(budget, name) for name in _SHARED}
    return [
        AdaptationRun(parent, task, start, count, seed, steps=budget.steps_for(count), **settings)
        for start in starts
        for count in (0, *examples)
    ]


EXPERIMENTS = {name: each.runs for name, each in REGISTRY.items() if not each.table and name != "headline"}
"""Those with a figure on the studies page, by the names of their notebooks."""
