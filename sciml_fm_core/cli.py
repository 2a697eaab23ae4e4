"""Command line: ``sciml-fm COMMAND``; ``sciml-fm --help`` lists the commands.

The arguments are checked before any work begins. What goes wrong is one line on standard error, and the exit code: 2
where something else is to be asked for, 1 where the surroundings failed (a full disk, a folder that is gone).
"""

from __future__ import annotations

import json
import os
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from functools import partial, wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, cast
from urllib.parse import urlencode

import torch
import typer
from rich.progress import TextColumn, TimeRemainingColumn
from rich.table import Table

from ._version import __version__
from .companions import copy_notebooks, serve_dashboard, write_site
from .cpu import use_threads
from .data.describe import describe
from .data.fields import FieldsFile
from .data.generation import generate as write_dataset
from .data.given import File, Reader, Rows, check_apart, few_of, file_of, rows_of, split_file, task_of
from .data.hdf5 import DatasetFile, is_dataset
from .data.layout import Layout
from .data.own import find_layout, open_splits, trained_on
from .data.rollouts import Unrolled
from .data.splits import draw_split
from .data.trajectories import save_trajectories, split_trajectories
from .evaluation.errors import evaluate as evaluate_operator
from .evaluation.errors import evaluate_shifts
from .evaluation.rollouts import SHOWN, rollout_errors
from .evaluation.rollouts import rollout as rollout_of
from .files import check_folder, check_output, find_file, user_path
from .locks import command_line, lock_output
from .messages import one_line
from .models.base import MODELS, find_model
from .models.export import ANY, export_solver
from .models.fno import SIZES
from .models.normalization import StepNormalization
from .models.operator import Operator, load_operator, read_header, shipped_adaptations, shipped_operators
from .physics.evolution import Evolution
from .physics.sampling import check_resolution
from .physics.spectral import Resolution, grid_shape, grid_text, parse_resolution
from .physics.system import System, find_system
from .physics.tasks import Task
from .schema import without_infinity
from .study.batch_file import plan, read_marker
from .study.engine import GridProgress
from .study.notebooks import run_batch
from .study.records import write_table
from .study.registry import find_experiment, results
from .terminal import bar_on_errors, console, measuring_bar, progress_bar, run_program, stopping, training_bar
from .training.config import PRECISIONS, TrainConfig
from .training.distributed import started_by_torchrun
from .training.interrupts import Interrupts
from .training.losses import LOSSES
from .training.recipes import LEARNING_RATES, RECIPES, find_recipe
from .training.transfer import fine_tune, train_from_scratch
from .training.transfer import pretrain as pretrain_operator
from .training.unlabelled import UNLABELLED, unlabelled_config

