"""The extensions of docs/extending.md work as printed: from outside the checkout, one file each."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sciml_fm_core import SYSTEMS, operator_of, train_from_scratch
from sciml_fm_core.study import read_table

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", TEXT, re.DOTALL))
COMMANDS = re.findall(r"^sciml-fm .+$", TEXT, re.MULTILINE)
LINES = {"biharmonic.py": 30, "heat.py": 30, "absorption.py": 42, "filter_network.py": 60, "sobolev.py": 17}
"""What each extension may take at most."""

TESTED = ["--test-count", "2", "--test-resolution", "32"]
SMALL = {
    "generate": ["--resolution", "16", "--count", "4"],
    "pretrain": ["--steps", "3", "--batch-size", "4", *TESTED],
    "adapt": ["--steps", "2", "--validation-count", "4", *TESTED],
    "evaluate": ["--count", "2", "--resolution", "32", "--json"],
}

STEMS = {name: name.removesuffix(".py").removesuffix("_network") for name in LINES}
"""What their commands call the operators."""

SYSTEMS_ON_PAGE = {"biharmonic": "biharmonic", "heat": "heat", "filter": "poisson", "absorption": "absorption"}

ON_PAGE = f"""
import json, sys
sys.path.insert(0, {str(ROOT / "dashboards")!r})
from explorer.bundles import find_bundles
from explorer.compute import compute
from explorer.state import ExploreState
bundles, problems = find_bundles()
assert not problems, problems
for bundle, system in json.loads(sys.argv[1]).items():
    state = ExploreState(bundles)
    state.choose_system(system)
    state.choose_bundle(bundle)
    frame = compute(state.query())
    assert frame.predictions["zero_shot"].relative_error > 0
    print(state.bundle.label)
"""
"""What the explore page does with bundles and systems, without a browser."""

IN_TURN = """
import json, sys
from sciml_fm_core.cli import main
for sys.argv[1:] in json.loads(sys.argv[1]):
    main()
    print("\\f", flush=True)
"""
"""Commands as `sciml-fm` takes them, in one process, with a page break after each."""


def run(folder, plugins, *arguments):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SCIML_FM_PLUGINS": plugins, "OMP_NUM_THREADS": "1"}
    environment |= {"SCIML_FM_OPERATORS": str(folder)}
    command = [sys.executable, "-W", "error", "-m", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)


def commands_of(name):
    """What the section on an extension tells to type, at a small size: to the pre-training, and from the adaptation."""
    section = next(part for part in TEXT.split("\n## ") if f"# {name}\n" in part)
    commands = [shlex.split(line)[1:] for line in COMMANDS if line in section]
    assert {verb for verb, *_ in commands} >= {"pretrain", "adapt", "evaluate"}
    small = []
    for verb, *arguments in commands:
        arguments = [re.sub(r"^0:32,0.85:64$", "32", argument) for argument in arguments]
        small.append([verb, *arguments, *SMALL[verb], *(["--size", "64K"] if verb == "pretrain" else [])])
    first = next(number for number, (verb, *_) in enumerate(small) if verb == "adapt")
    return small[:first], [*small[first:], ["info", f"{STEMS[name]}.safetensors"]]


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What the commands of each extension print, by its file, and what the page shows of some.

    All are typed in one folder, where each extension has its file. What the first process leaves is all that the second
    one, which begins with the adaptations, knows.
    """
    folder, parts = tmp_path_factory.mktemp("extensions"), {name: commands_of(name) for name in LINES}
    for name in LINES:
        (folder / name).write_text(FILES[name], encoding="utf-8")
    (folder / "in_turn.py").write_text(IN_TURN, encoding="utf-8")
    (folder / "page.py").write_text(ON_PAGE, encoding="utf-8")
    plugins, told = ",".join(f"./{name}" for name in LINES), {}
    for several in (0, 1):
        commands = [(name, command) for name in LINES for command in parts[name][several]]
        done = run(folder, plugins, "in_turn", json.dumps([command for _, command in commands]))
        assert done.returncode == 0, done.stderr
        for (name, _), text in zip(commands, done.stdout.split("\f"), strict=False):
            told.setdefault(name, []).append(text)
    done = run(folder, plugins, "page", json.dumps(SYSTEMS_ON_PAGE))
    assert done.returncode == 0, done.stderr
    return told, done.stdout.splitlines()


@pytest.mark.parametrize(("name", "most"), LINES.items(), ids=LINES)
def test_extension_goes_through_the_command_line(printed, name, most):
    assert len([line for line in FILES[name].splitlines() if line.strip()]) <= most
    evaluation, card = printed[0][name][-2:]
    assert 0 < json.loads(evaluation)["error"] < 1e3
    assert "pre-trained" in card


def test_extensions_are_on_the_page(printed):
    assert [line.split(":")[0] for line in printed[1]] == list(SYSTEMS_ON_PAGE)


