"""The extensions of docs/extending.md work as printed: from outside the checkout, one file each."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from sciml_fm_core.study import read_table

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", TEXT, re.DOTALL))
COMMANDS = re.findall(r"^sciml-fm .+$", TEXT, re.MULTILINE)
LINES = {"biharmonic.py": 30, "heat.py": 30, "filter_network.py": 60, "sobolev.py": 17}
"""What each extension may take at most."""

SMALL = {"pretrain": ["--steps", "3", "--test-count", "2", "--batch-size", "4"], "adapt": ["--steps", "2"]}
SMALL["adapt"] += ["--test-count", "2", "--validation-count", "4"]
SMALL["evaluate"], SMALL["generate"] = ["--count", "2", "--json"], ["--resolution", "16", "--count", "4"]

ON_PAGE = f"""
import sys
sys.path.insert(0, {str(ROOT / "dashboards")!r})
from explorer.bundles import find_bundles
from explorer.compute import compute
from explorer.state import ExploreState
bundles, problems = find_bundles()
assert not problems, problems
state = ExploreState(bundles)
state.choose_system(sys.argv[1])
state.choose_bundle(sys.argv[2])
frame = compute(state.query())
assert frame.predictions["zero_shot"].relative_error > 0
print(state.bundle.label)
"""
"""What the explore page does with a system and a bundle, without a browser."""

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


@pytest.mark.parametrize(("name", "most"), LINES.items(), ids=LINES)
def test_extension_goes_through_the_command_line(name, most, tmp_path):
    code = FILES[name]
    assert len([line for line in code.splitlines() if line.strip()]) <= most
    (tmp_path / name).write_text(code, encoding="utf-8")
    stem = {"filter_network.py": "filter"}.get(name, name.removesuffix(".py"))
    section = next(part for part in TEXT.split("\n## ") if f"# {name}\n" in part)
    commands = [shlex.split(line) for line in COMMANDS if line in section]
    assert {command[1] for command in commands} >= {"pretrain", "adapt", "evaluate"}
    (tmp_path / "in_turn.py").write_text(IN_TURN, encoding="utf-8")
    small = []
    for _, verb, *arguments in commands:
        arguments = [re.sub(r"^0:32,0.85:64$", "32", argument) for argument in arguments]
        small.append([verb, *arguments, *SMALL[verb], *(["--size", "64K"] if verb == "pretrain" else [])])
    # What the first process leaves is all that the second one, which begins with the adaptation, knows.
    first = next(number for number, (verb, *_) in enumerate(small) if verb == "adapt")
    for several in (small[:first], [*small[first:], ["info", f"{stem}.safetensors"]]):
        done = run(tmp_path, f"./{name}", "in_turn", json.dumps(several))
        assert done.returncode == 0, done.stderr
    evaluation, card, _ = done.stdout.split("\f")[-3:]
    assert 0 < json.loads(evaluation)["error"] < 1e3
    assert "pre-trained" in card
    on_page = {"biharmonic.py": "biharmonic", "heat.py": "heat", "filter_network.py": "poisson"}.get(name)
    if on_page:
        (tmp_path / "page.py").write_text(ON_PAGE, encoding="utf-8")
        shown = run(tmp_path, f"./{name}", "page", on_page, f"{stem}")
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout.startswith(f"{stem}: ")


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


def test_low_rank_update_is_all_that_is_trained(tmp_path):
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
    code = f"import torch\ntorch.set_num_threads(1)\ntorch.manual_seed(0)\n{code}{check}"
    (tmp_path / "low_rank.py").write_text(code, encoding="utf-8")
    done = run(tmp_path, "", "low_rank")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("plugins", "message"),
    [
        ("./missing.py", "plugin left out: SCIML_FM_PLUGINS=.*missing.py: ImportError: no file"),
        ("no_such_module", "plugin left out: .*no module no_such_module; name an importable module, or a file"),
        ("./broken.py", "plugin left out: .*broken.py: SyntaxError"),
        ("./json.py", "plugin left out: .*json.py would hide the module json"),
        ("./nameless.py", "TypeError: system Nameless: expected the class attributes label, .*missing: label"),
    ],
)
def test_what_cannot_be_imported_is_left_out_and_said(plugins, message, tmp_path):
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "json.py").write_text("")
    (tmp_path / "nameless.py").write_text("from sciml_fm_core import System\nclass Nameless(System):\n    name = 'x'\n")
    code = "import sciml_fm_core; print(len(sciml_fm_core.SYSTEMS))"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SCIML_FM_PLUGINS": plugins}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout == "6\n"
    assert re.search(message, done.stderr)


@pytest.mark.parametrize(
    "ends", ["import sys; sys.exit()", "raise GeneratorExit", "import warnings; warnings.warn('old')"]
)
def test_a_plugin_ends_nothing_but_itself(ends, tmp_path):
    """Like reports that an optional extension takes the whole program with it, and leaves half of itself."""
    begun = "from sciml_fm_core.physics.poisson import Poisson\nclass Mine(Poisson):\n    name = label = 'MINE'\n"
    (tmp_path / "ending.py").write_text(begun + ends)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SCIML_FM_PLUGINS": "./ending.py"}
    code = "import sciml_fm_core; print(len(sciml_fm_core.SYSTEMS))"
    command = [sys.executable, "-W", "error", "-P", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (0, "6\n"), done.stderr
    assert re.search(r"plugin left out: SCIML_FM_PLUGINS=.*ending.py: \w+", done.stderr)
