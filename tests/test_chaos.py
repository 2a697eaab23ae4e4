"""A handful of what `make chaos` does many of."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from attack import chaos


def test_killed_started_twice_and_without_room():
    assert chaos.chaos({"kills": 1, "pairs": 1, "disks": 1}, seed=1, names=("generate",)) == []


def test_two_batches_share_the_notebooks_out():
    pytest.importorskip("papermill")
    assert chaos.chaos({"pairs": 1}, names=("batch",)) == []


def test_the_attacks_tell_of_defects(monkeypatch):
    """With a command that fails, and one whose results change from call to call."""
    with pytest.raises(SystemExit, match="nothing does not work undisturbed"):
        chaos.undisturbed(chaos.Command(("nothing",)))
    calls = []
    monkeypatch.setattr(chaos, "products", lambda folder: {"calls": calls.append(0) or len(calls)})
    (defect,) = chaos.chaos({"kills": 1}, names=("generate",))
    assert "other results than an undisturbed run" in defect
