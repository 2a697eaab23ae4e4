"""Studies: declared grids of runs, each identified by its configuration, run once, recorded, resumed.

A run is an `AdaptationRun`: a pre-trained operator (one that ships, a bundle, or a `PretrainingRun` of the study
itself) meets a downstream task with so many examples, from one of two starts, and is measured once on the test
examples. Its identity is the hash of its whole configuration, of what its parent computes with (`Operator.digest`), and
of a number that is raised when the same run gives other results; its record is a JSON file of that name, written when
the run is complete. So a study that is called again does only what is missing, several processes may work on one
folder, and the same run asked for by two figures is done once.

Weights and learning rate are chosen on the validation examples alone; the test examples are read once, at the end.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, cast

import torch

from sciml_fm_core._version import NUMBERS
from sciml_fm_core.data.splits import draw_split, stream
from sciml_fm_core.evaluation.metrics import measured_errors, statistics_of
from sciml_fm_core.files import find_file, user_path
from sciml_fm_core.models.base import find_model
from sciml_fm_core.models.operator import Operator, load_operator, shipped_adaptations, shipped_operators
from sciml_fm_core.physics.tasks import Task, parse_mixture
from sciml_fm_core.schema import TakesNumpy, check_choice
from sciml_fm_core.training.cards import hardware, versions
from sciml_fm_core.training.checkpoints import CheckpointError
from sciml_fm_core.training.config import TrainConfig
from sciml_fm_core.training.recipes import LEARNING_RATES, find_recipe
from sciml_fm_core.training.transfer import fine_tune, pretrain, train_from_scratch

from .custom import CustomRun, Schedule, record_of
from .engine import GridProgress, Job, open_executor, run_jobs
from .records import read_record, write_record

STARTS = ("fine-tuned", "from scratch")
COARSE_FIRST: Schedule = ((0.0, 32), (0.85, 64))
"""Most of a training on coarse grids, which cost a quarter, and its end on the finer ones."""


@dataclass(frozen=True)
class PretrainingRun(TakesNumpy):
    """An operator that a study trains for itself.

    Attributes:
        tasks: a task or a mixture, such as ``SYS-1(1,5) + SYS-2(0.2,1)``.
        recipe, size, seed, steps, batch_size, architecture: as in `pretrain`.
        resolution: schedule of (progress, points).
        inputs_for: a task or a mixture that it is not trained on, whose coefficients it has inputs for; empty for none.
        fixed_examples: of each task, read again and again at the last resolution; 0 for fresh ones in every step.
    """

    tasks: str
    recipe: str = "dimensionless"
    size: str = "1M"
    seed: int = 0
    steps: int = 2000
    batch_size: int = 32
    resolution: Schedule = COARSE_FIRST
    architecture: str = "fno"
    inputs_for: str = ""
    fixed_examples: int = 0

    def __post_init__(self):
        if self.fixed_examples < 0:
            raise ValueError(f"run: expected fixed examples of at least 0, got {self.fixed_examples}")
        parse_mixture(self.tasks)
        _ = self.further
        find_model(self.architecture)
        find_recipe(self.recipe)

    @property
    def further(self) -> list[Task]:
        """The tasks of `inputs_for`."""
        return parse_mixture(self.inputs_for) if self.inputs_for else []


@dataclass(frozen=True)
class AdaptationRun(TakesNumpy):
    """One point of a figure.

    Attributes:
        parent: name of a shipped operator, path of a bundle, or a `PretrainingRun`.
        task: the downstream task.
        start: ``fine-tuned`` or ``from scratch``; with no examples the first is zero-shot, the second untrained.
        examples: downstream examples.
        seed: of the downstream examples, their shuffling and the random weights.
        steps, batch_size: of the adaptation; a batch holds all examples where there are fewer.
        learning_rates: grid, one of which is chosen on validation.
        resolution: schedule of (progress, points) of the training.
        validation, test: numbers of examples, on ``test_resolution`` points; test examples have seed 0.
        symmetries: whether the training turns its examples, as in `fine_tune`.
    """

    parent: str | PretrainingRun
    task: str
    start: str
    examples: int
    seed: int = 0
    steps: int = 300
    batch_size: int = 32
    learning_rates: tuple[float, ...] = LEARNING_RATES
    halve_at: tuple[float, ...] = field(default=(), init=False)  # unused: recorded identities hash its name
    resolution: Schedule = ((0.0, 32), (0.7, 64))
    validation: int = 64
    test: int = 256
    test_resolution: int = 64
    symmetries: bool = False

    def __post_init__(self):
        Task.parse(self.task)
        check_choice("start", self.start, STARTS)
        if self.examples < 0 or min(self.steps, self.batch_size, self.validation, self.test) < 1:
            raise ValueError(
                "run: expected examples of at least 0; steps, batch size, validation and test of at least 1"
            )


Run = PretrainingRun | AdaptationRun | CustomRun
Recorded = AdaptationRun | CustomRun
"""A run that a study asks for; operators are made for it as it needs them."""
_DEFAULTS_ADDED_LATER = {
    "architecture": "fno",
    "symmetries": False,
    "inputs_for": "",
    "fixed_examples": 0,
    "new_output": False,
}
"""Fields that count only where they differ from this: runs that were recorded before them keep their identity."""


def identity(run: Run) -> str:
    """Hash of the run's configuration, of what its parent computes with and of `NUMBERS`, 16 hexadecimal digits."""
    text = json.dumps({"numbers": NUMBERS, "kind": type(run).__name__, **_configuration(run)}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _configuration(run: Run) -> dict[str, Any]:
    added = _DEFAULTS_ADDED_LATER
    values = {key: value for key, value in asdict(run).items() if key not in added or value != added[key]}
    if parent := getattr(run, "parent", None):
        own = isinstance(parent, PretrainingRun)
        values["parent"] = {"identity": identity(parent) if own else _digest(parent)}
    if parents := values.get("parents"):
        values["parents"] = [{"identity": _digest(each)} for each in parents]
    return values


def _digest(parent: str) -> str:
    path = find_file(parent, shipped_operators() | shipped_adaptations(), "operator")
    if not path.is_file():
        raise ValueError(f"study: expected a shipped operator or the path of a bundle as parent, got {parent!r}")
    status = path.stat()
    return _digest_of(path, status.st_ino, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=256)
def _digest_of(path: Path, *_: int) -> str:
    """Digest of an operator, cached while its file is the same: a grid asks for its few parents many times."""
    return load_operator(path).digest


def run_study(
    runs: Iterable[Recorded],
    folder: str | Path,
    *,
    processes: int = 1,
    scheduler: str | None = None,
    device: str = "cpu",
    callback: Callable[[GridProgress], None] | None = None,
) -> list[dict]:
    """Run what is missing of a study, and return the records of all its runs, in their order.

    Args:
        runs: the grid; a run asked for twice is done once.
        folder: where records (``<identity>.json``), the study's own operators and unfinished checkpoints are kept.
        processes: runs at a time; each takes one CPU thread where there are several.
        scheduler: address of a Dask scheduler, whose workers run the study instead; see ``docs/cluster.md``.
        device: where to train, ``auto`` for a GPU where there is one; several processes share a GPU.
        callback: called at the start and after each run.

    Raises:
        ValueError: if the folder's parent does not exist, or a parent operator is missing.
        OSError: if the scheduler is not reached.
    """
    runs, folder = list(runs), user_path(folder).absolute()
    if not folder.parent.is_dir():
        raise ValueError(f"study: the folder {folder.parent} does not exist; make it first")
    folder.mkdir(exist_ok=True)
    jobs = {run: _job(run, folder, device) for run in runs}
    with open_executor(processes, scheduler) as executor:
        run_jobs(list(jobs.values()), executor, callback=callback)
    return [read_record(jobs[run].marker) for run in runs]


def _job(run: Run, folder: Path, device: str) -> Job:
    path, parent, needs = _path(folder, run), getattr(run, "parent", None), []
    if isinstance(parent, PretrainingRun):
        needs = [_job(parent, folder, device)]
    elif parent and parent not in shipped_operators() | shipped_adaptations():
        run = replace(cast(Any, run), parent=str(user_path(parent).absolute()))  # a worker may be in another folder
    return Job(path.stem, path, partial(_execute, run, folder, device), needs)


def _path(folder: Path, run: Run) -> Path:
    suffix = ".safetensors" if isinstance(run, PretrainingRun) else ".json"
    return folder / f"{identity(run)}{suffix}"


def _execute(run: Run, folder: Path, device: str) -> None:
    if device == "auto":  # known only where the run takes place
        device = "cuda" if torch.cuda.is_available() else "cpu"
    path = _path(folder, run)
    checkpoint = folder / f"{path.stem}.checkpoint"
    try:
        _execute_from(checkpoint, run, path, folder, device)
    except CheckpointError:  # left by other code: what it began is begun again
        checkpoint.unlink()
        _execute_from(checkpoint, run, path, folder, device)
    checkpoint.unlink(missing_ok=True)


def _execute_from(checkpoint: Path, run: Run, path: Path, folder: Path, device: str) -> None:
    if isinstance(run, PretrainingRun):
        config = TrainConfig(steps=run.steps, validate_every=max(20, run.steps // 20))
        tasks, last = parse_mixture(run.tasks), _last_resolution(run)
        fixed = [
            [draw_split(task, split, count, seed=run.seed, resolution=last) for task in tasks if run.fixed_examples]
            for split, count in (("train", run.fixed_examples), ("validation", 256))
        ]
        operator, _ = pretrain(
            tasks, config, recipe=run.recipe, architecture=run.architecture, size=run.size, seed=run.seed,
            batch_size=run.batch_size, resolution=last if run.fixed_examples else dict(run.resolution),
            device=device, checkpoint=checkpoint, inputs_for=run.further, data=fixed[0], validation=fixed[1],
        )  # fmt: skip
        operator.save(path)
    elif isinstance(run, CustomRun):
        write_record(record_of(run, path.stem, device), path)
    else:
        write_record(adapt_and_measure(run, folder, device, checkpoint), path)


def adapt_and_measure(run: AdaptationRun, folder: Path, device: str, checkpoint: Path | None = None) -> dict:
    """Compute the record of a run."""
    began, task = time.monotonic(), Task.parse(run.task)
    source = _path(folder, run.parent) if isinstance(run.parent, PretrainingRun) else run.parent
    operator = parent = load_operator(source, device)
    system = parent.normalization.resolve(task.system)
    n = run.test_resolution
    chosen: dict[str, Any] = {"learning_rate": None, "tried": {}, "curve": [], "validation_error": None, "seconds": 0.0}
    chosen |= {"chosen_step": 0, "interpolation": 0.0}
    if run.examples:
        data = draw_split(task, "train", run.examples, seed=run.seed, resolution=_last_resolution(run))
        validation = draw_split(task, "validation", run.validation, seed=0, resolution=n)
        every = max(1, run.steps // 15)  # reported as often, so that the curve is exact
        start = fine_tune if run.start == "fine-tuned" else train_from_scratch
        result = start(
            parent, data, system=system, validation=validation,
            config=TrainConfig(steps=run.steps, validate_every=every, report_every=every),
            learning_rates=run.learning_rates, batch_size=run.batch_size, resolution=dict(run.resolution),
            seed=run.seed, symmetries=run.symmetries, checkpoint=checkpoint,
        )  # fmt: skip
        operator, history = result.operator, result.history
        chosen = {
            "learning_rate": result.learning_rate,
            "tried": {f"{rate:g}": error for rate, error in result.tried.items()},
            "curve": [[row["step"], row["validation_error"]] for row in history.rows if row["validation_error"]],
            "validation_error": result.validation_error,
            "chosen_step": result.chosen_step,
            "interpolation": result.interpolation,
            "seconds": round(history.seconds, 2),
        }
    elif run.start == "from scratch":  # what this training begins with
        model = parent.model.create(parent.model.config, stream(run.seed, "scratch")).to(parent.device)
        operator = Operator(model, parent.normalization, parent.card)
    test = draw_split(task, "test", run.test, seed=0, resolution=n)
    error = measured_errors([(operator.predict(test.source, test.coefficients, system), test.solution)])
    card = parent.card
    return {
        "identity": identity(run),
        "parent": " + ".join(card.get("tasks", [])),
        "recipe": card.get("recipe"),
        "architecture": parent.model.architecture,
        "size": card.get("size"),
        "parameters": parent.model.parameter_count,
        "pretraining_examples": card.get("examples_seen"),
        "pretraining_seed": card.get("seed"),
        "pretraining_seconds": card.get("seconds"),
        **{key: value for key, value in asdict(run).items() if key != "parent"},
        "shipped_parent": run.parent if isinstance(run.parent, str) and run.parent in shipped_operators() else None,
        **statistics_of(error),
        **chosen,
        "total_seconds": round(time.monotonic() - began, 2),
        "hardware": hardware(operator.device),
        "versions": versions(),
    }


def _last_resolution(run: PretrainingRun | AdaptationRun) -> int:
    return max(run.resolution)[1]
