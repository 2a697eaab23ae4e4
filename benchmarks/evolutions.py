"""Train the operators for evolutions that ship, of one field and of two, and their fine-tunings.

python benchmarks/evolutions.py scalar|gray-scott FOLDER            # 40 and 20 minutes on one core
python benchmarks/evolutions.py scalar-tunings|gray-scott-tunings FOLDER     # ten minutes each, of what ships

The first trains at 32 x 32 for half of its time, where a step is four times cheaper, and then at 64 x 64, with
roll-outs of 2 to 4 steps. Trainings go on from their checkpoints; those that are limited by time depend on the machine.
"""

import sys
from pathlib import Path

import torch

from sciml_fm_core import Operator, Task, TrainConfig, fine_tune, load_operator, pretrain, train_from_scratch
from sciml_fm_core.data.rollouts import Unrolled
from sciml_fm_core.data.trajectories import split_trajectories
from sciml_fm_core.evaluation.errors import evaluate_shifts
from sciml_fm_core.experiments.evolutions import errors_of, silent
from sciml_fm_core.training.config import Progress

FIELD = "BILINEAR(0.7,1.6)", "SCALAR(0.5,1.6)", "BURGERS(0.001,0.005)", "AC(0.5,1.5)", "KS(16,28)"
FIELDS = ("GS(0.035,0.05)",)
UNSEEN = {"evolutions": Task.parse("NS(0.0003,0.003)"), "gray-scott": Task.parse("GS(0.02,0.035)")}
"""What each is tuned to: an equation never seen, and patterns never seen."""
STEPS = {"evolutions": 100, "gray-scott": 150}
"""The steps of the fine-tunings."""


def tasks(labels: tuple[str, ...]) -> list[Task]:
    """Tasks by their labels."""
    return [Task.parse(label) for label in labels]


def show(progress: Progress) -> None:
    """Print how far a training is."""
    if progress.step % 100 == 0:
        print(progress.step, f"{progress.loss:.4f}", progress.validation_error, flush=True)


def finished(operator: Operator, path: Path, name: str) -> None:
    """Measure an operator, and the cheap step that it corrects, and write its bundle."""
    unseen = UNSEEN[path.stem]
    test = split_trajectories(unseen, "test", 32, 10)
    operator.card["command"] = f"python benchmarks/evolutions.py {name}"
    operator.card["errors"] = evaluate_shifts(operator, count=128, resolution=64)
    operator.card["errors_measured_on"] = "128 initial states at 64 x 64 per task, one step, seed 0"
    operator.card["errors_of_roll_outs"] = errors_of(operator, unseen, test)
    operator.card["errors_of_the_cheap_step"] = errors_of(silent(unseen), unseen, test)
    print(operator.save(path, half=name == "scalar", packed=name == "gray-scott"))


def scalar(folder: Path) -> None:
    """One operator for evolutions of one field."""
    operator, _ = pretrain(
        tasks(FIELD), recipe="step", validation_count=48,
        config=TrainConfig(steps=100_000, time_limit=2400, learning_rate=3e-3, loss="logarithmic", validate_every=200),
        width=20, modes=12, resolution={0: 32, 0.5: 64}, batch_size=20,
        unrolled=Unrolled({0: 1, 0.3: 2, 0.7: 4}), callback=show, checkpoint=folder / "scalar.checkpoint",
    )  # fmt: skip
    finished(operator, folder / "evolutions.safetensors", "scalar")


def gray_scott(folder: Path) -> None:
    """One operator for the two fields of Gray and Scott."""
    operator, _ = pretrain(
        tasks(FIELDS), recipe="step", validation_count=32,
        config=TrainConfig(steps=100_000, time_limit=1200, learning_rate=3e-3, loss="logarithmic", validate_every=100),
        width=14, modes=12, resolution=64, batch_size=12,
        unrolled=Unrolled({0: 1, 0.25: 2, 0.5: 4}), callback=show, checkpoint=folder / "gray-scott.checkpoint",
    )  # fmt: skip
    finished(operator, folder / "gray-scott.safetensors", "gray-scott")


def tunings(parent: str, folder: Path) -> None:
    """Fine-tunings of an operator to few trajectories, and their twin from random weights."""
    operator, unseen = load_operator(parent), UNSEEN[parent]
    drawn = {
        split: split_trajectories(unseen, split, count, 10)
        for split, count in (("train", 16), ("validation", 8), ("test", 32))
    }
    for count, start in ((2, "tuned"), (16, "tuned"), (16, "scratch")):
        fresh = start == "scratch"
        config = TrainConfig(steps=STEPS[parent], validate_every=25)
        result = (train_from_scratch if fresh else fine_tune)(
            operator, drawn["train"].take(slice(count)), system=unseen.system, validation=drawn["validation"],
            unrolled=Unrolled({0: 1, 0.5: 4}), batch_size=12, learning_rates=(4e-3,) if fresh else (1e-3,),
            config=config, callback=show,
        )  # fmt: skip
        found = errors_of(result.operator, unseen, drawn["test"])
        print(count, start, found, flush=True)
        card = result.operator.card
        card |= {"adapted_from": parent, "downstream_task": unseen.label, "steps": config.steps}
        card |= {"errors": {unseen.label: found["after_1"]}, "errors_of_roll_outs": found}
        card["command"] = f"python benchmarks/evolutions.py {'scalar' if parent == 'evolutions' else parent}-tunings"
        name = f"{parent}-{count}{'-scratch' if fresh else ''}.safetensors"
        result.operator.save(folder / name, packed=True, parent=None if fresh else parent)


if __name__ == "__main__":
    torch.set_num_threads(1)
    programs = {"scalar": scalar, "gray-scott": gray_scott}
    programs |= {
        "scalar-tunings": lambda folder: tunings("evolutions", folder),
        "gray-scott-tunings": lambda folder: tunings("gray-scott", folder),
    }
    programs[sys.argv[1]](Path(sys.argv[2]))