def test_experiment_of_a_file_is_run_and_recorded(tmp_path):
    (tmp_path / "noisy_sources.py").write_text(FILES["noisy_sources.py"], encoding="utf-8")
    (command,) = [line for line in COMMANDS if line.startswith("sciml-fm study ")]
    for _ in range(2):  # the second time, from the records
        done = run(tmp_path, "./noisy_sources.py", "sciml_fm_core.cli", *shlex.split(command)[1:])
        assert done.returncode == 0, done.stderr
        table = tmp_path / "noisy-sources.csv"
        records = read_table(table)
        table.unlink()
    assert [record["noise"] for record in records] == [0.0, 0.3, 3.0]
    errors = [record["error"] for record in records]
    assert errors == sorted(errors)
    assert len(list((tmp_path / "runs" / "study").glob("*.json"))) == 3


def test_low_rank_update_is_all_that_is_trained(tmp_path, monkeypatch):
    """The plain bundle that is written predicts what the parametrized network does, and only the update moved."""
    check = (
        "\nagain = sciml_fm.load_operator('low-rank.safetensors')\nparent = sciml_fm.load_operator('sys-1')\n"
        "test = sciml_fm.draw_split(task, 'test', 16, resolution=64)\n"
        "def predict(o): return o.predict(test.source, test.coefficients)\n"
        "torch.testing.assert_close(predict(again), predict(tuned), rtol=1e-5, atol=1e-6)\n"
        "error = lambda o: sciml_fm.relative_error(predict(o), test.solution).mean()\n"
        "assert error(again) < error(parent), (error(again), error(parent))\n"
        "old, new = dict(parent.model.named_parameters()), dict(again.model.named_parameters())\n"
        "assert {name.split('.')[0] for name in old if not torch.equal(old[name], new[name])} == {'spectral'}\n"
        "update = (new['spectral.1.weight'] - old['spectral.1.weight']).detach()\n"
        "rank = torch.linalg.matrix_rank(update, rtol=1e-3)\nassert rank.max() == 2, rank\n"
    )
    brief = "batch_size=32, config=sciml_fm.TrainConfig(steps=25, validate_every=5))"
    code = FILES["low_rank.py"].replace("batch_size=32)", brief)
    monkeypatch.chdir(tmp_path)
    exec(f"import torch\n{code}{check}", {"__name__": "low_rank"})


def test_a_network_as_it_is(tmp_path, monkeypatch, capsys):
    a, nu = np.random.default_rng(0).normal(size=(60, 12, 10)).astype("f4"), np.linspace(0, 1, 60)
    np.savez(tmp_path / "own.npz", a=a, nu=nu, u=3 + 100 * (1 + nu[:, None, None]) * a)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "own_network"}
    exec(FILES["own_network.py"].replace("steps=2000, validate_every=100", "steps=60, validate_every=20"), names)
    assert float(capsys.readouterr().out.strip().rstrip("%")) < 40
    trained, build = names["trained"], names["nn"].Sequential
    assert trained.card["kind"] == "fine-tuned"
    with pytest.raises(ValueError, match=r"could not build module Sequential again; save the state_dict\(\) of"):
        trained.save("network.safetensors")
    with pytest.raises(ValueError, match="nothing says how a module of yours is built"):
        train_from_scratch(trained, names["parts"]["train"])
    wide = operator_of(build(names["nn"].Conv2d(1, 2, 1)), "a", "u")
    with pytest.raises(ValueError, match=r"module Sequential: expected to return \(3, 1, 8, 8\), got \(3, 2, 8, 8\)"):
        wide.predict(torch.ones(3, 8, 8), torch.ones(3, 0))


BEGUN = "from sciml_fm_core.physics.poisson import Poisson\nclass Mine(Poisson):\n    name = label = 'MINE'\n"
PLUGINS = {
    "./missing.py": (None, "ImportError: no file"),
    "no_such_module": (None, "no module no_such_module; name an importable module, or a file"),
    "./broken.py": ("def (", "SyntaxError"),
    "./json.py": ("", "json.py would hide the module json"),
    "./nameless.py": (
        "from sciml_fm_core import SpectralSystem\nclass Nameless(SpectralSystem):\n    name = 'x'\n",
        "TypeError: system Nameless: expected the class attributes label, .*missing: label",
    ),
    "./exits.py": (BEGUN + "import sys; sys.exit()", "SystemExit"),
    "./closes.py": (BEGUN + "raise GeneratorExit", "GeneratorExit"),
    "./warns.py": (BEGUN + "import warnings; warnings.warn('old')", "UserWarning: old"),
}
"""What cannot be imported, by what names it: content of its file, and what is said of it."""


def test_a_plugin_ends_nothing_but_itself_and_it_is_said(tmp_path):
    """Like reports that an optional extension takes the whole program with it, and leaves half of itself."""
    for name, (content, _) in PLUGINS.items():
        if content is not None:
            (tmp_path / name).write_text(content)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SCIML_FM_PLUGINS": ",".join(PLUGINS)}
    code = "import sciml_fm_core; print(len(sciml_fm_core.SYSTEMS))"
    command = [sys.executable, "-W", "error", "-P", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    ours = sum(type(system).__module__.startswith("sciml_fm_core.") for system in SYSTEMS.values())
    assert (done.returncode, done.stdout) == (0, f"{ours}\n"), done.stderr
    said = [line for line in done.stderr.splitlines() if "plugin left out" in line]
    for (name, (_, message)), line in zip(PLUGINS.items(), said, strict=True):
        assert re.search(rf"plugin left out: SCIML_FM_PLUGINS=.*{name.removeprefix('./')}: .*{message}", line)
