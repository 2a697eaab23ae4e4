"""What is measured: one function per section; each adds its measurements to a `Record`."""

from __future__ import annotations

import gc
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.generators import released_generator
from benchmarks.networks import (
    adam,
    available,
    build,
    forms,
    inference_step,
    parameters,
    random_batch,
    step_work,
    training_step,
)
from benchmarks.timing import Rounds, interleave, seconds_of, summarize
from sciml_fm_core import (
    PAPER_LEARNING_RATES,
    SIZES,
    Adaptation,
    DatasetFile,
    Examples,
    FixedBatches,
    FreshBatches,
    Operator,
    Task,
    TrainConfig,
    draw_split,
    evaluate,
    fine_tune,
    fit,
    generate,
    load_operator,
    new_operator,
    pretrain,
    relative_error,
)
from sciml_fm_core.data.splits import stream
from sciml_fm_core.training.losses import training_loss
from sciml_fm_core.training.recipes import RECIPES, recipe_of
from sciml_fm_core.training.transfer import ADAPT_LEARNING_RATE

BATCHES = {
    "cpu": {"64K": (16,), "1M": (16,), "16M": (8, 16), "256M": (1,)},
    "cuda": {"64K": (128,), "1M": (128,), "16M": (64,), "256M": (16,)},
}
"""Examples in a training batch, by device and size. At 16M the peers' memory traffic makes two batches tell more."""

BYTES_PER_PARAMETER = 48
"""Room that training a network takes at most: weights, gradients, two moments, and the copies that a peer makes."""

GENERATED = ("SYS-1(1,5)", "SYS-2(0.2,1)", "SYS-3(1,10)")

MANY_STEPS = 10**7
"""For a training that its time limit ends."""


COARSE_FIRST = {0.0: 32, 0.7: 64}
"""Points of a few-shot training: most of its steps on a coarser grid."""

FULL_ROUNDS = Rounds(5, 15, 20.0)
LARGE_ROUNDS = Rounds(2, 2, 0.0)
"""For networks that memory cannot hold side by side: each is made anew in every round."""


@dataclass(frozen=True)
class Budget:
    """How much to measure.

    Attributes:
        sizes: networks, of the paper's sizes.
        resolutions: points in each direction.
        rounds, large_rounds: of each comparison; the second where memory cannot hold the networks side by side.
        examples: made by our generator in one call; the released one makes `released_examples`.
        limit_megabytes, limit_matrix: what is copied, and the matrices multiplied, to find the limits of the device.
        few_shot_steps: of the fine-tuning whose learning-rate grid is timed.
        curve: seconds of the fine-tunings on the curve; the last one stands for convergence.
        test_examples: of every error.
        equal_seconds: of each training compared at equal time.
    """

    sizes: tuple[str, ...] = ("64K", "1M", "16M", "256M")
    resolutions: tuple[int, ...] = (64, 128)
    rounds: Rounds = FULL_ROUNDS
    large_rounds: Rounds = LARGE_ROUNDS
    examples: int = 128
    released_examples: int = 12
    limit_megabytes: int = 256
    limit_matrix: int = 2048
    few_shot_steps: int = 200
    curve: tuple[float, ...] = (1.0, 2.0, 5.0, 10.0, 20.0, 60.0)
    test_examples: int = 256
    equal_seconds: float = 90.0


BUDGETS = {
    "full": Budget(),
    "smoke": Budget(
        sizes=("64K",),
        resolutions=(32,),
        rounds=Rounds(2, 2, 0.0, 0.0),
        examples=8,
        released_examples=1,
        limit_megabytes=16,
        limit_matrix=256,
        few_shot_steps=1,
        curve=(0.1, 0.2),
        test_examples=8,
        equal_seconds=0.5,
    ),
}