app = typer.Typer(
    help="Pre-train neural operators on PDEs and measure how they transfer.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _command(**settings: Any) -> Callable:
    """Make a function a command, in whose paths ``~`` is the home folder."""

    def register(function: Callable) -> Callable:
        @wraps(function)
        def run(**given: Any) -> None:
            for name, value in given.items():
                if isinstance(value, Path):
                    given[name] = user_path(value)
            with stopping():
                function(**given)

        return app.command(**settings)(run)

    return register


LENGTH = 10
"""Steps of the trajectories that an operator is adapted to."""
LARGEST_NUMBER = 2**31 - 1
"""Largest number on the command line: more is a slip of the keyboard, and no tensor has as many rows."""


def _option(help: str, *names: str, least: float | None = None, above: float | None = None) -> Any:
    """An option; a number with a bound is checked when the command line is read, and is at most `LARGEST_NUMBER`."""
    bound = above if least is None else least

    def check(param: typer.CallbackParam, value: Any) -> Any:
        if value is not None and not ((value >= bound if above is None else value > bound) and value <= LARGEST_NUMBER):
            wanted = f"from {bound:g}" if above is None else f"above {bound:g}"
            option = str(param.name).replace("_", "-")
            raise ValueError(f"--{option}: expected a number {wanted} to {LARGEST_NUMBER:g}, got {value}")
        return value

    return typer.Option(*names, help=help, callback=None if bound is None else check)


def _device(name: str) -> str:
    """Check --device when the command line is read: it is to name a device that can compute."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("device: no CUDA GPU here; use --device cpu")
    try:
        torch.fft.rfft(torch.ones(4, dtype=torch.float64, device=name)).abs().sum().item()
    except Exception as error:  # each backend has its own
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ValueError(f"device: {name!r} cannot compute here ({reason}); use cpu, cuda or auto") from None
    return name


def _threads(wanted: str | None) -> str | None:
    """Set the CPU threads when the command line is read: they hold for all of the command."""
    if wanted is not None and wanted != "all" and not (wanted.isdecimal() and 1 <= int(wanted) <= LARGEST_NUMBER):
        raise ValueError(f"--threads: expected a number from 1 to {LARGEST_NUMBER:g}, or all, got {wanted}")
    use_threads(LARGEST_NUMBER if wanted == "all" else int(wanted) if wanted else None)
    return wanted


Device = Annotated[str, typer.Option(help="cpu or cuda; 'auto' takes a GPU where there is one.", callback=_device)]
Loss = Annotated[str | None, _option(f"One of {', '.join(LOSSES)}; the recipe's where not given.")]
Seed = Annotated[int, _option("Seed of weights and examples.", least=-LARGEST_NUMBER)]
Scheduler = Annotated[str | None, _option("Address of a Dask scheduler, such as tcp://head:8786; see docs/cluster.md.")]
Threads = Annotated[
    str | None, typer.Option(help="CPU threads, or 'all'; all cores but one where not given.", callback=_threads)
]
GivenSystem = Annotated[
    str | None, _option("What the examples of files are of that do not say it, such as SYS-1.", "--system")
]
Inputs = Annotated[str | None, _option("Arrays of a file of fields that are inputs, such as a,f.", "--inputs")]
Targets = Annotated[str | None, _option("Arrays of a file of fields that are to be predicted, such as u.", "--targets")]
Scalars = Annotated[str | None, _option("Arrays of one number, or a few, for each example, such as nu.", "--scalars")]
Channels = Annotated[
    str | None, _option("Axis of the channels after the examples: first or last; else it is guessed.", "--channels")
]
TestResolution = Annotated[
    int | None,
    _option("Points in each direction of test examples that are drawn; 128 where not given.", least=1),
]
Rollout = Annotated[
    str | None, _option("Of an evolution: steps followed in training, or a schedule such as '0:1,0.5:4'.")
]
Noise = Annotated[float | None, _option("Of an evolution: size of random waves added to first states.", least=0)]
PushForward = Annotated[bool, _option("Of an evolution: no gradient through the states between.", "--push-forward")]
Wait = Annotated[bool, _option("Where another process works on the same output, wait for it.", "--wait")]


def _refuse(where: str, given: Mapping[str, Any]) -> None:
    """Raise ValueError on an option that was given where it would change nothing."""
    if said := [name for name, value in given.items() if value is not None]:
        raise ValueError(f"--{said[0]} has no effect {where}; leave it out")


def _print_json(values: dict[str, Any]) -> None:
    """Print as JSON, which has no infinity: what is no number is null there."""
    print(json.dumps(without_infinity(values), allow_nan=False))


def _show_version(wanted: bool) -> None:
    if wanted:
        console.print(f"sciml-fm {__version__}, torch {torch.__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    verbose: Annotated[bool, _option("Show where an error comes from.", "--verbose")] = False,
) -> None:
    """Take the options before the command; `terminal.run_program` looks for --verbose itself."""


@contextmanager
def _locked(output: Path | None, checkpoint: Path | None = None, *, wait: bool = False) -> Iterator[bool]:
    """Lock the files of a command; yields False where a process that was waited for made them by the same command."""
    if output is not None:
        check_output(output)
    if checkpoint is not None:
        check_output(checkpoint, new=False)
        if output is not None and os.path.realpath(checkpoint) == os.path.realpath(output):
            raise ValueError(f"{output}: --output and --checkpoint are the same file; choose another name for one")
    with ExitStack() as stack:
        before = [
            stack.enter_context(lock_output(path, wait=wait)) for path in (output, checkpoint) if path is not None
        ]
        if output is not None and output.exists():
            made = any(holder is not None and holder.get("command") == command_line() for holder in before)
            if not made:
                check_output(output)
            console.print(f"{output}: made by the process that was waited for")
            yield False
            return
        try:
            yield True
        except KeyboardInterrupt as stop:
            if not stop.args and checkpoint is not None and checkpoint.exists():  # before or after its steps
                stop.args = (f"stopped: what is in {checkpoint} is kept; the same command goes on from there",)
            raise


@_command()
def generate(
    task: Annotated[str, typer.Argument(help="Such as 'SYS-1(1,5)'.")],
    count: Annotated[int, _option("Number of examples.", least=1)] = 32768,
    output: Annotated[Path, _option("HDF5 file to write.")] = Path("dataset.h5"),
    split: Annotated[str, _option("train, validation or test.")] = "train",
    resolution: Annotated[str, _option("Points in each direction, or such as 48x40.")] = "128",
    steps: Annotated[
        int | None, _option("Of an evolution: steps of trajectories to write, in the Well's layout.", least=1)
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = None,
    wait: Wait = False,
) -> None:
    """Write a dataset in the paper's HDF5 layout; resumes where an interrupted call stopped."""
    chosen, points = Task.parse(task), parse_resolution(resolution)
    if steps is not None:
        with _locked(output, wait=wait) as to_do:
            if not to_do:
                return
            found = split_trajectories(chosen, split, count, steps, seed=seed, resolution=points, device=device)
            said = {"task": task, "split": split, "seed": seed}
            path = save_trajectories(output, chosen.system, found.states, found.coefficients, attributes=said)
        console.print(
            f"{path}: {count} trajectories of {task}, {steps} steps, {grid_text(points)}, {split}, seed {seed}"
        )
        return
    bar = bar_on_errors(TimeRemainingColumn())
    line = bar.add_task(task, total=count)

    def callback(done: int, _: int) -> None:
        if interrupts.noted:
            interrupts.act(f"stopped: {done} of {count} examples are kept; the same command goes on with the rest")
        bar.start()  # not before: bad input leaves no bar behind
        bar.update(line, completed=done)

    try:
        with Interrupts() as interrupts:
            path = write_dataset(
                chosen, output, count, split=split, seed=seed, resolution=points, device=device,
                callback=callback, wait=wait,
            )  # fmt: skip
    finally:
        bar.stop()
    with DatasetFile(path) as dataset:
        rate = dataset.attributes["acceptance_rate"]
    console.print(
        f"{path}: {count} examples of {task}, {grid_text(points)}, {split}, seed {seed}; acceptance rate {rate:.1%}"
    )


@_command()
def pretrain(
    tasks: Annotated[
        list[str] | None, typer.Argument(help="One or more, such as 'SYS-1(1,5)'; with --data, it need not be said.")
    ] = None,
    output: Annotated[Path, _option("Bundle to write.")] = Path("operator.safetensors"),
    recipe: Annotated[
        str | None,
        _option(
            f"One of {', '.join(RECIPES)}. Where not given: dimensionless if the equation has a symbol, step for other "
            "evolutions, fields for everything else."
        ),
    ] = None,
    architecture: Annotated[str, _option(f"One of {', '.join(MODELS)}.")] = "fno",
    size: Annotated[
        str | None,
        _option(
            f"One of {', '.join(SIZES)}, where the architecture has it, or auto, by the grid; 1M, or auto for "
            "files of fields, where not given."
        ),
    ] = None,
    margin: Annotated[
        float | None,
        _option("Share of points to add for fields that are not periodic; 0.25 for files of fields.", least=0),
    ] = None,
    fill: Annotated[str | None, _option("What the margin holds: mirrored, or learned as for files of fields.")] = None,
    loss: Loss = None,
    steps: Annotated[int, _option("Optimiser steps.")] = 5000,
    batch_size: Annotated[int | None, _option("Examples in a batch; the recipe's where not given.", least=1)] = None,
    learning_rate: Annotated[float | None, _option("Learning rate at the start; the recipe's where not given.")] = None,
    resolution: Annotated[
        str | None,
        _option("Points, or a schedule such as '0:32,0.7:64'; 64, or the grid of the data, where not given."),
    ] = None,
    data: Annotated[
        list[Path] | None, _option("Dataset files, one per task, or a file of fields; else fresh examples.")
    ] = None,
    inputs: Inputs = None,
    targets: Targets = None,
    scalars: Scalars = None,
    channels: Channels = None,
    validation: Annotated[
        list[Path] | None, _option("Files to choose the weights by; else some of the data are held out.")
    ] = None,
    test: Annotated[Path | None, _option("File of fields to measure on; else some of the data are held out.")] = None,
    system: GivenSystem = None,
    start: Annotated[
        str | None, _option("Shipped name or bundle to begin from; random weights where not given.")
    ] = None,
    rollout: Rollout = None,
    noise: Noise = None,
    push_forward: PushForward = False,
    time_limit: Annotated[float | None, _option("Seconds by which the training ends.", above=0)] = None,
    checkpoint: Annotated[Path | None, _option("File to keep the state in, to resume from.")] = None,
    compile: Annotated[bool | None, _option("Use torch.compile; by rule: long runs on a GPU.")] = None,
    precision: Annotated[str, _option(f"Of the steps, one of {', '.join(PRECISIONS)}.")] = "float32",
    validation_count: Annotated[
        int | None,
        _option(
            "Validation examples of each task, drawn or held out; 256 where not given. The recipe step draws one "
            "trajectory in place of 16 of them.",
            least=0,
        ),
    ] = None,
    test_count: Annotated[
        int | None, _option("Test examples for the card; 512, or all of a file, where not given; 0 for none.", least=0)
    ] = None,
    test_resolution: TestResolution = None,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = None,
    wait: Wait = False,
) -> None:
    """Train an operator on one task, a mixed one on several, or one on fields of a file, and write its bundle.

    A file of fields, HDF5 of any layout, MATLAB 7.3, NPZ, NPY or PyTorch, needs no equation: name what is in it, or see
    what sciml-fm info FILE says. See docs/own_data.md.

    On N GPUs of a machine (or in N processes on its CPU, with --device cpu), which share every batch:
    torchrun --nproc-per-node N -m sciml_fm_core.cli pretrain ... The batch size must be a multiple of N; the weights
    are those of one process, to rounding.
    """
    chosen, schedule = [Task.parse(label) for label in tasks or []], _schedule(resolution) if resolution else None
    names = {"inputs": inputs, "targets": targets, "scalars": scalars, "channels": channels}
    paths, parts = data or [], cast(dict[str, Rows], {})
    if not chosen and len(paths) != 1:
        raise ValueError(f"pretrain: expected a TASK to draw examples of, or one --data FILE, got {len(paths)} files")
    sets: list[Any]
    held_out: list[Any]
    begun = None if start is None else load_operator(start)
    if layout := _layout_of(paths[0] if paths else None, names, chosen, begun):
        told = {"system": system, "test-resolution": test_resolution, "validation-count": validation_count}
        _refuse("of a file of fields, which says it itself or in a YAML beside it", told)
        if validation and len(validation) > 1:
            raise ValueError(f"--validation: expected one file beside a file of fields, got {len(validation)}")
        parts = _fields_of(paths[0], layout, validation[0] if validation else None, test)
        sets, held_out = [parts["train"]], [parts["validation"]]
    elif test is not None:
        raise ValueError("--test belongs to a file of fields; the test examples of a task are drawn")
    else:
        if not (paths or validation):
            _refuse("without --data or --validation FILE", {"system": system})
        sets, held_out = ([DatasetFile(path, system) for path in each or []] for each in (paths, validation))
        for one, other in zip(sets, held_out, strict=False):
            check_apart({"training": one, "validation": other})
        if not chosen:
            chosen = [own] if (own := task_of(sets[0])) else []
    shape = _margin(layout, architecture, margin, fill)
    size = size or ("auto" if layout else "1M")
    config = TrainConfig(
        steps=steps, validate_every=max(20, steps // 40), learning_rate=learning_rate, loss=loss,
        time_limit=time_limit, compile=compile, precision=precision,
    )  # fmt: skip
    grids = [one.resolution for one in sets]
    smallest_grid = _smallest_grid(architecture, size, grids)
    known = chosen[0].system if chosen else cast(File, file_of(sets[0])).system
    for grid in [schedule or 64] if schedule or not sets else grids:
        _check_grids(smallest_grid, grid, known)
    if recipe is None and chosen and isinstance(known, Evolution) and not known.is_linear:
        recipe = "step"
    takes_steps = recipe is not None and find_recipe(recipe).normalization == StepNormalization.kind
    unrolled = _unrolled(rollout, noise, push_forward, takes_steps and not sets)
    about = " + ".join(task.label for task in chosen) or str(paths[0])
    first = os.environ.get("RANK", "0") == "0"  # the process that writes, of those that torchrun started
    with (
        _locked(output, checkpoint, wait=wait) if first else nullcontext(True) as to_do,
        started_by_torchrun(device) as (processes, own_device),
        training_bar(about) if processes.first else nullcontext() as callback,
    ):
        if not processes.broadcast([to_do])[0]:
            return
        operator, _ = pretrain_operator(
            chosen, config, recipe=recipe, architecture=architecture, size=size, seed=seed, batch_size=batch_size,
            resolution=schedule, data=sets, validation=held_out, device=own_device, callback=callback,
            checkpoint=checkpoint, processes=processes, start=begun,
            validation_count=256 if validation_count is None else validation_count,
            unrolled=unrolled, **shape,
        )  # fmt: skip
        if not processes.first:
            return
        operator.card["command"] = command_line()
        if parts:
            operator.card |= _measured(operator, paths[0], parts, test_count)
        elif test_count is None or test_count:
            count, points = 512 if test_count is None else test_count, test_resolution or 128
            with measuring_bar(lines=True) as measured:
                operator.card["errors"] = evaluate_shifts(operator, count=count, resolution=points, callback=measured)
            tested = f"{count} test examples at {points} x {points}"
            operator.card["errors_measured_on"] = f"{tested} per task, seed 0"
        operator.save(output)
    console.print(_card_table(operator.card, str(output)))
    console.print(f"Look at it: sciml-fm explore {shlex.quote(str(output))}", soft_wrap=True, highlight=False)


def _schedule(
    text: str, name: str = "resolution", example: str = "points or a schedule such as '0:32,0.7:64'"
) -> Resolution | dict[float, Resolution]:
    """Read points, or points by the share of the training that is done, which begin at the share 0."""
    try:
        if ":" not in text:
            return parse_resolution(text)
        parts = [part.split(":") for part in text.split(",")]
        schedule = {float(start): parse_resolution(points) for start, points in parts}
        if not all(0 <= start <= 1 for start in schedule) or len(schedule) < len(parts):
            raise ValueError
        return schedule
    except ValueError:
        raise ValueError(f"{name}: expected {example}, got {text!r}") from None


def _unrolled(rollout: str | None, noise: float | None, push_forward: bool, asked: bool) -> Unrolled | None:
    """How many steps evolutions are followed in training; an error where no operator takes steps."""
    if not asked:
        if rollout is not None or noise is not None or push_forward:
            raise ValueError("--rollout, --noise and --push-forward belong to drawn evolutions and the recipe step")
        return None
    expected = "steps or a schedule such as '0:1,0.5:4'"
    steps: Any = _schedule(rollout or "1", "rollout", expected)
    if any(isinstance(each, tuple) for each in (steps.values() if isinstance(steps, dict) else [steps])):
        raise ValueError(f"rollout: expected {expected}, got {rollout!r}")
    return Unrolled(steps, push_forward, noise or 0.0)


def _smallest_grid(architecture: str, size: str, grids: list[Resolution]) -> int:
    """Fewest points in each direction of a network that is not built yet."""
    model = find_model(architecture)
    with torch.device("meta"):
        return model(model.config_type(1, **model.sized(size, grids))).smallest_grid


def _layout_of(
    path: Path | None, names: dict[str, str | None], chosen: Any, operator: Operator | None = None
) -> Layout | None:
    """What the arrays of a file of fields are; None for a dataset or none at all.

    With an operator that was trained on the file, or begins from one that was, the splits are those of that training,
    whatever the YAML beside the file says now.
    """
    card = operator.card if operator is not None else {}
    if path is None or chosen:
        if given := [f"--{name}" for name, value in names.items() if value is not None]:
            raise ValueError(f"{given[0]} belongs to --data FILE without a TASK, whose fields it names; leave out one")
        return None
    if (trained := trained_on(path, card)) is not None:
        said: dict[str, Any] = {name: value for name, value in names.items() if value is not None}
        return replace(trained, **said)
    layout = find_layout(path, names, card)
    if layout is not None and operator is not None and operator.systems[0].is_known:
        raise ValueError(
            f"{path}: no equation is said of it, and the operator was trained for {operator.systems[0].name}; train "
            f"one on fields by sciml-fm pretrain --data {path}"
        )
    return layout


MARGIN = 0.25
"""Margin of fields that nobody says are periodic. On Darcy's flow at 16 x 16 (1,000 examples, 300 steps) the test error
is 12 % with one that is learned, 21 % with a mirrored one, 40 % with none: without, no network could know the edge."""


def _margin(layout: Layout | None, architecture: str, margin: float | None, fill: str | None) -> dict[str, Any]:
    """Fields of the network's config that say how it meets the edge of the fields."""
    if layout is not None and margin is None and not layout.periodic and architecture == "fno":
        margin = MARGIN
    if fill is not None and not margin:
        raise ValueError("--fill says what a margin holds; give its size too, such as --margin 0.25")
    if not margin:
        return {}
    return {"margin": margin, "fill": fill or ("mirrored" if layout is None else "learned")}


def _fields_of(path: Path, layout: Layout, validation: Path | None, test: Path | None) -> dict[str, Rows]:
    """Splits of a file of fields, some of which other files may be; so the card says it, relative to the first."""
    said: dict[str, Any] = {}
    for name, other in (("validation", validation), ("test", test)):
        if other is not None:
            said[name] = os.path.relpath(user_path(other), user_path(path).parent)
    return open_splits(path, replace(layout, splits=layout.splits | said))


def _measured(operator: Operator, path: Path, parts: dict[str, Rows], count: int | None) -> dict[str, Any]:
    """What the card says of the test examples of a file of fields, and the band of its validation examples."""
    from .experiments.uncertainty.bands import calibrated_band

    found: dict[str, Any] = {}
    if parts["validation"].size >= FEWEST_CALIBRATION:
        found["band"] = asdict(calibrated_band(operator, parts["validation"]))
    if count != 0:
        tested = _at_most(parts["test"], count)
        found["errors"] = {f"{path.name}, test": evaluate_operator(operator, data=tested)["error"]}
        found["errors_measured_on"] = f"{tested.size} test examples"
    return found


FEWEST_CALIBRATION = 9
"""Validation examples that a band of 90 % takes."""


def _at_most(data: Reader, count: int | None) -> Reader:
    """The first of given examples, where a number is given and there are more."""
    return data if count is None or count >= data.size else rows_of(data, torch.arange(count))


def _check_grids(smallest: int, schedule: Resolution | Mapping[float, Resolution], system: System) -> None:
    """Check every grid of a training, also those that it would come to at the end."""
    for points in schedule.values() if isinstance(schedule, Mapping) else [schedule]:
        check_resolution(points, system)
        if min(grid_shape(points)) < smallest:
            raise ValueError(f"resolution: the network needs at least {smallest} points, got {points}")


@_command()
def adapt(
    operator: Annotated[str, typer.Argument(help="Shipped name or bundle.")],
    task: Annotated[
        str | None, typer.Argument(help="Downstream task, such as 'SYS-1(5,10)'; with --data, it need not be said.")
    ] = None,
    examples: Annotated[
        int | None, _option("Downstream examples; 64, or 16 trajectories, or all of a file, where not given.", least=1)
    ] = None,
    data: Annotated[
        Path | None, _option("Dataset file or file of fields to adapt to; else examples are drawn.")
    ] = None,
    inputs: Inputs = None,
    targets: Targets = None,
    scalars: Scalars = None,
    channels: Channels = None,
    validation: Annotated[
        Path | None, _option("File to choose the weights by; else some of --data are held out.")
    ] = None,
    test: Annotated[Path | None, _option("File to measure on; else some of --data are held out.")] = None,
    system: GivenSystem = None,
    rollout: Rollout = None,
    noise: Noise = None,
    push_forward: PushForward = False,
    output: Annotated[Path | None, _option("Bundle to write.")] = None,
    scratch: Annotated[bool, _option("Start from random weights instead.", "--scratch")] = False,
    physics: Annotated[bool, _option("Use no labels: fresh sources and the equation.", "--physics")] = False,
    steps: Annotated[int | None, _option("Optimiser steps; 200 where not given, 300 by --physics.")] = None,
    learning_rate: Annotated[float | None, _option("Learning rate; 1e-3 where not given, 3e-3 by --physics.")] = None,
    loss: Loss = None,
    grid: Annotated[bool, _option("Try five learning rates, 1e-4 to 1e-2.", "--grid")] = False,
    resolution: Annotated[
        str | None, _option("Points to train on, or a schedule; 64, by --physics 0:32,0.85:64.")
    ] = None,
    batch_size: Annotated[int | None, _option("Examples in a step; at most all of them.", least=1)] = None,
    validation_count: Annotated[
        int | None,
        _option("Validation examples; 64, or 8 trajectories, or those of a file of fields, where not given.", least=1),
    ] = None,
    test_count: Annotated[
        int | None,
        _option("Test examples; 256, or those of a file of fields, where not given.", least=1),
    ] = None,
    test_resolution: TestResolution = None,
    symmetries: Annotated[bool, _option("Train on turned and mirrored examples, where the PDE allows.")] = True,
    packed: Annotated[
        bool, _option("Write at most eight bits a weight, of the difference to a shipped operator.", "--packed")
    ] = False,
    as_json: Annotated[bool, _option("Print the result as JSON.", "--json")] = False,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = None,
    wait: Wait = False,
) -> None:
    """Fine-tune an operator (or train its twin from scratch) on a few examples and measure it before and after.

    Of an evolution the examples are trajectories, of 10 steps or those of a roll-out, and weights are chosen by
    roll-outs.

    With --physics it sees no solved example: the residual of the equation is made small on fresh sources, and the
    weights are chosen by it too. The test examples alone are solved.
    """
    if physics and examples is not None:
        raise ValueError("--physics uses no labels and takes no --examples; leave one of them out")
    if physics and scratch:
        raise ValueError(
            "--physics fine-tunes and does not start from random weights; leave out --scratch, or use "
            f"sciml-fm pretrain '{task}' --loss physics"
        )
    if grid and learning_rate is not None:
        raise ValueError("--grid tries five learning rates and takes no --learning-rate; leave one of them out")
    if packed and output is None:
        raise ValueError("--packed says how the bundle is written; give its name with --output")
    pretrained, chosen = load_operator(operator, device), Task.parse(task) if task else None
    if chosen is not None:
        pretrained.normalization.resolve(chosen.system)
    schedule = _schedule(resolution) if resolution else None
    if schedule is not None:
        _check_grids(pretrained.model.smallest_grid, schedule, pretrained.systems[0])
    points = schedule[max(schedule)] if isinstance(schedule, dict) else schedule or 64
    names = {"inputs": inputs, "targets": targets, "scalars": scalars, "channels": channels}
    if data is None and (validation or test or system):
        raise ValueError("--validation, --test and --system belong to --data FILE; give it")
    if data is not None:
        _refuse("with --data, whose test examples are on its grid", {"test-resolution": test_resolution})
    if data is None and chosen is None:
        raise ValueError("adapt: expected a TASK to draw examples of, or --data FILE")
    if data is not None and physics:
        raise ValueError("--physics draws fresh sources and takes no --data; leave one of them out")
    layout = _layout_of(data, names, chosen, pretrained)
    _refuse("of a file of fields, whose names say it", {"system": system if layout else None})
    if steps is None:
        steps = UNLABELLED.steps if physics else 200
    config = TrainConfig(steps=steps, learning_rate=learning_rate, loss=loss, validate_every=max(1, steps // 20))
    if physics and chosen is not None:
        unlabelled_config(config, chosen.system)
    steps_taken = chosen is not None and data is None and isinstance(pretrained.normalization, StepNormalization)
    unrolled = _unrolled(rollout, noise, push_forward, steps_taken and not physics)
    rolled: dict[str, Any] = {} if unrolled is None else {"unrolled": unrolled}
    if unrolled is not None and (isinstance(schedule, dict) or not symmetries):
        raise ValueError(
            "trajectories are turned and mirrored and stay on one grid; leave out --no-symmetries and the schedule"
        )
    start = train_from_scratch if scratch else fine_tune
    with _locked(output, wait=wait) as to_do:
        if not to_do:
            return
        given: dict[str, Any]
        measured: dict[str, Any]
        parts: dict[str, Rows] = {}
        if data is not None:
            train: Reader
            held_out: Any
            tested: Reader
            if layout is not None:
                parts = _fields_of(data, layout, validation, test)
                train, held_out, tested = parts["train"], parts["validation"], _at_most(parts["test"], test_count)
                held_out, train = _at_most(held_out, validation_count), few_of(train, examples, seed)
            else:
                file = DatasetFile(data, system)
                chosen = chosen or task_of(file)
                train, held_out, tested = split_file(
                    file, chosen, count=examples, seed=seed,
                    validation=DatasetFile(validation, system) if validation else validation_count or 64,
                    test=DatasetFile(test, system) if test else test_count or 256,
                )  # fmt: skip
                held_out, tested = _at_most(held_out, validation_count), _at_most(tested, test_count)
            grids = train.resolution if schedule is None else schedule
            _check_grids(pretrained.model.smallest_grid, grids, pretrained.systems[0])
            given, measured = {"data": train}, {"data": tested}
        elif chosen is not None:
            measured = {"count": test_count or 256, "seed": seed, "resolution": test_resolution or 128}
            few: Any
            if unrolled is not None:  # whole trajectories, of at least as many steps as a roll-out
                drawn = partial(split_trajectories, chosen, steps=max(LENGTH, unrolled.most), seed=seed)
                held_out = drawn("validation", count=validation_count or 8, resolution=points)
                few = drawn("train", count=examples or 16, resolution=points)
            else:
                held_out = draw_split(chosen, "validation", validation_count or 64, seed=seed, resolution=points)
                few = None if physics else draw_split(chosen, "train", examples or 64, seed=seed, resolution=points)
            given = {"unlabelled": chosen} if physics else {"data": few, "system": chosen.system}
        count = 0 if physics else given["data"].size
        label = chosen.label if chosen is not None else str(data)
        before = evaluate_operator(pretrained, chosen, **measured)["error"]
        with training_bar(label) as callback:
            result = start(
                pretrained, **given, **rolled, resolution=schedule, batch_size=batch_size, validation=held_out,
                config=config, seed=seed, learning_rates=LEARNING_RATES if grid else None, symmetries=symmetries,
                callback=callback,
            )  # fmt: skip
        made = written = result.operator
        form: dict[str, Any] = {}
        if packed and output is not None:  # what is measured is what is written
            form = {"packed": True, "parent": operator if operator in shipped_operators() and not scratch else None}
            with TemporaryDirectory() as folder:
                written = load_operator(made.save(Path(folder, "packed.safetensors"), **form), device)
        after = evaluate_operator(written, chosen, **measured)["error"]
        card = made.card
        card |= {"adapted_from": operator, "downstream_task": chosen and chosen.label, "steps": steps}
        card |= {"command": command_line(), "errors": {label: after}}
        if parts and data is not None:
            card |= _measured(written, data, parts | {"validation": held_out}, 0) | {
                "errors": {f"{data.name}, test": after}
            }
        if output is not None:
            made.save(output, **form)
    summary = {
        "operator": operator, "task": label, "examples": count, "start": "scratch" if scratch else "fine-tuned",
        "loss": card["loss"], "zero_shot_error": before, "error": after, "learning_rate": result.learning_rate,
        "seconds": card["seconds"], "output": str(output) if output else None,
    }  # fmt: skip
    if as_json:
        _print_json(summary)
        return
    labels = "examples" if unrolled is None else "trajectories"
    shown = f"0 labels, {card['loss']} loss" if physics else f"{count} {labels}"
    console.print(
        f"{label}, {shown}: zero-shot {before:.2%}, {summary['start']} {after:.2%} "
        f"(learning rate {result.learning_rate:g}, {summary['seconds']:.0f} s)"
    )


@_command()
def evaluate(
    operator: Annotated[str, typer.Argument(help="Shipped name or bundle.")],
    task: Annotated[str | None, typer.Argument(help="Such as 'SYS-1(5,10)'; with --data, it need not be said.")] = None,
    data: Annotated[
        Path | None, _option("Dataset file or file of fields to measure on; else examples are drawn.")
    ] = None,
    inputs: Inputs = None,
    targets: Targets = None,
    scalars: Scalars = None,
    channels: Channels = None,
    band: Annotated[
        bool, _option("Say how much the band holds that the operator's training calibrated.", "--band")
    ] = False,
    system: GivenSystem = None,
    count: Annotated[
        int | None,
        _option("Test examples; 512, or all of a file, or 32 trajectories by --steps, where not given."),
    ] = None,
    resolution: Annotated[
        str | None,
        _option("Points in each direction; 128, or the grid of the data, or 64 by --steps, where not given."),
    ] = None,
    symmetries: Annotated[
        bool, _option("Average predictions over turned and mirrored inputs: 8 times the cost.", "--symmetries")
    ] = False,
    steps: Annotated[int | None, _option("Of an evolution: roll out so many steps.", least=1)] = None,
    as_json: Annotated[bool, _option("Print as JSON.", "--json")] = False,
    seed: Seed = 0,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Measure an operator on freshly drawn test examples, or on those of a file.

    Of a file of fields that it was trained on these are the test examples, and of any other file all.
    """
    loaded, chosen = load_operator(operator, device), Task.parse(task) if task else None
    names = {"inputs": inputs, "targets": targets, "scalars": scalars, "channels": channels}
    given: Any = None
    where = "given"
    if data is None:
        _refuse("without --data FILE", {"system": system})
    if steps is not None:
        _refuse("with --steps", {"band": band or None, "symmetries": symmetries or None})
    if data is not None:
        layout = _layout_of(data, names, chosen, loaded)
        _refuse("of a file of fields, whose names say it", {"system": system if layout else None})
        if layout is None:
            given = DatasetFile(data, system)
        elif trained_on(data, loaded.card) is None:
            given, where = FieldsFile(data, layout), "all of the file"
        else:
            given, where = open_splits(data, layout)["test"], "the test split of a file that it was trained on"
    points = parse_resolution(resolution) if resolution else None
    file = file_of(given)
    measured_on = chosen.system if chosen else file.system if file is not None else loaded.systems[0]
    if len(measured_on.symmetries) == 1:
        _refuse(f"on {measured_on.name}, of which no symmetry is known", {"symmetries": symmetries or None})
    _check_grids(loaded.model.smallest_grid, points or (128 if given is None else given.resolution), loaded.systems[0])
    if steps is not None:
        if chosen is None or given is not None:
            raise ValueError("--steps rolls out an operator on a TASK of an evolution; name it, without --data")
        drawn = split_trajectories(
            chosen, "test", 32 if count is None else count, steps, seed=seed, resolution=points or 64, device=device
        )
        found = rollout_of(loaded, drawn.states[:, 0], drawn.coefficients, steps, chosen.system)
        errors = rollout_errors(found, drawn.states, chosen.system.input_axes).mean(0)
        rolled = {str(number): errors[number].item() for number in SHOWN if number < steps} | {
            str(steps): errors[-1].item()
        }
        if as_json:
            _print_json({"operator": operator, "task": chosen.label, "trajectories": drawn.size, "errors": rolled})
            return
        shown = ", ".join(f"{error:.2%} after {number}" for number, error in rolled.items())
        console.print(
            f"{operator} on {task}: mean relative error {shown} steps ({drawn.size} trajectories, seed {seed})"
        )
        return
    with measuring_bar() as measured:
        result = evaluate_operator(
            loaded, chosen, data=given, count=count, resolution=points, seed=seed, symmetries=symmetries,
            callback=measured,
        )  # fmt: skip
    if band:
        from .experiments.uncertainty.bands import band_of

        if given is None:
            raise ValueError("--band is measured on given examples; give --data FILE")
        known = band_of(loaded.card)
        result["band"] = asdict(known) | known.measure(loaded, _at_most(given, count))
    if as_json:
        _print_json({"operator": operator, **result})
        return
    left_out = result["left_out"]
    console.print(
        f"{operator} on {data or task}: mean relative error {result['error']:.2%} (median {result['median']:.2%}, "
        f"90th percentile {result['percentile_90']:.2%}, worst {result['worst']:.2%}; {result['examples']} examples, "
        f"{grid_text(result['resolution'])}, {'seed ' + str(seed) if data is None else where}"
        f"{f'; {left_out} with a solution of zero left out' if left_out else ''})"
    )
    if band:
        held = result["band"]
        console.print(
            f"The band holds {held['coverage']:.0%} of the points in {held['held']:.0%} of the examples; it was "
            f"calibrated on {held['examples']} others to do so in {held['confidence']:.0%}. Its mean half width is "
            f"{held['width']:.2%} of the size of the solution."
        )


@_command()
def info(path: Annotated[str, typer.Argument(help="Shipped operator, bundle, dataset or file of fields.")]) -> None:
    """Show the card of an operator, or what a file holds and with which command it can be learned from."""
    file = find_file(path, shipped_operators() | shipped_adaptations(), "operator")
    if file.is_file() and is_dataset(file):
        with DatasetFile(file) as dataset:
            table = Table("dataset", path, show_header=True)
            table.add_row("examples", str(dataset.size))
            table.add_row("grid", grid_text(dataset.resolution))
            with suppress(ValueError):  # a foreign file need not say it
                table.add_row("system", f"{dataset.system.label} {dataset.system.name}")
            for key, value in dataset.attributes.items():
                table.add_row(key, str(value))
        console.print(table)
    elif file.is_dir() or (file.is_file() and _holds_arrays(file)):
        console.print(str(describe(file)), soft_wrap=True, highlight=False)
    else:
        console.print(_card_table(read_header(file).card, path))


def _holds_arrays(path: Path) -> bool:
    """Whether a file is no bundle: the header of one begins behind its length, and its name says safetensors."""
    with path.open("rb") as file:
        return path.suffix != ".safetensors" and file.read(9)[8:] != b"{"


@_command()
def operators() -> None:
    """List the operators that ship."""
    table = Table("name", "trained on", "recipe", "parameters", "examples", "error on its own task")
    table.columns[0].no_wrap = True  # it is what other commands want, whole
    for name, path in shipped_operators().items():
        card = read_header(path).card
        errors = card.get("errors", {})
        own = ", ".join(f"{errors[label]:.2%}" for label in card["tasks"] if label in errors)
        tasks, counts = " + ".join(card["tasks"]), (f"{card[key]:,}" for key in ("parameters", "examples_seen"))
        table.add_row(name, tasks, card["recipe"], *counts, own)
    console.print(table)


@_command()
def export(
    name: Annotated[str, typer.Argument(help="Shipped operator or bundle; or a system, for its exact solver.")],
    output: Annotated[Path, _option("File to write, .onnx; or .pt2 with --program.")],
    system: Annotated[str | None, _option("Which system is meant, of an operator for several.")] = None,
    resolution: Annotated[str, _option("Points in each direction, or such as 48x40; any for every even grid.")] = "128",
    half: Annotated[bool, _option("Store the weights as float16.")] = False,
    program: Annotated[bool, _option("Write a program of torch.export (.pt2) instead of ONNX.")] = False,
    threads: Threads = None,
) -> None:
    """Write an operator, or the solver of a system, as a file that runs without this package; see docs/export.md."""
    wanted, points = ".pt2" if program else ".onnx", resolution if resolution == ANY else parse_resolution(resolution)
    if output.suffix != wanted:
        raise ValueError(f"--output: expected a name that ends in {wanted}, got {output}; choose another, or --program")
    file = find_file(name, shipped_operators() | shipped_adaptations(), "operator")
    with _locked(output):
        if file.is_file() or file.suffix:
            found = load_operator(name).export(output, system, points, "float16" if half else "float32")
        elif system is not None or half:
            raise ValueError(f"export: --system and --half are for operators, and {name} is none; leave them out")
        else:
            found = export_solver(find_system(name), output, points)
    console.print(
        f"{found.path}: {found.bytes / 1e6:.1f} MB, largest relative difference to PyTorch {found.difference:.1e}"
        + (f", by rounding weights {found.rounding:.1e}" if half else "")
    )


@_command()
def study(
    experiments: Annotated[list[str] | None, typer.Argument(help="Such as q1_downstream_data; all if none.")] = None,
    budget: Annotated[str, _option("One of smoke, laptop, gpu, paper.")] = "laptop",
    folder: Annotated[Path, _option("Where records are kept; what is there is not done again.")] = Path("runs/study"),
    output: Annotated[Path | None, _option("Table of all records to write, CSV.")] = None,
    rerun: Annotated[bool, _option("Compute also what ships with the package.", "--rerun")] = False,
    processes: Annotated[int, _option("Runs at a time.", least=1)] = 1,
    scheduler: Scheduler = None,
    device: Annotated[str, _option("cpu or cuda; 'auto' takes a GPU where there is one.")] = "auto",
    threads: Threads = None,
    wait: Wait = False,
) -> None:
    """Run the paper's experiments, without notebooks: what neither ships nor is in the folder, and a table of all.

    Those whose records are of another kind, such as physics_loss, are run where they are named. Several of these
    commands may work on one folder, and share the runs out among them.
    """
    from .experiments.paper import EXPERIMENTS

    if scheduler:
        _refuse("with --scheduler, whose workers compute", {"processes": processes if processes > 1 else None})
    names = list(experiments or EXPERIMENTS)
    total = len({run for name in names for run in find_experiment(name)(budget)})
    device = device if scheduler else _device(device)  # of a cluster, its workers know
    check_folder(folder)
    with _locked(output, wait=wait) as to_do:
        if not to_do:
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        with progress_bar(TextColumn("{task.completed}/{task.total} runs"), console=console) as bar:
            line = bar.add_task(budget, total=total)

            def show(progress: GridProgress) -> None:
                bar.update(line, completed=progress.done, total=progress.total)

            records = results(
                names, budget, rerun=rerun, folder=folder, processes=processes, scheduler=scheduler, device=device,
                callback=show,
            )  # fmt: skip
            bar.update(line, total=total, completed=total)
        if output is not None:
            write_table(records, output)
    made = sum((folder / f"{record['identity']}.json").is_file() for record in records)
    console.print(f"{len(records)} records: {made} in {folder}, {len(records) - made} that ship with the package")


@_command()
def batch(
    file: Annotated[Path, typer.Argument(help="YAML with notebooks and their parameters; see docs/cluster.md.")],
    output: Annotated[Path, _option("Folder for executed notebooks and their markers.")] = Path("runs/batch"),
    processes: Annotated[int | None, _option("Notebooks at once; half the cores where not given.", least=1)] = None,
    scheduler: Scheduler = None,
    timeout: Annotated[float | None, _option("Seconds after which a notebook is stopped.", above=0)] = None,
    retry_failed: Annotated[bool, _option("Run earlier failures again.", "--retry-failed")] = False,
) -> None:
    """Run a grid of notebooks, in processes here or on a Dask cluster; a second call does only what is missing.

    Several of these commands may work on one folder, and share the runs out among them.
    """
    check_folder(output)
    if not file.is_file():
        raise ValueError(f"batch {file}: no such file; expected a YAML file with a list of runs")
    runs = plan(file, output)
    counts = TextColumn("{task.completed}/{task.total}, {task.fields[failed]} failed")
    with progress_bar(counts, TimeRemainingColumn(), console=console) as bar:
        line = bar.add_task(file.name, total=len(runs), failed=0)
        summary = run_batch(
            runs, processes=processes, scheduler=scheduler, timeout=timeout, retry_failed=retry_failed,
            callback=lambda now: bar.update(line, completed=now.done + now.failed, failed=now.failed),
        )  # fmt: skip
    console.print(
        f"{summary.done} of {summary.total} done; {summary.executed} executed now, in {summary.seconds:.0f} s"
    )
    for run in summary.failures:
        error = read_marker(run.marker).error or ""
        last = str(error).strip().splitlines()[-1:]
        console.print(one_line(f"failed: {run.output}: {last}"), style="red", markup=False)
    if summary.failed:
        if not summary.executed:
            console.print("failures run again only with --retry-failed")
        raise typer.Exit(1)


@_command()
def explore(
    operators: Annotated[
        list[Path] | None, typer.Argument(help="Bundles to show besides those in the folder runs.")
    ] = None,
    data: Annotated[
        list[Path] | None, _option("Files of fields to show operators of given fields on, where not beside them.")
    ] = None,
    port: Annotated[int, typer.Option(help="Port of the server on this machine.", min=1, max=65535)] = 5006,
    browser: Annotated[bool, _option("Open the page in a browser.")] = True,
    origin: Annotated[list[str] | None, _option("Behind a proxy: host by which browsers know it, '*' for any.")] = None,
    public: Annotated[
        bool, _option("For strangers, behind a proxy: tight bounds, see docs/public.md.", "--public")
    ] = False,
    prefix: Annotated[str, _option("Path below which the pages are, such as /operators.")] = "",
    address: Annotated[str | None, _option("Listen on this address alone; if public, 127.0.0.1.")] = None,
    threads: Threads = None,
) -> None:
    """Serve the dashboard on this machine until Ctrl-C: /explore and /studies.

    Of an operator of given fields the test examples of its file are shown: /explore?page=data.
    """
    if threads:  # the pages ask for the threads once more
        os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    given = [read_header(path) for path in operators or []]
    if missing := [path for path in data or [] if not path.exists()]:
        raise ValueError(f"explore: no file {missing[0]}")
    own = any(header.normalization.get("inputs") is not None for header in given)  # that name their fields themselves
    opens = f"explore?{urlencode({'page': 'data', 'operator': operators[0].stem})}" if own and operators else "explore"
    pages = f"http://localhost:{port}{'/' + prefix.strip('/') if prefix else ''}/{opens}"
    console.print(f"{pages} and /studies (Ctrl-C stops it)", highlight=False, soft_wrap=True)
    serve_dashboard(
        port, browser, origin or [], public=public, prefix=prefix, address=address, operators=operators or [],
        data=data or [], opens=opens,
    )  # fmt: skip


@_command()
def site(
    folder: Annotated[Path, typer.Argument(help="Folder to write; made where it is missing.")],
    system: Annotated[
        list[str] | None, _option("Equation that the page has, such as poisson; all that it can compute if none.")
    ] = None,
    runtime: Annotated[
        Path | None, _option("Folder with the files of onnxruntime-web; if none, npm fetches them.")
    ] = None,
    threads: Threads = None,
) -> None:
    """Write the explore page as files that need no server: everything is computed in the browser; see docs/site.md."""
    names = [find_system(name).name for name in system or []]
    size = write_site(folder, runtime, names, lambda what: console.print(what, highlight=False))
    console.print(f"{folder}: {size / 1e6:.1f} MB; open it with: python -m http.server -d {folder}", highlight=False)


@_command()
def notebooks(
    folder: Annotated[Path, typer.Argument(help="Folder to copy them to; made where it is missing.")],
) -> None:
    """Copy the notebooks to a folder of your own; what is there and differs is not overwritten."""
    check_folder(folder)
    copied = copy_notebooks(folder)
    console.print(f"{len(copied)} files in {folder}; open them with: jupyter lab {folder}", highlight=False)


@_command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def bench(context: typer.Context) -> None:
    """Measure speed side by side with peers (in a checkout; options of benchmarks/run.py)."""
    script = Path(__file__).resolve().parent.parent / "benchmarks" / "run.py"
    if not script.is_file():
        raise ValueError("bench: the benchmarks are part of a checkout, not of the installed package; clone it first")
    sys.argv = [str(script), *context.args]
    runpy.run_path(str(script), run_name="__main__")


def _card_table(card: dict, title: str) -> Table:
    table = Table("card", title)
    for key, value in card.items():
        if key == "curve" or value == []:
            continue
        if key == "errors":
            value = ", ".join(f"{label} {error:.2%}" for label, error in value.items())
        table.add_row(key, _in_words(value))
    return table


def _in_words(value: Any) -> str:
    """A value of a card, without the brackets and quotes of Python."""
    if isinstance(value, Mapping):
        inner = ((key, one, "({})" if isinstance(one, Mapping) else "{}") for key, one in value.items())
        return "; ".join(f"{key}: {form.format(_in_words(one))}" for key, one, form in inner)
    if isinstance(value, list | tuple):
        return ", ".join(map(_in_words, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Entry point."""
    run_program(app)


if __name__ == "__main__":
    main()
