"""Speed of everything that takes time, side by side with its peers: ``python benchmarks/run.py --help``."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.measures import BUDGETS, SECTIONS, Record, device_limits
from benchmarks.report import CASES, TITLES, sections, table
from sciml_fm_core import __version__
from sciml_fm_core.files import write_json
from sciml_fm_core.training.cards import hardware

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("torch", "numpy", "neuraloperator")


@dataclass(frozen=True)
class Options:
    """What to measure and where.

    Attributes:
        budget: ``full``, about half an hour on two cores; or ``smoke``, seconds, which only shows that it runs.
        only: sections to measure; all where empty.
        device: ``cpu`` or ``cuda``.
        threads: of the CPU; all where None.
        released: checkout of the paper's released code, to compare with.
        compiled: also measure our network under torch.compile; on CUDA only, where None.
        equal_seconds: of each training that is compared at equal time; the budget's where None.
        seed: of weights and examples.
        json: file to write; where None, ``results/<device>.json`` for a full run of all sections, else none.
    """

    budget: str = "full"
    only: tuple[str, ...] = ()
    device: str = "cpu"
    threads: int | None = None
    released: Path | None = None
    compiled: bool | None = None
    equal_seconds: float | None = None
    seed: int = 0
    json: Path | None = None

    def __post_init__(self):
        unknown = [name for name in self.only if name not in SECTIONS]
        if unknown:
            raise ValueError(f"only: expected some of {', '.join(SECTIONS)}, got {', '.join(unknown)}")
        if self.budget not in BUDGETS:
            raise ValueError(f"budget: expected one of {', '.join(BUDGETS)}, got {self.budget!r}")
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise ValueError("device: no CUDA GPU here; use --device cpu")
        if self.released is not None and not (self.released / "models" / "fno.py").is_file():
            raise ValueError("released: expected a checkout of the paper's code, with models/fno.py")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads: expected at least 1, got {self.threads}")
        if self.equal_seconds is not None and not self.equal_seconds > 0:
            raise ValueError(f"equal-seconds: expected seconds above 0, got {self.equal_seconds}")
        if self.json is not None and not self.json.parent.is_dir():
            raise ValueError(f"{self.json}: the folder {self.json.parent} does not exist; make it first")

    @property
    def output(self) -> Path | None:
        """The file to write."""
        if self.json is None and self.budget == "full" and not self.only:
            return RESULTS / f"{self.device.split(':')[0]}.json"
        return self.json

    @property
    def command(self) -> str:
        """The command that repeats this run; paths of this machine are no part of it."""
        words = ["python benchmarks/run.py", f"--budget {self.budget}", f"--device {self.device}"]
        words += [f"--only {','.join(self.only)}"] if self.only else []
        words += [f"--threads {self.threads}"] if self.threads else []
        words += ["--released PATH"] if self.released else []
        words += ["--compile" if self.compiled else "--no-compile"] if self.compiled is not None else []
        words += [f"--equal-seconds {self.equal_seconds:g}"] if self.equal_seconds else []
        return " ".join([*words, f"--seed {self.seed}"])


def run(options: Options, console: Console | None = None) -> dict:
    """Measure, print a table after each section, and return (and write) the result as plain values.

    The file is written after every measurement, so a run that is stopped keeps what it has.
    """
    console = console or _console()
    threads = torch.get_num_threads()
    torch.set_num_threads(options.threads or threads)
    budget = BUDGETS[options.budget]
    if options.equal_seconds is not None:
        budget = replace(budget, equal_seconds=options.equal_seconds)
    device = torch.device(options.device)
    compiled = device.type == "cuda" if options.compiled is None else options.compiled
    released = None if options.released is None else options.released.resolve()
    started = time.perf_counter()

    def keep(row: dict) -> None:
        if options.output is not None:
            write_json(options.output, result())
        case = [str(row[name]) for name in CASES.get(row["section"], ()) if row.get(name) is not None]
        console.print(" ".join([row["section"], *case, f"{row['candidate']}: {row['value']:.4g} {row['unit']}"]))

    record = Record(device, budget, options.seed, released, compiled, keep)
    earlier = _earlier(options)

    def result() -> dict:
        made = _result(options, record, time.perf_counter() - started)
        measured = {row["section"] for row in record.rows}
        kept = [row for row in earlier.get("measurements", []) if row["section"] not in measured]
        if kept:
            made["command"] = f"{earlier['command']}; then {made['command']}"
        made["measurements"] = kept + made["measurements"]
        return made

    try:
        console.print(hardware(device))
        for name, measure in {"limits": device_limits, **SECTIONS}.items():
            if options.only and name not in ("limits", *options.only):
                continue
            known = len(record.rows)
            measure(record)
            for section, groups in sections(record.rows[known:]).items():
                console.print(_table(section, groups))
        if options.output is not None:
            write_json(options.output, result())
    finally:
        torch.set_num_threads(threads)
    for line in record.skipped:
        console.print(f"not measured: {line}", style="yellow", markup=False)
    return result()


def _earlier(options: Options) -> dict:
    """What the file that is to be written holds: it stays where only some sections are measured again."""
    if not options.only or options.output is None or not options.output.is_file():
        return {}
    return json.loads(options.output.read_text(encoding="utf-8"))


def _console() -> Console:
    """The terminal; in a file, lines wide enough for the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def _table(section: str, groups: dict) -> Table:
    header, lines = table(section, groups)
    shown = Table(*header, title=TITLES[section], title_justify="left")
    for line in lines:
        shown.add_row(*line)
    return shown


def _result(options: Options, record: Record, seconds: float) -> dict:
    return {
        "format": "sciml-fm benchmark",
        "version": 1,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": options.command,
        "budget": options.budget,
        "hardware": hardware(record.device),
        "device": record.device.type,
        "threads": torch.get_num_threads(),
        "processors": os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {"sciml-fm": __version__} | _versions(),
        "seed": record.seed,
        "seconds": round(seconds, 1),
        "measurements": record.rows,
        "skipped": record.skipped,
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _parse(arguments: list[str] | None) -> Options:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", choices=BUDGETS, default="full", help="how much to measure")
    parser.add_argument("--only", default="", help=f"sections, with commas between: {','.join(SECTIONS)}")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, help="CPU threads; all where not given")
    parser.add_argument("--released", type=Path, help="checkout of the paper's released code, to compare with")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="also our network under torch.compile")
    parser.add_argument("--equal-seconds", type=float, help="of each training compared at equal time")
    parser.add_argument("--seed", type=int, default=0, help="of weights and examples")
    parser.add_argument("--json", type=Path, help="file to write the measurements to")
    values = vars(parser.parse_args(arguments))
    values["only"] = tuple(name.strip() for name in values["only"].split(",") if name.strip())
    values["compiled"] = values.pop("compile")
    return Options(**values)


def main(arguments: list[str] | None = None) -> dict:
    """Entry point for the command line: `run` with options from arguments.

    Raises:
        ValueError: on options that make no sense.
    """
    return run(_parse(arguments))


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