@dataclass
class Record:
    """The measurements and how they were made.

    A measurement is a row of plain values: section, candidate, what was measured, ``value`` in ``unit``, the seconds
    of all ``repeats`` and their ``spread`` (distance of the quartiles over the median). ``on_add`` is called with each.
    """

    device: torch.device
    budget: Budget
    seed: int = 0
    released: Path | None = None
    compiled: bool = False
    on_add: Callable[[dict], None] = lambda row: None
    limits: dict[str, float] = field(default_factory=dict)
    rows: list[dict] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def add(self, section: str, candidate: str, value: float, unit: str, **details) -> dict:
        """Keep a measurement."""
        row = {"section": section, "candidate": candidate, **details, "value": value, "unit": unit}
        self.rows.append(row)
        self.on_add(row)
        return row

    def add_times(self, section: str, candidate: str, times: list[float], count: int, **details) -> dict:
        """Keep the seconds of a step of `count` examples as a rate."""
        median, spread = summarize(times)
        return self.add(section, candidate, count / median, "examples/s", spread=spread, repeats=times, **details)

    def skip(self, line: str) -> None:
        """Keep why something was not measured, once."""
        if line not in self.skipped:
            self.skipped.append(line)

    @property
    def networks(self) -> list[str]:
        """Networks that can be measured here."""
        names, missing = available(self.released)
        for line in missing:
            self.skip(line)
        return names


def device_limits(record: Record) -> None:
    """Copy bandwidth and float32 matrix rate of the device with the threads in use; the best of several."""
    device, budget = record.device, record.budget
    source = torch.randn(budget.limit_megabytes * 2**18, device=device)
    target = torch.empty_like(source)
    size = budget.limit_matrix * (4 if device.type == "cuda" else 1)
    left, right = (torch.randn(size, size, device=device) for _ in range(2))
    product = torch.empty_like(left)
    steps = {
        "copy bandwidth": (lambda: target.copy_(source), 2 * source.nbytes, "GB/s"),
        "matrix rate": (lambda: torch.mm(left, right, out=product), 2 * size**3, "GFLOP/s"),
    }
    for name, (step, work, unit) in steps.items():
        step()
        times = [seconds_of(step, device) for _ in range(7)]
        record.limits[name] = work / min(times)
        record.add("limits", name, work / min(times) / 1e9, unit, spread=summarize(times)[1], repeats=times)


def generation(record: Record) -> None:
    """Generation with solution: ours in batches and one at a time, against the released scripts."""
    for label in GENERATED:
        for n in record.budget.resolutions:
            _generation(record, Task.parse(label), n)


def _generation(record: Record, task: Task, n: int) -> None:
    budget, device = record.budget, record.device
    generator = stream(record.seed, "bench", task.label, n, device=device)
    counts = {"ours": budget.examples, "ours, one at a time": 1, "released": budget.released_examples}
    makers = {
        "ours": lambda: lambda: task.sample(counts["ours"], n, generator),
        "ours, one at a time": lambda: lambda: task.sample(1, n, generator),
    }
    if record.released is None:
        record.skip("released generators: no checkout of the paper's code given; pass --released PATH")
    else:
        try:
            step = released_generator(record.released, task, n, counts["released"], record.seed)
            makers["released"] = lambda: step
        except ImportError as error:
            record.skip(f"released generators: {error}")
    for name, times in interleave(makers, budget.rounds, device).items():
        count = counts[name]
        record.add_times("generation", name, times, count, task=task.label, resolution=n, examples=count)


def training(record: Record) -> None:
    """Training steps, with their shares of the limits of the device."""
    for size in record.budget.sizes:
        if not _fits(record, size):
            continue
        for n in record.budget.resolutions:
            for batch in BATCHES[record.device.type][size]:
                if n >= 2 * SIZES[size]["modes"]:
                    _training(record, size, n, batch)


def _training(record: Record, size: str, n: int, batch: int) -> None:
    counts: dict[str, int] = {}

    def maker(name: str) -> Callable[[], Callable[[], None]]:
        def make():
            model = build(name, size, record.device, released=record.released, seed=record.seed)
            counts[name] = parameters(model)
            return training_step(model, *random_batch(name, batch, n, record.device, record.seed))

        return make

    makers = {name: maker(name) for name in [*record.networks, *forms(record.device, with_compiled=record.compiled)]}
    keep = _room(record, size) >= len(makers)
    rounds = record.budget.rounds if keep else record.budget.large_rounds
    for name, times in interleave(makers, rounds, record.device, keep=keep).items():
        flops, traffic = step_work(name, size, n, batch)
        median, _ = summarize(times)
        work = {"gigaflop": flops / 1e9, "gigabytes": traffic / 1e9}
        work["share_of_matrix_rate"] = flops / median / record.limits["matrix rate"]
        work["share_of_bandwidth"] = traffic / median / record.limits["copy bandwidth"]
        case = {"size": size, "resolution": n, "batch": batch, "parameters": counts[name]}
        record.add_times("training", name, times, batch, **case, **work)
    _free(record.device)


