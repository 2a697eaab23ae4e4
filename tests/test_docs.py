"""The README and the pages of docs: links lead somewhere, numbers are of records, snippets and commands run."""

import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from sciml_fm_core import cli
from sciml_fm_core.models.operator import read_header, shipped_operators

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]


def lines_of(text):
    """Command lines of the sh blocks, without comments."""
    blocks = re.findall(r"^ *```sh\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    return [shlex.split(line, comments=True) for line in "".join(blocks).splitlines() if line.strip()]


SMALLER = {
    "evaluate": ["--count", "2", "--resolution", "32"],
    "adapt": ["--examples", "4", "--steps", "2", "--test-count", "2", "--validation-count", "4"],
    "generate": ["--count", "4", "--resolution", "16"],
    "pretrain": ["--steps", "3", "--test-count", "2", "--batch-size", "4", "--resolution", "32"],
}  # fmt: skip


def run(command, folder):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)


def numbers(text):
    return [float(number) for number in re.findall(r"[\d.]+(?=%)", text)]


def test_readme_is_short():
    assert len(README.splitlines()) <= 130


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if not target.startswith("http"):
            assert (page.parent / path).exists(), target
            if anchor:
                headings = re.findall(r"^#+ (.+)$", (page.parent / path).read_text(encoding="utf-8"), re.MULTILINE)
                assert anchor in [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]


def test_numbers_are_of_the_records():
    for path, after in runpy.run_path(str(ROOT / "docs" / "fill_numbers.py"))["filled_pages"]().items():
        assert path.read_text(encoding="utf-8") == after, f"{path.name}: run python docs/fill_numbers.py"
    card = read_header(shipped_operators()["sys-1"]).card
    assert f"mean relative error {card['errors']['SYS-1(5,10)']:.2%} on 512 examples at 128 x 128" in README


def printed_by(code, capsys):
    """What a program prints that is run here, in a namespace of its own."""
    exec(code, {})
    return capsys.readouterr().out


def test_python_of_the_readme(capsys):
    """As printed; the errors that the README states come out, to what another processor changes."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    printed = printed_by(code, capsys)
    assert re.fullmatch(r"zero-shot [\d.]+%\nfine-tuned [\d.]+%\n", printed)
    stated = re.search(r"prints `zero-shot .*", README)[0]
    assert numbers(printed) == pytest.approx(numbers(stated), rel=0.1)


def test_python_of_the_results(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", RESULTS, re.DOTALL)
    (stated,) = re.findall(r"```text\n(.*?)```", RESULTS, re.DOTALL)
    printed = printed_by(code, capsys)
    assert re.sub(r"[\d.]+%", "", printed) == re.sub(r"[\d.]+%", "", stated)
    assert numbers(printed) == pytest.approx(numbers(stated), rel=0.1)


def test_commands_of_the_readme(tmp_path, monkeypatch):
    """Commands of `sciml-fm` in this process; `test_package` starts it as a program."""
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    monkeypatch.chdir(tmp_path)
    commands = [line for line in lines_of(README) if line[0] != "make"]
    assert len(commands) >= 7
    for program, *arguments in commands:
        if program == "papermill":
            smaller = ["--no-progress-bar", "--start-timeout", "300", "-p", "budget", "smoke", "-p", "processes", "1"]
            done = run([sys.executable, "-m", "papermill", *arguments, *smaller], tmp_path)
            assert done.returncode == 0, (arguments, done.stderr)
        else:
            assert program == "sciml-fm"
            smaller = SMALLER.get(arguments[0], [])
            if "--physics" in arguments:  # it takes no examples
                smaller = smaller[2:]
            monkeypatch.setattr(sys, "argv", ["sciml-fm", *arguments, *smaller])
            cli.main()  # exits where it fails, which fails the test


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_are_understood(page):
    """Also those that open a server, need a cluster or take hours: targets and options exist, values are parsed."""
    commands = typer.main.get_command(cli.app).commands
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for program, *arguments in lines_of(page.read_text(encoding="utf-8")):
        if program == "make":
            assert arguments[0] in targets
        if program == "torchrun":
            program, arguments = "sciml-fm", arguments[arguments.index("sciml_fm_core.cli") + 1 :]
        if program == "sciml-fm":
            commands[arguments[0]].make_context(arguments[0], arguments[1:])
