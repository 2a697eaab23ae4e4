"""A few hundred cases of ``python -m tests.attack``; thousands are run by hand, see docs/reliability.md."""

import pytest
from attack import runner

KINDS = runner.find_kinds()


@pytest.mark.parametrize("name", KINDS)
def test_bad_cases_are_refused_in_one_line(name, tmp_path, monkeypatch):
    module = KINDS[name]
    for variable in ("SCIML_FM_OPERATORS", "SCIML_FM_RECORDS"):
        monkeypatch.setenv(variable, str(tmp_path))  # attacks set them, and they are put back afterwards
    if name == "records":
        monkeypatch.setattr("explorer.records.shipped_tables", dict)
    if hasattr(module, "prepare"):
        module.prepare()
    found = {seed: runner.run_case(module, seed, tmp_path) for seed in range(30)}
    assert {seed: wrong for seed, wrong in found.items() if wrong} == {}


class Hanging:
    """A kind that is wrong in each way that a case can be."""

    @staticmethod
    def attack(seed, folder):
        if seed == 0:
            raise KeyError("let out")
        if seed == 1:
            while True:
                pass
        return "wrong" if seed == 2 else None


def test_the_runner_finds_defects(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "SECONDS", 1)
    found = [runner.run_case(Hanging, seed, tmp_path) for seed in range(4)]
    assert found[0].startswith("KeyError: 'let out' (test_attack.py:")
    assert found[1].startswith("TimeoutError: more than 1 s")
    assert found[2:] == ["wrong", None]
    assert list(tmp_path.iterdir()) == []