def inference(record: Record) -> None:
    """One forward pass, of one example and of a batch."""
    device = record.device
    for size in record.budget.sizes:
        if not _fits(record, size):
            continue
        rounds = replace(record.budget.rounds, seconds=record.budget.rounds.seconds / 4)
        for n in record.budget.resolutions:
            for batch in (1, 8 * BATCHES[device.type][size][-1] if device.type == "cuda" else 16):
                if n < 2 * SIZES[size]["modes"]:
                    continue

                def maker(name: str, size=size, n=n, batch=batch):
                    def make():
                        model = build(name, size, device, released=record.released, seed=record.seed)
                        return inference_step(model, random_batch(name, batch, n, device, record.seed)[0])

                    return make

                makers = {name: maker(name) for name in record.networks}
                for name, times in interleave(makers, rounds, device).items():
                    record.add_times("inference", name, times, batch, size=size, resolution=n, batch=batch)
                _free(device)


def memory(record: Record) -> None:
    """Peak memory of training steps: of a fresh process on a CPU, of the allocator on CUDA."""
    n = record.budget.resolutions[-1]
    for size in record.budget.sizes:
        if n < 2 * SIZES[size]["modes"] or not _fits(record, size):
            continue
        batch = BATCHES[record.device.type][size][0]
        for name in record.networks:
            measure = _allocated if record.device.type == "cuda" else _resident
            try:
                peak, details = measure(record, name, size, n, batch)
            except (subprocess.CalledProcessError, torch.cuda.OutOfMemoryError):
                record.skip(f"memory of {name}, {size} at {n} x {n}: the process ended; probably too little memory")
                continue
            record.add("memory", name, peak / 1e6, "MB", size=size, resolution=n, batch=batch, **details)


def _resident(record: Record, name: str, size: str, n: int, batch: int) -> tuple[float, dict]:
    arguments = [name, size, str(n), str(batch), str(record.released or "")]
    script = str(Path(__file__).with_name("memory.py"))
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=True)
    result = json.loads(done.stdout.splitlines()[-1])
    details = {"parameters": result["parameters"], "resident_before_megabytes": result["before"] / 1e6}
    return result["peak"] - result["before"], details


def _allocated(record: Record, name: str, size: str, n: int, batch: int) -> tuple[float, dict]:
    _free(record.device)
    before = torch.cuda.memory_allocated(record.device)
    torch.cuda.reset_peak_memory_stats(record.device)
    model = build(name, size, record.device, released=record.released, seed=record.seed)
    step = training_step(model, *random_batch(name, batch, n, record.device, record.seed))
    for _ in range(2):
        step()
    details = {"parameters": parameters(model)}
    return torch.cuda.max_memory_allocated(record.device) - before, details


def few_shot(record: Record) -> None:
    """Fine-tuning on 64 examples: five learning rates against one, and the error that a number of seconds buys."""
    budget, device = record.budget, record.device
    task = Task.parse("SYS-1(5,10)")
    operator = load_operator("sys-1", device)
    n = max(64, 2 * operator.model.config.modes)
    data, validation = (
        draw_split(task, split, 64, seed=record.seed, resolution=n).to(device) for split in ("train", "validation")
    )
    case = {"task": task.label, "examples": 64, "resolution": n}

    def tune(config: TrainConfig, rates=None):
        return fine_tune(
            operator,
            data,
            validation=validation,
            config=config,
            learning_rates=rates,
            batch_size=16,
            resolution=COARSE_FIRST,
            seed=record.seed,
        )

    def error(adapted: Operator) -> float:
        return evaluate(adapted, task, count=budget.test_examples, resolution=n, seed=record.seed)["error"]

    config = TrainConfig(
        steps=budget.few_shot_steps,
        learning_rate=ADAPT_LEARNING_RATE,
        loss=recipe_of(operator).loss,
        validate_every=10,
    )

    def one_after_the_other():
        adapted = [tune(replace(config, learning_rate=rate)) for rate in PAPER_LEARNING_RATES]
        return min(adapted, key=lambda one: one.history.best_error)

    ways = {
        "one learning rate": lambda: tune(config),
        "grid of five": lambda: tune(config, PAPER_LEARNING_RATES),
        "five, one after the other": one_after_the_other,
    }
    tune(replace(config, steps=1), PAPER_LEARNING_RATES)  # warm-up
    one = None
    for name, way in ways.items():
        results: list[Adaptation] = []
        seconds = seconds_of(lambda way=way, results=results: results.append(way()), device)
        one = one or seconds
        found = {"learning_rate": results[0].learning_rate, "error": error(results[0].operator)}
        record.add(
            "few-shot",
            name,
            seconds,
            "s",
            repeats=[seconds],
            times_one_rate=seconds / one,
            steps=config.steps,
            **case,
            **found,
        )

    record.add("few-shot curve", "ours", error(operator), "error", seconds=0.0, steps=0, **case)
    for limit in budget.curve:
        timed = replace(config, steps=MANY_STEPS, time_limit=limit, report_every=1000)
        result = tune(timed)
        seen = {"seconds": result.history.seconds, "examples_seen": result.history.examples_seen}
        record.add("few-shot curve", "ours", error(result.operator), "error", time_limit=limit, **seen, **case)


