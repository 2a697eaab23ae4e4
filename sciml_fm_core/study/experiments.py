"""Experiments as grids of runs: the paper's on downstream data, model size, shifted physics, mixed operators and seeds,
and this project's on architectures and on equations never seen.

Each function returns the runs of one figure at a budget, and `study.run_study` does what is missing of them. A point
that two figures share is the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from sciml_fm_core.physics.system import SYSTEMS
from sciml_fm_core.physics.tasks import PAPER_TASKS, Task, tasks_of
from sciml_fm_core.training.recipes import LEARNING_RATES, PAPER_LEARNING_RATES
from sciml_fm_core.training.unlabelled import UNLABELLED

from .convergence import convergence_runs
from .engine import GridProgress
from .equation_runs import EquationRun
from .low_precision import low_precision_runs
from .measured import MeasuredRun
from .records import read_table, shipped_tables
from .runs import STARTS, AdaptationRun, PretrainingRun, Recorded, Schedule, identity, run_study
from .training_range import training_range
from .uncertainty import uncertainty
from .unsupervised import unsupervised
from .weight_spectra import weight_spectra

COARSE_FIRST: Schedule = ((0.0, 32), (0.85, 64))
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
            # for other steps and without symmetries, as fair to both starts
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


def downstream_data(budget: str | Budget = "laptop") -> list[AdaptationRun]:
    """Question 1 (Figure 3): error against downstream examples at the medium shifts, by both recipes for SYS-1.

    `REPEATS` seeds of the specialists, but for the most examples.
    """
    chosen = _budget(budget, "q1_downstream_data")
    curves = [
        (SYS_1, "dimensionless", "poisson"),
        (SYS_1, "paper", "poisson"),
        (SYS_2, "dimensionless", "advection_diffusion"),
    ]
    runs = []
    for tasks, recipe, system in curves:
        settings = _published(chosen) if recipe == "paper" else chosen
        for seed in chosen.seeds[:REPEATS]:
            examples = chosen.examples if seed == chosen.seeds[0] else chosen.other_examples
            runs += _curve(settings, _parent(chosen, tasks, recipe), PAPER_TASKS[system]["medium"], examples, seed=seed)
    for system in ("poisson", "advection_diffusion"):
        runs += _curve(chosen, _parent(chosen, MIXTURE, "symbol"), PAPER_TASKS[system]["medium"], chosen.other_examples)
    return runs


def model_size(budget: str | Budget = "laptop") -> list[AdaptationRun]:
    """Question 2 (Figure 4): the same for networks of several sizes, each pre-trained by the study in equal steps."""
    chosen = _budget(budget, "q2_model_size")
    runs = []
    for tasks, system in ((SYS_1, "poisson"), (SYS_2, "advection_diffusion")):
        for size in chosen.sizes:
            parent = _pretraining(chosen, tasks, "dimensionless", size)
            runs += _curve(chosen, parent, PAPER_TASKS[system]["medium"], chosen.other_examples)
    return runs


def physics_shift(budget: str | Budget = "laptop") -> list[AdaptationRun]:
    """Question 3 (Figures 5, A.2, B.1): no, mild, medium and large shifts of SYS-1 and SYS-2."""
    chosen = _budget(budget, "q3_physics_shift")
    runs = []
    for tasks, system in ((SYS_1, "poisson"), (SYS_2, "advection_diffusion")):
        for shift in ("none", "mild", "medium", "large"):
            examples = chosen.examples if shift == "medium" else chosen.other_examples
            runs += _curve(chosen, _parent(chosen, tasks, "dimensionless"), PAPER_TASKS[system][shift], examples)
            runs += _curve(chosen, _parent(chosen, MIXTURE, "symbol"), PAPER_TASKS[system][shift], (), STARTS[:1])
            if system == "poisson":
                own = _published(chosen), _parent(chosen, tasks, "paper")
                runs += _curve(*own, PAPER_TASKS[system][shift], (), STARTS[:1])
    return runs


def mixed_operators(budget: str | Budget = "laptop") -> list[AdaptationRun]:
    """Question 4 (Figures 6, B.2): one operator pre-trained on all three systems against the three specialists.

    Inside the pre-training ranges (shift "none") and outside them ("medium").
    """
    chosen = _budget(budget, "q4_mixed_operators")
    runs = []
    for tasks in (SYS_1, SYS_2, SYS_3):
        for shift in ("none", "medium"):
            task = PAPER_TASKS[Task.parse(tasks).system.name][shift]
            runs += _curve(chosen, _parent(chosen, tasks, "dimensionless"), task, chosen.few_examples)
            runs += _curve(chosen, _parent(chosen, MIXTURE, "dimensionless"), task, chosen.few_examples, STARTS[:1])
            runs += _curve(chosen, _parent(chosen, MIXTURE, "symbol"), task, (), STARTS[:1])
    return runs


def seeds(budget: str | Budget = "laptop") -> list[AdaptationRun]:
    """Figure B.3: the medium shifts with several draws of the downstream examples, shuffles and random weights."""
    chosen = _budget(budget, "seeds")
    return [
        run
        for tasks, system in ((SYS_1, "poisson"), (SYS_2, "advection_diffusion"))
        for seed in chosen.seeds
        for run in _curve(
            chosen,
            _parent(chosen, tasks, "dimensionless"),
            PAPER_TASKS[system]["medium"],
            chosen.few_examples,
            seed=seed,
        )
    ]


PATIENCE = 4
"""How many times longer the headline trains from scratch beside its equal steps."""


def headline(budget: str | Budget = "laptop") -> list[AdaptationRun]:
    """Labelled examples against error on SYS-1(5,10): what each of our changes to few-shot training is worth.

    Both recipes fine-tuned without the symmetries of the square, then ours with them, and its twin from scratch, with
    them too; of the latter two, but for the most examples, `REPEATS` seeds. From scratch also `PATIENCE` times as long:
    it gains more from further steps, so that what is saved depends on them. The mixture told the symbol has no labels
    of this task at all.
    """
    chosen = _budget(budget, "headline")
    task = PAPER_TASKS["poisson"]["medium"]
    runs = _curve(chosen, _parent(chosen, MIXTURE, "symbol"), task, (), STARTS[:1])
    for recipe in ("paper", "dimensionless"):
        parent = _parent(chosen, SYS_1, recipe)
        runs += _curve(replace(chosen, symmetries=False), parent, task, chosen.examples, STARTS[:1])
    parent, chosen = _parent(chosen, SYS_1, "dimensionless"), replace(chosen, symmetries=True)
    longer = replace(chosen, steps=tuple((most, PATIENCE * steps) for most, steps in chosen.steps))
    patient = [count for count in chosen.examples if min(chosen.few_examples) < count <= max(chosen.other_examples)]
    for seed in chosen.seeds[:REPEATS]:
        examples = chosen.examples if seed == chosen.seeds[0] else chosen.other_examples
        runs += _curve(chosen, parent, task, examples, seed=seed)
        runs += _curve(longer, parent, task, patient, STARTS[1:], seed)[1:]
    return list(dict.fromkeys(runs))


def architectures(budget: str | Budget = "laptop") -> list[AdaptationRun]:
    """Networks of other architectures, pre-trained on SYS-1(1,5) for equal time, at the medium shift."""
    chosen = _budget(budget, "architectures")
    runs = []
    steps_of = chosen.architecture_steps or tuple((name, chosen.pretraining_steps) for name in ARCHITECTURES)
    for architecture, steps in steps_of:
        parent = PretrainingRun(
            SYS_1, steps=steps, batch_size=chosen.pretraining_batch, resolution=chosen.resolution,
            size=_size(chosen), architecture=architecture,
        )  # fmt: skip
        runs += _curve(chosen, parent, PAPER_TASKS["poisson"]["medium"], chosen.other_examples)
    return runs


LONGER = 3
"""How many times longer the operator that meets SYS-3 is pre-trained, beside its equal steps."""


def unseen(budget: str | Budget = "laptop") -> list[AdaptationRun]:
    """Equations that the pre-training never saw: each of the paper's held out in turn, and those of `UNSEEN`.

    An operator of the paper's other two systems meets the third, in its pre-training range. By the recipe that is told
    coefficients it has inputs for those of the third; by the recipes that are told the symbol it needs none. The one
    that meets SYS-3, the hardest, is also pre-trained `LONGER` times as long. The recipe that is told compositions has
    `REPEATS` seeds of the examples, the others one. The mixture of all three meets the equations beside them.
    """
    chosen = _budget(budget, "unseen")
    runs, systems = [], (SYS_1, SYS_2, SYS_3)
    for held_out in systems:
        others = " + ".join(tasks for tasks in systems if tasks != held_out)
        for recipe in ("symbol-composed", "symbol", "dimensionless"):
            parent = PretrainingRun(
                others, recipe, _size(chosen), steps=chosen.pretraining_steps, batch_size=chosen.pretraining_batch,
                resolution=chosen.resolution[:1], inputs_for=held_out if recipe == "dimensionless" else "",
            )  # fmt: skip
            for seed in chosen.seeds[: REPEATS if recipe == "symbol-composed" else 1]:
                runs += _curve(chosen, parent, held_out, chosen.few_examples, seed=seed)
                if (held_out, recipe) == (SYS_3, "symbol-composed"):
                    longer = replace(parent, steps=LONGER * parent.steps)
                    runs += _curve(chosen, longer, held_out, chosen.few_examples, STARTS[:1], seed)
    for task in UNSEEN:
        runs += _curve(chosen, _parent(chosen, MIXTURE, "symbol"), task, chosen.few_examples)
    return runs


def physics_loss(budget: str | Budget = "laptop") -> list[EquationRun]:
    """Learning from the equation alone, at points further and further along the dials of SYS-1 and SYS-2.

    From random weights by the plain residual, by the preconditioned one and, to compare, by labels without end; at the
    far end of the dial also with a curriculum along it. Then from the operators that ship, at the medium shift.
    """
    chosen = _budget(budget, "physics_loss")
    runs = []
    common: dict[str, Any] = {"batch_size": chosen.batch_size, "validation": chosen.validation, "test": chosen.test}
    common |= {"test_resolution": chosen.test_resolution}
    made = common | {"size": chosen.equation_size, "steps": chosen.equation_steps}
    for system, parent in (("poisson", "sys-1"), ("advection_diffusion", "sys-2")):
        near, medium, far = (PAPER_TASKS[system][shift] for shift in ("none", "medium", "large"))
        for task in (near, medium, far):
            runs += [EquationRun(task, loss, **made) for loss in ("residual", "physics", "relative")]
        runs += [EquationRun(far, loss, easiest=near, **made) for loss in ("residual", "physics")]
        runs += [
            EquationRun(
                medium, loss, parent, size="", steps=steps, learning_rate=cast(float, UNLABELLED.learning_rate),
                resolution=COARSE_FIRST, **common,
            )
            for loss in ("residual", "physics")
            for steps in chosen.tuning_steps
        ]  # fmt: skip
    return runs


EXPERIMENTS: dict[str, Callable[..., list[AdaptationRun]]] = {
    "q1_downstream_data": downstream_data,
    "q2_model_size": model_size,
    "q3_physics_shift": physics_shift,
    "q4_mixed_operators": mixed_operators,
    "seeds": seeds,
    "architectures": architectures,
    "unseen": unseen,
}
"""The experiments by the names of their notebooks."""

HEADLINE: dict[str, Callable[..., list[AdaptationRun]]] = {"headline": headline}
"""Beside them: it has a notebook, and no figure of its own on the studies page."""

MEASURED: dict[str, Callable[[str], Sequence[MeasuredRun]]] = {
    "physics_loss": physics_loss,
    "convergence": convergence_runs,
    "low_precision": low_precision_runs,
    "training_range": training_range,
    "unsupervised": unsupervised,
    "uncertainty": uncertainty,
    "weight_spectra": weight_spectra,
}
"""Those whose runs measure something else than an adaptation; each ships in a table of its own, such as
``laptop-physics_loss``."""


def find_experiment(name: str) -> Callable[..., Sequence[Recorded]]:
    """Experiment by name.

    Raises:
        ValueError: if there is none.
    """
    labelled = EXPERIMENTS | HEADLINE
    found = labelled.get(name) or MEASURED.get(name)
    if found is None:
        known = ", ".join([*labelled, *MEASURED])
        raise ValueError(f"experiment: expected one of {known}, got {name!r}")
    return found


def results(
    experiments: str | Sequence[str],
    budget: str = "laptop",
    *,
    rerun: bool = False,
    folder: str | Path = "runs/study",
    processes: int = 1,
    scheduler: str | None = None,
    device: str = "cpu",
    callback: Callable[[GridProgress], None] | None = None,
) -> list[dict]:
    """Records of an experiment, or of several: those that ship with the package, and the rest computed.

    Args:
        experiments: keys of `EXPERIMENTS`, `HEADLINE` or `MEASURED`.
        budget: a key of `BUDGETS`.
        rerun: compute all, even those that ship.
        folder, processes, scheduler, device, callback: as in `run_study`; what the folder holds is not computed again.

    Raises:
        ValueError: on an unknown experiment or budget.
    """
    names = [experiments] if isinstance(experiments, str) else experiments
    runs = {identity(run): run for name in names for run in find_experiment(name)(budget)}
    shipped = {} if rerun else shipped_tables()
    tables = [shipped.get(table) for table in (budget, *(f"{budget}-{name}" for name in names))]
    known = {record["identity"]: record for table in tables if table for record in read_table(table)}
    missing = [run for name, run in runs.items() if name not in known]
    if missing:
        how: dict[str, Any] = {"processes": processes, "scheduler": scheduler, "device": device, "callback": callback}
        known |= {record["identity"]: record for record in run_study(missing, folder, **how)}
    return [known[name] for name in runs]


def _budget(budget: str | Budget, experiment: str) -> Budget:
    if isinstance(budget, Budget):
        return budget.of(experiment)
    if budget not in BUDGETS:
        raise ValueError(f"budget: expected one of {', '.join(BUDGETS)}, got {budget!r}")
    return BUDGETS[budget].of(experiment)


def _published(budget: Budget) -> Budget:
    """For the paper's recipe: without the symmetries of the square."""
    return replace(budget, symmetries=False)


