"""Train the operator for the evolutions of one field that ships, and its fine-tunings to Navier-Stokes.

python benchmarks/evolutions.py scalar  FOLDER      # about an hour on one core
python benchmarks/evolutions.py tunings FOLDER      # ten minutes, of the operator that ships

The first begins at 32 x 32, where a step is four times cheaper, and goes on at 64 x 64 with roll-outs of 2 to 4 steps.
Trainings go on from their checkpoints; those that are limited by time depend on the machine.
"""

import sys
from pathlib import Path

import torch

from sciml_fm_core import Operator, Task, TrainConfig, fine_tune, load_operator, pretrain, train_from_scratch
from sciml_fm_core.data.rollouts import Unrolled
from sciml_fm_core.data.trajectories import split_trajectories
from sciml_fm_core.evaluation.errors import evaluate_shifts
from sciml_fm_core.experiments.evolutions import errors_of
from sciml_fm_core.training.config import Progress

SHAPE = {"width": 20, "modes": 12}
EASY = "BILINEAR(0.7,1.6)", "SCALAR(0.5,1.5)", "BURGERS(0.0003,0.003)", "AC(0.5,1.5)", "KS(16,28)"
FINER = "BILINEAR(0.7,1.6)", "SCALAR(0.5,1.6)", "BURGERS(0.001,0.005)", "AC(0.5,1.5)", "KS(16,28)"
UNSEEN = Task.parse("NS(0.0003,0.003)")


def tasks(labels: tuple[str, ...]) -> list[Task]:
    """Tasks by their labels."""
    return [Task.parse(label) for label in labels]


def show(progress: Progress) -> None:
    """Print how far a training is."""
    if progress.step % 100 == 0:
        print(progress.step, f"{progress.loss:.4f}", progress.validation_error, flush=True)


def until(step: int):
    """A callback that ends a training after some steps."""
    return lambda progress: show(progress) or progress.step >= step


def finished(operator: Operator, path: Path, name: str) -> None:
    """Measure an operator, and write its bundle."""
    operator.card["command"] = f"python benchmarks/evolutions.py {name}"
    operator.card["errors"] = evaluate_shifts(operator, count=128, resolution=64)
    operator.card["errors_measured_on"] = "128 initial states at 64 x 64 per task, one step, seed 0"
    print(operator.save(path, half=True))


def scalar(folder: Path) -> None:
    """One operator for evolutions of one field."""
    options = {"recipe": "step", "validation_count": 64, **SHAPE}
    first, _ = pretrain(
        tasks(EASY), TrainConfig(steps=12_000, learning_rate=4e-3, validate_every=20_000), resolution=32, batch_size=30,
        callback=until(2750), checkpoint=folder / "first.checkpoint", **options,
    )  # fmt: skip
    operator, _ = pretrain(
        tasks(FINER), TrainConfig(steps=100_000, time_limit=2400, learning_rate=3e-3, validate_every=400),
        resolution=64, batch_size=25, unrolled=Unrolled({0: 2, 0.4: 4}), start=first, callback=show,
        checkpoint=folder / "finer.checkpoint", **options,
    )  # fmt: skip
    finished(operator, folder / "evolutions.safetensors", "scalar")


def tunings(folder: Path) -> None:
    """Fine-tunings to few trajectories of Navier-Stokes, and their twin from random weights."""
    operator = load_operator("evolutions")
    drawn = {
        split: split_trajectories(UNSEEN, split, count, 10)
        for split, count in (("train", 16), ("validation", 8), ("test", 32))
    }
    for count, start in ((2, "tuned"), (16, "tuned"), (16, "scratch")):
        fresh = start == "scratch"
        config = TrainConfig(steps=300, validate_every=25)
        result = (train_from_scratch if fresh else fine_tune)(
            operator, drawn["train"].take(slice(count)), system=UNSEEN.system, validation=drawn["validation"],
            unrolled=Unrolled({0: 1, 0.5: 4}), batch_size=12, learning_rates=(4e-3,) if fresh else (1e-3,),
            config=config, callback=show,
        )  # fmt: skip
        found = errors_of(result.operator, UNSEEN, drawn["test"])
        print(count, start, found, flush=True)
        card = result.operator.card
        card |= {"adapted_from": "evolutions", "downstream_task": UNSEEN.label, "steps": config.steps}
        card |= {"errors": {UNSEEN.label: found["after_1"]}, "errors_of_roll_outs": found}
        card["command"] = "python benchmarks/evolutions.py tunings runs/adapted"
        name = f"evolutions-{count}{'-scratch' if fresh else ''}.safetensors"
        result.operator.save(folder / name, packed=True, parent=None if fresh else "evolutions")


if __name__ == "__main__":
    torch.set_num_threads(1)
    programs = {"scalar": scalar, "tunings": tunings}
    programs[sys.argv[1]](Path(sys.argv[2]))
