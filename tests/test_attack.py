"""Some cases of each kind of ``python -m tests.attack``; thousands are run by hand, see docs/reliability.md."""

from unittest.mock import Mock

import pytest
from attack import calls, runner


@pytest.mark.parametrize("name", runner.KINDS)
def test_bad_cases_are_refused_in_one_line(name, tmp_path, monkeypatch):
    for variable in ("SCIML_FM_OPERATORS", "SCIML_FM_RECORDS"):
        monkeypatch.setenv(variable, str(tmp_path))  # attacks set them, and they are put back afterwards
    monkeypatch.setattr("explorer.studies.records.shipped_tables", dict)
    found = {seed: runner.run_case(runner.KINDS[name], seed, tmp_path) for seed in range(30)}
    assert {seed: wrong for seed, wrong in found.items() if wrong} == {}
    assert list(tmp_path.iterdir()) == []


def test_defects_are_found(tmp_path, monkeypatch):
    """With a case that is wrong in each way that one can be, and commands that fail."""

    def case(seed, folder):
        if seed == 0:
            raise KeyError("let out")
        while seed == 1:
            pass
        return "wrong" if seed == 2 else None

    monkeypatch.setattr(runner, "SECONDS", 1)
    found = [runner.run_case(case, seed, tmp_path) for seed in range(4)]
    assert found[0].startswith("KeyError: 'let out' (test_attack.py:")
    assert found[1].startswith("TimeoutError: more than 1 s")
    assert found[2:] == ["wrong", None]
    monkeypatch.setattr(runner, "SECONDS", 10)
    monkeypatch.setattr(calls, "command", lambda rng: ["info", "sys-1"])
    for error, told in ((SystemExit(3), "exit code 3"), (KeyError("broken"), "unexpected KeyError")):
        monkeypatch.setattr(calls.cli, "app", Mock(side_effect=error))
        assert told in runner.run_case(calls.command_line, 0, tmp_path)