def data(record: Record) -> None:
    """What examples cost a training step: fresh ones, from memory, from a file; and how fast files are written."""
    budget, device = record.budget, record.device
    n, batch, steps = min(budget.resolutions), 32, 10
    size = "1M" if "1M" in budget.sizes else budget.sizes[0]
    config = TrainConfig(steps=steps, report_every=steps)
    for label in GENERATED:
        task, case = Task.parse(label), {"task": label, "resolution": n, "batch": batch}
        operator = new_operator([task], size=size, seed=record.seed, device=device)
        fresh = FreshBatches([task], batch, resolution=n, seed=record.seed, device=device)
        steps_of = {"fresh": lambda data=fresh, operator=operator: fit(operator, data, config)}
        steps_of["examples alone"] = lambda data=fresh: [data.batch(step, 0.0) for step in range(steps)]
        with tempfile.TemporaryDirectory() as folder:
            path = generate(task, Path(folder) / "train.h5", 8 * batch, resolution=n, seed=record.seed)
            with DatasetFile(path) as file:
                readers = {"from a file": file, "from memory": file.take(slice(None))}
                for name, reader in readers.items():
                    batches = FixedBatches([(task.system, reader)], batch, seed=record.seed, device=device)
                    steps_of[name] = lambda data=batches, operator=operator: fit(operator, data, config)
                makers = {name: lambda step=step: step for name, step in steps_of.items()}
                times = interleave(makers, budget.rounds, device)
        alone = summarize(times.pop("examples alone"))[0]
        for name, seconds in times.items():
            share = {"share_of_step": alone / summarize(seconds)[0]} if name == "fresh" else {}
            record.add_times("data", f"training, {name}", seconds, steps * batch, **case, **share)
    _writing(record)


def _writing(record: Record) -> None:
    """Examples written to a file, with their making, against as many bytes as they are; both to the disk."""
    task, n = Task.parse(GENERATED[0]), max(record.budget.resolutions)
    count = 8 * record.budget.examples
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        block = bytes(2 * 4 * n * n * count)

        def finish() -> None:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
            path.unlink()

        def plain() -> None:
            path.write_bytes(block)
            finish()

        def generated() -> None:
            generate(task, path, count, resolution=n, seed=record.seed)
            finish()

        makers = {"plain bytes": lambda: plain, "generate": lambda: generated}
        for name, times in interleave(makers, record.budget.rounds, record.device).items():
            median, spread = summarize(times)
            case = {"task": task.label, "resolution": n, "examples": count}
            rate = len(block) / median / 1e6
            record.add("data", f"writing, {name}", rate, "MB/s", spread=spread, repeats=times, **case)