def _parent(budget: Budget, tasks: str, recipe: str) -> str | PretrainingRun:
    return budget.parents.get((tasks, recipe)) or _pretraining(budget, tasks, recipe, "1M")


def _size(budget: Budget) -> str:
    """Of networks where the size is not the question."""
    return "1M" if "1M" in budget.sizes else budget.sizes[0]


def _pretraining(budget: Budget, tasks: str, recipe: str, size: str) -> PretrainingRun:
    return PretrainingRun(
        tasks,
        recipe,
        size,
        steps=budget.pretraining_steps,
        batch_size=budget.pretraining_batch,
        resolution=budget.resolution,
        fixed_examples=budget.pretraining_examples,
    )


def _curve(budget, parent, task, examples, starts=STARTS, seed=0) -> list[AdaptationRun]:
    """Both starts over the examples; zero examples are the zero-shot and the untrained error."""
    return [
        AdaptationRun(
            parent,
            task,
            start,
            count,
            seed,
            steps=budget.steps_for(count),
            batch_size=budget.batch_size,
            learning_rates=budget.learning_rates,
            resolution=budget.resolution,
            validation=budget.validation,
            test=budget.test,
            test_resolution=budget.test_resolution,
            symmetries=budget.symmetries,
        )
        for start in starts
        for count in (0, *examples)
    ]
