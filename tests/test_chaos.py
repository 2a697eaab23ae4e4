"""A handful of what `make chaos` and the command lines of the fuzz package do many of."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from attack import chaos, commands


def test_killed_started_twice_and_without_room():
    assert chaos.chaos({"kills": 1, "pairs": 1, "disks": 1}, seed=1, names=("generate",)) == []


def test_two_batches_share_the_notebooks_out():
    pytest.importorskip("papermill")
    assert chaos.chaos({"pairs": 1}, names=("batch",)) == []


def test_the_attacks_tell_of_defects(monkeypatch):
    """With a command that fails, and one whose results change from call to call."""
    with pytest.raises(SystemExit, match="nothing does not work undisturbed"):
        chaos.undisturbed(chaos.Command(("nothing",), lambda folder: {}))
    changing = chaos.Command(("operators",), lambda folder, calls=[]: {"calls": calls.append(0) or len(calls)})
    monkeypatch.setitem(chaos.COMMANDS, "changing", changing)
    (defect,) = chaos.chaos({"kills": 1}, names=("changing",))
    assert "other results than an undisturbed run" in defect


def test_odd_command_lines_are_answered(tmp_path):
    assert [defect for seed in range(40) if (defect := commands.attack(seed, tmp_path))] == []
    assert not list(tmp_path.iterdir())


def test_command_lines_that_end_in_a_traceback_are_found(tmp_path, monkeypatch):
    def broken(*_):
        raise KeyError("broken")

    monkeypatch.setattr(commands, "command", lambda chance: ["info", "sys-1"])
    assert commands.attack(0, tmp_path) is None
    monkeypatch.setattr(commands.cli, "read_header", broken)
    assert "unexpected KeyError" in commands.attack(0, tmp_path)
    monkeypatch.setattr(commands.cli, "app", lambda **_: sys.exit(3))
    assert "exit code 3" in commands.attack(0, tmp_path)