def equal_time(record: Record) -> None:
    """Errors of pre-trainings that take the same time: our recipe, the paper's, and the paper's on its own network."""
    budget, task = record.budget, Task.parse("SYS-1(1,5)")
    size = "1M" if "1M" in budget.sizes else budget.sizes[0]
    test = draw_split(task, "test", budget.test_examples, seed=record.seed, resolution=64)

    def keep(name: str, predict: Callable[[Examples], Tensor], seconds: float, seen: int) -> None:
        error = relative_error(predict(test.to(record.device)).cpu(), test.solution).mean().item()
        case = {"task": task.label, "size": size, "time_limit": budget.equal_seconds}
        record.add("equal time", name, error, "error", seconds=seconds, examples_seen=seen, **case)

    cases: list[tuple[str, str, int | dict[float, int], dict]] = [
        ("ours", "dimensionless", 64, {}),
        ("ours, coarse grid first", "dimensionless", {0.0: 32, 0.85: 64}, {}),
        ("paper's recipe", "paper", 64, {}),
    ]
    if record.device.type == "cuda":  # what fewer bits and compilation do to the error
        cases += [
            ("ours, compiled", "dimensionless", 64, {"compile": True}),
            ("ours, tf32", "dimensionless", 64, {"precision": "tf32"}),
            ("ours, bfloat16", "dimensionless", 64, {"precision": "bfloat16"}),
        ]
    for name, recipe, resolution, settings in cases:
        config = TrainConfig(
            steps=MANY_STEPS,
            time_limit=budget.equal_seconds,
            validate_every=100,
            **settings,
        )
        operator, history = pretrain(
            [task],
            config,
            recipe=recipe,
            size=size,
            seed=record.seed,
            resolution=resolution,
            validation_count=64,
            device=record.device,
        )

        def predict(examples: Examples, operator=operator) -> Tensor:
            return operator.predict(examples.source, examples.coefficients)

        keep(name, predict, history.seconds, history.examples_seen)
    if record.released is None:
        record.skip("equal time, released network: no checkout of the paper's code given; pass --released PATH")
    else:
        keep("paper's recipe, released network", *_train_released(record, task, size))


def _train_released(record: Record, task: Task, size: str) -> tuple[Callable[[Examples], Tensor], float, int]:
    """The released network by the paper's recipe: how it predicts, the seconds of its training, the examples seen."""
    recipe, limit = RECIPES["paper"], record.budget.equal_seconds
    normalization = new_operator([task], recipe="paper", size=size, seed=record.seed).normalization
    network = build("released", size, record.device, released=record.released, seed=record.seed)
    batches = FreshBatches([task], recipe.batch_size, resolution=64, seed=record.seed, device=record.device)
    optimizer = adam(network)

    def predict(examples: Examples) -> Tensor:
        encoded = normalization.encode(examples.source, examples.coefficients, task.system)
        maps = encoded.scalars[:, :, None, None].expand(-1, -1, *encoded.field.shape[-2:])
        return encoded.decode(network(torch.cat([encoded.field, maps], dim=1)))

    started, step, progress = time.perf_counter(), 0, 0.0
    while progress < 1:
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
        ((_, examples),) = batches.batch(step, progress)
        optimizer.zero_grad(set_to_none=True)
        training_loss(predict(examples), [(task.system, examples)], recipe.loss).backward()
        optimizer.step()
        step += 1
        if record.device.type == "cuda":
            torch.cuda.synchronize(record.device)
        progress = (time.perf_counter() - started) / limit
    return torch.no_grad()(predict), progress * limit, step * recipe.batch_size


def _fits(record: Record, size: str) -> bool:
    """Whether a network of a size can be trained in the memory there is."""
    fits = _room(record, size) >= 1
    if not fits:
        record.skip(f"{size}: too little free memory to train it; needs about {_needed(size) / 1e9:.0f} GB")
    return fits


def _room(record: Record, size: str) -> float:
    """How many networks of a size can be trained in the memory there is."""
    free = _free_memory(record.device)
    return math.inf if free is None else free / _needed(size)


def _needed(size: str) -> int:
    width, modes = SIZES[size]["width"], SIZES[size]["modes"]
    return BYTES_PER_PARAMETER * 4 * 4 * modes**2 * width**2


def _free_memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    file = Path("/proc/meminfo")
    if not file.exists():
        return None
    line = next(line for line in file.read_text().splitlines() if line.startswith("MemAvailable"))
    return int(line.split()[1]) * 1024


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


SECTIONS = {
    "generation": generation,
    "training": training,
    "inference": inference,
    "memory": memory,
    "few-shot": few_shot,
    "data": data,
    "equal-time": equal_time,
}
