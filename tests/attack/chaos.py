"""Chaos: commands that are killed, started twice, or run out of disk, and then have to end as if nothing had happened.

``python tests/attack/chaos.py --kills 100 --pairs 20 --disks 10`` (or ``make chaos``) does so many of each with
`COMMANDS` in turn, at random moments and sizes of a seed, and ends with exit code 1 on a defect:

- a kill: the command gets signal 9; no process of it stays, and the same command gives what an undisturbed one gives;
- a pair: the command is started twice at once; one does the work, the other says who does, waits, or shares the work;
- a disk: the folder is a small tmpfs, which really raises ENOSPC (where mounting is not permitted, a limit on the size
  of files, which raises EFBIG): one line and exit code 1, and with more room the same command ends well.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import psutil
from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[2]
MARK = "SCIML_FM_CHAOS"
"""Variable by which processes of a command are known, also those that it starts."""
PATIENCE = 300.0
"""Seconds that any command may take; more is a defect."""
TIMES = {
    "seconds", "total_seconds", "pretraining_seconds", "curve", "command", "hardware", "start", "host", "output",
    "digest",
}  # fmt: skip
"""Keys of cards and records that differ between two undisturbed runs; the digest of a record is also of its times."""


# The commands and what they make --------------------------------------------------------------------------------------


def _without_times(value):
    if isinstance(value, dict):
        return {key: _without_times(each) for key, each in value.items() if key not in TIMES}
    return [_without_times(each) for each in value] if isinstance(value, list) else value


def products(folder: Path) -> dict:
    """What a command has made: data and weights to the byte, cards and records without times, names of notebooks."""
    found = {}
    for path in folder.rglob("*"):
        if path.suffix == ".h5":
            found[path.name] = hashlib.blake2b(path.read_bytes()).hexdigest()
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="np") as file:
                weights = [hashlib.blake2b(file.get_tensor(name).tobytes()).hexdigest() for name in sorted(file.keys())]
                found[path.name] = weights, _without_times(json.loads(file.metadata()["header"])["card"])
        elif path.suffix == ".json":
            found[path.name] = _without_times(json.loads(path.read_text()))
        elif path.suffix == ".ipynb":
            found[path.name] = True
    return found


def _write_batch(folder: Path) -> None:
    """Two notebooks, each of which notes that it came to its end."""
    work = "import time\ntime.sleep(0.3)\nwith open('log', 'a') as log:\n    log.write(f'{number}\\n')"
    cells = [
        {"cell_type": "code", "id": name, "metadata": {"tags": tags}, "source": source, "outputs": [],
         "execution_count": None}
        for name, tags, source in (("one", ["parameters"], "number = 0"), ("two", [], work))
    ]  # fmt: skip
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    (folder / "tiny.ipynb").write_text(json.dumps(notebook))
    (folder / "batch.yaml").write_text("[{notebook: tiny.ipynb, grid: {number: [0, 1]}}]")


@dataclass(frozen=True)
class Command:
    """A command line, and what has to be there before it."""

    words: tuple[str, ...]
    prepare: Callable[[Path], None] = lambda folder: None
    shares: bool = False  # two of them share the work out, and both end well


TRAIN = ("--device", "cpu", "--seed", "3")
COMMANDS = {
    "generate": Command(
        ("generate", "SYS-1(1,5)", "--count", "1000", "--resolution", "32", "--output", "data.h5", *TRAIN)
    ),
    "pretrain": Command(
        ("pretrain", "SYS-1(1,5)", "--size", "64K", "--steps", "520", "--batch-size", "2", "--resolution", "32",
         "--test-count", "1", "--checkpoint", "state", "--output", "own.safetensors", "--threads", "1", *TRAIN),
    ),
    "adapt": Command(
        ("adapt", "sys-1", "SYS-1(5,10)", "--examples", "4", "--steps", "4", "--resolution", "32",
         "--validation-count", "4", "--test-count", "4", "--output", "tuned.safetensors", *TRAIN),
    ),
    "study": Command(
        ("study", "q2_model_size", "--budget", "smoke", "--folder", "records", "--device", "cpu"), shares=True
    ),
    "batch": Command(("batch", "batch.yaml", "--output", "out", "--processes", "2"), _write_batch, True),
}  # fmt: skip


# Running them ---------------------------------------------------------------------------------------------------------


def start(command: Command, folder: Path, mark: str, *more: str, limit: int | None = None) -> subprocess.Popen:
    """The command as a process, whose files are at most so many bytes."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "300", MARK: mark}
    return subprocess.Popen(
        [sys.executable, "-m", "sciml_fm_core.cli", *command.words, *more],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=limit and partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip


def finish(process: subprocess.Popen) -> tuple[int, str]:
    """Exit code, and what it said."""
    try:
        output, errors = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        return -1, f"did not end in {PATIENCE:g} s"
    return process.returncode, output + errors


def processes(mark: str) -> list[int]:
    """Living processes of a command."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


@contextmanager
def workplace(command: Command, where: Path | None = None) -> Iterator[tuple[Path, str]]:
    """A folder that is ready for the command, and a mark for its processes."""
    with tempfile.TemporaryDirectory(dir=where) as name:
        command.prepare(Path(name))
        yield Path(name), uuid.uuid4().hex


def ended_well(
    command: Command, folder: Path, mark: str, expected: dict, outcome: tuple[int, str], *, refused: bool = False
) -> str | None:
    """A defect of the last call of a command; where it found its work done, it may have refused to do it again."""
    code, said = outcome
    if code and not (refused and code == 2 and "exists already" in said):
        return f"exit code {code}: {said[-300:]}"
    if (made := products(folder)) != expected:
        other = sorted(name for name in made.keys() | expected.keys() if made.get(name) != expected.get(name))
        shown = f"{made.get(other[0])} for {expected.get(other[0])}"
        return f"other results than an undisturbed run: {other}, such as {shown:.2000}"
    if not code and (left := [path.name for path in folder.rglob(".*") if path.suffix in (".lock", ".partial")]):
        return f"left behind: {left}"
    return f"processes stay: {stay}" if (stay := gone_late(mark)) else None


def gone_late(mark: str) -> list[int]:
    """Processes of a command that are there after half a minute."""
    limit = time.monotonic() + 30
    while (left := processes(mark)) and time.monotonic() < limit:
        time.sleep(0.1)
    return left


@cache
def undisturbed(command: Command) -> tuple[dict, float]:
    """What the command makes, and the seconds that it takes."""
    with workplace(command) as (folder, mark):
        began = time.monotonic()
        code, said = finish(start(command, folder, mark))
        if code:
            raise SystemExit(f"{command.words[0]} does not work undisturbed: {said}")
        return products(folder), time.monotonic() - began


# The attacks ----------------------------------------------------------------------------------------------------------


def kill(command: Command, expected: dict, seconds: float, chance: random.Random) -> str | None:
    """Killed once or twice, then called again."""
    with workplace(command) as (folder, mark):
        for _ in range(chance.choice((1, 1, 1, 2))):
            process = start(command, folder, mark)
            with suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0.3, 1.0) * seconds)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            if stay := gone_late(mark):
                return f"processes outlive the kill: {stay}"
        outcome = finish(start(command, folder, mark))
        return ended_well(command, folder, mark, expected, outcome, refused=True)


def pair(command: Command, expected: dict, seconds: float, chance: random.Random) -> str | None:
    """Two at once, in half of the cases with --wait; the second begins a little later."""
    waits = not command.shares and chance.random() < 0.5
    with workplace(command) as (folder, mark):
        both = []
        for _ in range(2):
            both.append(start(command, folder, mark, *(["--wait"] if waits else [])))
            time.sleep(chance.choice((0.0, chance.uniform(0, 0.5) * seconds)))
        codes, said = zip(*map(finish, both), strict=True)
        text = "\n".join(said)
        if any("Traceback" in each or "unexpected" in each for each in said):
            return f"traceback: {text[-300:]}"
        if command.shares or waits:
            if any(codes) and not (waits and sorted(codes) == [0, 2] and "exists already" in text):
                return f"exit codes {codes}: {text[-300:]}"
        elif sorted(codes) != [0, 2] or not ("works on it since" in text or "exists already" in text):
            return f"expected one to work and the other to say so, got exit codes {codes}: {text[-300:]}"
        if (folder / "log").exists() and sorted((folder / "log").read_text().split()) != ["0", "1"]:
            return f"notebooks were run twice: {(folder / 'log').read_text().split()}"
        return ended_well(command, folder, mark, expected, (0, text))


@contextmanager
def small_disk(size: int) -> Iterator[tuple[Path, Callable[[], object]] | None]:
    """A tmpfs of so many bytes and what makes it large; None where mounting is not permitted."""
    with tempfile.TemporaryDirectory() as name:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", name]
        if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
            yield None
            return
        try:
            yield Path(name), partial(subprocess.run, ["mount", "-o", "remount,size=512m", name], check=True)
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)


def disk(command: Command, expected: dict, seconds: float, chance: random.Random) -> str | None:
    """Too little room for what the command makes, then enough."""
    size = int(2 ** chance.uniform(14, 22))
    with small_disk(size) as mounted, workplace(command, mounted and mounted[0]) as (folder, mark):
        code, said = finish(start(command, folder, mark, limit=None if mounted else size))
        full = os.strerror(28) if mounted else os.strerror(27)
        if code and (
            code != 1 or full not in said or "Traceback" in said or len(re.findall("^error: ", said, re.MULTILINE)) != 1
        ):
            return f"on a disk of {size:,} bytes exit code {code}: {said[-400:]}"
        if not code:
            return ended_well(command, folder, mark, expected, (code, said))
        if mounted:
            mounted[1]()
        return ended_well(command, folder, mark, expected, finish(start(command, folder, mark)), refused=True)


ATTACKS = {"kills": kill, "pairs": pair, "disks": disk}


def chaos(counts: dict[str, int], seed: int = 0, names: tuple[str, ...] = tuple(COMMANDS)) -> list[str]:
    """So many of each attack, on the commands in turn; tells how it goes, and returns the defects."""
    chance, defects = random.Random(seed), []
    references = {name: undisturbed(COMMANDS[name]) for name in names}
    for attack, count in counts.items():
        for number in range(count):
            name = names[number % len(names)]
            if found := ATTACKS[attack](COMMANDS[name], *references[name], chance):
                defects.append(f"{attack[:-1]} {number} of {name}: {found}")
                print(defects[-1], flush=True)
            print(f"{attack}: {number + 1} of {count}, {len(defects)} defects", file=sys.stderr, flush=True)
    print(f"{' '.join(f'{count} {attack}' for attack, count in counts.items())}, {len(defects)} defects", flush=True)
    return defects


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for attack in ATTACKS:
        parser.add_argument(f"--{attack}", type=int, default=5, help="how many, over the commands in turn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", default=",".join(COMMANDS), help="which, separated by commas")
    options = parser.parse_args()
    counts = {attack: getattr(options, attack) for attack in ATTACKS}
    sys.exit(bool(chaos(counts, options.seed, tuple(options.commands.split(",")))))


if __name__ == "__main__":
    main()
