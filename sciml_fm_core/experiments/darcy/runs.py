"""Darcy flow: who learns most from the same labelled examples in the same time, and is any of them worth its solver."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from sciml_fm_core.evaluation.metrics import relative_error
from sciml_fm_core.study.analysis import table
from sciml_fm_core.study.custom import CustomRun
from sciml_fm_core.study.registry import experiment, for_budget

from .method import (
    DarcyNetwork,
    Flows,
    draw_own,
    fit_solver,
    read_darcy,
    solve,
    train,
    turned,
    whole,
)

PEERS = ("neuraloperator's FNO", "neuraloperator's TFNO")
SOLVER = "five-point solver"
PRE_TRAINED = ", pre-trained"
METHODS = {
    "FNO on the solver, pre-trained": ("margin", True),
    "FNO, reflection, pre-trained": ("reflection", False),
    "FNO, reflection": ("reflection", False),
    "FNO, margin": ("margin", False),
    "FNO on the solver": ("margin", True),
}
"""This project's networks: how they meet the boundary, and whether they correct the five-point solver's solution."""
CALIBRATION = 16
"""Labelled examples to which contrast and factor are fitted, for own examples and for networks on the solver: the
first of each run's."""


@dataclass(frozen=True)
class DarcyRun(CustomRun):
    """One method with several numbers of labelled examples of the set, 16 x 16, tested on 50 of it at 16 and at 32.

    All training is on one core, and its seconds are those of computing, so that other work on the machine takes none.

    Attributes:
        method: one of `METHODS`, of `PEERS`, or `SOLVER`.
        examples: numbers of labelled examples; the first ones of the set, in its order.
        seconds: of each training from scratch or fine-tuning.
        pretraining: seconds of the training on own examples that comes first, once; 0 of the others.
        own: examples of our own for it, each used in all eight symmetries of the square.
        seed: of random weights, own examples and batches.
        batch_size: of this project's networks; labelled and own examples by halves in fine-tuning.
        width, modes: of this project's networks.
        folder: of the set's files, see `make darcy`; where empty, own examples stand in for the set.
    """

    method: str
    examples: tuple[int, ...]
    seconds: float = 30.0
    pretraining: float = 0.0
    own: int = 4096
    seed: int = 0
    batch_size: int = 16
    width: int = 24
    modes: int = 12
    folder: str = "build/darcy"
    kind: ClassVar[str] = "darcy"

    def __post_init__(self):
        if self.method not in (SOLVER, *PEERS, *METHODS):
            raise ValueError(
                f"darcy: expected a method of {', '.join((SOLVER, *PEERS, *METHODS))}, got {self.method!r}"
            )

    def measure(self, device):
        """Mean relative errors ``error_16`` and ``error_32``, and the training ``steps``, in the order of examples.

        Of what is pre-trained also without fine-tuning, as ``zero_shot_16`` and ``zero_shot_32``. ``skipped`` says why
        there are none, where neuraloperator is not installed.
        """
        if self.method in PEERS and find_spec("neuralop") is None:
            return {"error_16": [], "error_32": [], "steps": [], "skipped": "neuraloperator is not installed"}
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return self._measure()
        finally:
            torch.set_num_threads(threads)

    def _measure(self) -> dict[str, Any]:
        sets = read_darcy(Path(self.folder)) if self.folder else _stand_in(max(self.examples))
        found: dict[str, Any] = {"error_16": [], "error_32": [], "steps": [], "skipped": ""}
        start: DarcyNetwork | None = None
        own: Flows | None = None
        if self.pretraining:
            fitted = fit_solver(Flows(*(part[:CALIBRATION] for part in sets["train_16"])))
            began = time.process_time()
            own = draw_own(self.own, fitted, torch.Generator().manual_seed(self.seed + 1))
            drawing = time.process_time() - began
            start, steps = train(self._network(fitted), self._batches(own, None), self.pretraining, 2e-3)
            for n in (16, 32):
                found[f"zero_shot_{n}"] = _error(start.predict, sets[f"test_{n}"])
            found |= {"drawing_seconds": round(drawing, 1), "pretraining_steps": steps}
            found |= {"contrast": round(fitted[0], 2), "factor": round(fitted[1], 3)}
        for count in self.examples:
            labelled = Flows(*(part[:count] for part in sets["train_16"]))
            predict, steps, parameters = self._learn(labelled, start, own)
            for n in (16, 32):
                found[f"error_{n}"].append(_error(predict, sets[f"test_{n}"]))
            found["steps"].append(steps)
            found["parameters"] = parameters
        return found

    def _learn(self, labelled: Flows, start: DarcyNetwork | None, own: Flows | None):
        """What predicts solutions after learning from labelled examples, its steps and number of parameters."""
        if self.method == SOLVER:
            contrast, factor = fit_solver(Flows(*(part[:256] for part in labelled)))
            return lambda high: factor * solve(high, contrast), 0, 2
        if self.method in PEERS:
            return train_peer(self.method, labelled, self.seconds, self.seed)
        if start is None:
            network, rate = self._network(fit_solver(Flows(*(part[:CALIBRATION] for part in labelled)))), 2e-3
        else:
            network, rate = self._network((1.0, 1.0)), 5e-4
            network.fitted = start.fitted
            network.load_state_dict(start.state_dict())
        network, steps = train(network, self._batches(own, whole(labelled)), self.seconds, rate)
        return network.predict, steps, sum(each.numel() for each in network.parameters())

    def _network(self, fitted: tuple[float, float]) -> DarcyNetwork:
        boundary, on_solver = METHODS[self.method]
        modes = self.modes if boundary == "reflection" else min(self.modes, 8)
        torch.manual_seed(self.seed)
        return DarcyNetwork(boundary, fitted if on_solver else None, self.width, modes)

    def _batches(self, own: Flows | None, labelled: Flows | None) -> Iterator[Flows]:
        """Own examples in all symmetries, every third batch at 32 x 32; and labelled ones, x and y exchanged or not."""
        generator, step = torch.Generator().manual_seed(self.seed), 0

        def some(flows: Flows, size: int, n: int, symmetries: int) -> Flows:
            chosen = torch.randint(len(flows.high), (size,), generator=generator)
            elements = torch.randint(symmetries, (size,), generator=generator)
            return turned(Flows(*(part[chosen] for part in flows)), elements, n)

        while True:
            step += 1
            if own is None and labelled is not None:
                yield some(labelled, self.batch_size, 16, 2)
            elif own is not None and step % 3 == 0:
                yield some(own, max(1, self.batch_size // 2), 32, 8)
            elif own is not None and labelled is None:
                yield some(own, self.batch_size, 16, 8)
            elif own is not None and labelled is not None:
                parts = some(labelled, self.batch_size // 2, 16, 2), some(own, self.batch_size // 2, 16, 8)
                yield Flows(*map(torch.cat, zip(*parts, strict=True)))


def train_peer(method: str, labelled: Flows, seconds: float, seed: int):
    """Train neuraloperator's FNO or TFNO by its published settings, whose schedule is stretched to the seconds.

    Its FNO: ``config/darcy_config.py`` of its repository (AdamW 5e-3, weight decay 1e-4, batch 8, H1 loss, the rate
    halved four times). Its TFNO: ``examples/training/checkpoint_FNO_darcy.py`` (Tucker, rank 0.42, AdamW 8e-3, weight
    decay 1e-4, batch 32, H1 loss, cosine). Inputs and outputs are normalised by their means and standard deviations.
    """
    from neuralop import H1Loss
    from neuralop.models import FNO
    from neuralop.training import AdamW

    torch.manual_seed(seed)
    tucker: dict[str, Any] = {"hidden_channels": 32, "factorization": "tucker", "rank": 0.42}
    options = tucker if method == PEERS[1] else {"hidden_channels": 24}
    model = FNO(n_modes=(16, 16), in_channels=1, out_channels=1, projection_channel_ratio=2, **options)
    rate, size = (8e-3, 32) if method == PEERS[1] else (5e-3, 8)
    optimizer, loss_of = AdamW(model.parameters(), lr=rate, weight_decay=1e-4), H1Loss(d=2)
    x, y = labelled.high.float()[:, None], labelled.solution[:, None]
    (x_mean, x_std), (y_mean, y_std) = ((field.mean(), field.std()) for field in (x, y))
    generator, steps, order = torch.Generator().manual_seed(seed), 0, torch.empty(0, dtype=torch.long)
    began = time.process_time()
    while (progress := (time.process_time() - began) / seconds) < 1:
        falling = (1 + math.cos(math.pi * progress)) / 2 if method == PEERS[1] else 0.5 ** int(5 * progress)
        for group in optimizer.param_groups:
            group["lr"] = rate * falling
        if not len(order):
            order = torch.randperm(len(x), generator=generator)
        chosen, order = order[:size], order[size:]
        optimizer.zero_grad()
        loss = loss_of(model((x[chosen] - x_mean) / x_std), (y[chosen] - y_mean) / y_std)
        loss.backward()
        optimizer.step()
        steps += 1

    def predict(high: Tensor) -> Tensor:
        with torch.no_grad():
            parts = [model((part.float()[:, None] - x_mean) / x_std) for part in high.split(32)]
        return torch.cat(parts)[:, 0] * y_std + y_mean

    return predict, steps, sum(each.numel() * (2 if each.is_complex() else 1) for each in model.parameters())


def _error(predict: Callable[[Tensor], Tensor], test: Flows) -> float:
    return float(f"{relative_error(predict(test.high), test.solution).mean().item():.6g}")


def _stand_in(count: int) -> dict[str, Flows]:
    """Own examples in place of the set, for trying out that everything runs."""
    flows = draw_own(count + 2, (18.75, 2.6), torch.Generator().manual_seed(99), points=32)
    coarse = turned(flows, torch.zeros(count + 2, dtype=torch.long), 16)
    fine = turned(flows, torch.zeros(count + 2, dtype=torch.long), 32)
    return {
        "train_16": Flows(*(part[:count] for part in coarse)),
        "test_16": Flows(*(part[count:] for part in coarse)),
        "test_32": Flows(*(part[count:] for part in fine)),
    }


SETTINGS: dict[str, dict[str, Any]] = {
    "smoke": {
        "examples": (4, 8), "seconds": 0.05, "pretraining": 0.1, "own": 8, "batch_size": 2, "width": 4, "folder": "",
    },
    "laptop": {"examples": (16, 64, 256, 1000), "seconds": 16.0, "pretraining": 120.0, "own": 2048},
    "gpu": {"examples": (16, 64, 256, 1000), "seconds": 600.0, "pretraining": 3600.0, "own": 32768},
    "paper": {"examples": (16, 64, 256, 1000), "seconds": 600.0, "pretraining": 3600.0, "own": 32768},
}  # fmt: skip
"""How much of the experiment to run, by budget. All of it is computed on a CPU."""


@experiment("darcy")
def darcy(budget: str = "laptop") -> list[DarcyRun]:
    """The solver, neuraloperator's networks and this project's, from scratch and pre-trained on own examples.

    The last run gives neuraloperator's TFNO all labels and as long as pre-training and fine-tuning take together.
    """
    chosen = dict(for_budget(SETTINGS, budget))
    pretraining = chosen.pop("pretraining")
    runs = [DarcyRun(method, **chosen) for method in (SOLVER, *PEERS)]
    runs += [DarcyRun(each, **chosen, pretraining=pretraining * each.endswith(PRE_TRAINED)) for each in METHODS]
    longer = {"examples": chosen["examples"][-1:], "seconds": chosen["seconds"] + pretraining}
    return [*runs, DarcyRun(PEERS[1], **chosen | longer)]


def points(records: Sequence[dict], n: int) -> list[dict]:
    """One record for each number of labelled examples, with the error at n x n points as ``error``."""
    return [
        {"method": record["method"], "examples": count, "error": error, "seconds": record["seconds"]}
        for record in records
        for count, error in zip(record["examples"], record[f"error_{n}"], strict=not record["skipped"])
    ]


def darcy_table(records: Sequence[dict], n: int) -> str:
    """Errors at n x n points by method and labelled examples."""
    counts = sorted({count for record in records for count in record["examples"]})
    rows = []
    for record in records:
        errors = dict(zip(record["examples"], record[f"error_{n}"], strict=not record["skipped"]))
        zero = record.get(f"zero_shot_{n}")
        seconds = f"{record['seconds']:.3g}" + (f" + {record['pretraining']:.3g}" if record["pretraining"] else "")
        cells = [f"{errors[count]:.2%}" if count in errors else record["skipped"] for count in counts]
        rows.append([record["method"], seconds, f"{zero:.2%}" if zero is not None else "", *cells])
    header = [f"method, tested at {n} x {n}", "seconds", "0 labels", *(f"{count:,} labels" for count in counts)]
    return table(header, rows)
