"""The README and the pages of docs: links lead somewhere, numbers are of records, snippets and commands run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]
COMMANDS = re.findall(r"^(?:sciml-fm|papermill) .+$", README, re.MULTILINE)
SMALLER = {
    "evaluate": ["--count", "2"], "adapt": ["--examples", "4", "--steps", "2", "--test-count", "2"],
    "generate": ["--count", "4", "--resolution", "16"],
    "pretrain": ["--steps", "3", "--test-count", "2", "--batch-size", "4", "--resolution", "32"],
}  # fmt: skip


def run(command, folder):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)


def test_readme_is_short():
    assert len(README.splitlines()) <= 135


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_numbers_are_of_the_records():
    done = run([sys.executable, str(ROOT / "docs" / "fill_numbers.py"), "--check"], ROOT)
    assert done.returncode == 0, done.stderr


def test_python_of_the_readme(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "snippet.py").write_text(code.replace("sample(64,", "sample(8,"), encoding="utf-8")
    done = run([sys.executable, "snippet.py"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"zero-shot [\d.]+%\nfine-tuned [\d.]+%\n", done.stdout)


def test_commands_of_the_readme(tmp_path):
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    assert len(COMMANDS) >= 7
    for line in COMMANDS:
        program, *arguments = shlex.split(line, comments=True)
        if program == "papermill":
            command = [sys.executable, "-m", "papermill", *arguments, "--no-progress-bar", "-p", "budget", "smoke"]
        else:
            command = [sys.executable, "-m", "sciml_fm_core.cli", *arguments, *SMALLER.get(arguments[0], [])]
        done = run(command, tmp_path)
        assert done.returncode == 0, (line, done.stderr)
