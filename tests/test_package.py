"""What people install: the wheel without a checkout, and what the sdist holds.

The wheel goes into an environment of its own that borrows the packages of this one; with SCIML_FM_FRESH=1 (`make
release-check`) it installs its own from the registry, and the sdist runs the README's first command.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_dashboard_browser import free_port
from test_extending import FILES

from sciml_fm_core import shipped_operators
from sciml_fm_core._version import __version__

ROOT = Path(__file__).resolve().parent.parent
FRESH = bool(os.environ.get("SCIML_FM_FRESH"))
SECONDS = 1200 if FRESH else 480

CLEAN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
"""No checkout is to be found."""

pytestmark = pytest.mark.timeout(2 * SECONDS)


def call(*command, cwd, **environment):
    """Output of a command that must succeed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd, env=CLEAN | environment, capture_output=True, text=True, timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Folder with the wheel and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", folder, cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """Scripts of an environment with the wheel, and an empty folder to work in."""
    folder = tmp_path_factory.mktemp("user")
    call(sys.executable, "-m", "venv", "--without-pip", folder / "environment", cwd=folder)
    scripts = folder / "environment" / "bin"
    (wheel,) = built.glob("*.whl")
    if FRESH:
        wanted = ["--constraint", ROOT / "constraints.txt", f"{wheel}[dashboard,notebooks]"]
    else:
        (site_of(scripts) / "borrowed.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
        wanted = ["--no-deps", wheel]
    pip = sys.executable, "-m", "pip", "--python", scripts / "python", "install", "--quiet"
    call(*pip, *wanted, cwd=folder)
    (folder / "work").mkdir()
    return scripts, folder / "work"


def site_of(scripts):
    """Where the packages of an environment are."""
    base = str(scripts.parent)
    return Path(sysconfig.get_path("purelib", "venv", {"base": base, "platbase": base}))


IN_TURN = """
import json, sys
from sciml_fm_core import __file__
from sciml_fm_core.cli import main
print(__file__, flush=True)
for sys.argv[1:] in json.loads(sys.argv[1]):
    main()
"""
"""Where the package is, and what commands of `sciml-fm` print, in one process."""


def in_turn(scripts, work, *commands):
    return call(scripts / "python", "-c", IN_TURN, json.dumps(commands), cwd=work, COLUMNS="200")


@contextmanager
def serving(*command, cwd):
    """A server started by a command, told to stop at the end; gives its address."""
    port = free_port()
    server = subprocess.Popen([*map(str, command), "--port", str(port), "--no-browser"], cwd=cwd, env=CLEAN)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=SECONDS)


def page(url):
    """The page once it is served."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return answer.read().decode()
        except OSError:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.5)


def test_the_wheel_works_without_a_checkout(installed):
    scripts, work = installed
    assert f"sciml-fm {__version__}, torch" in call(scripts / "sciml-fm", "--version", cwd=work)
    evaluate = ["evaluate", "symbol", "FRAC(0.5,2)", "--count", "8", "--resolution", "32", "--json"]
    told = in_turn(scripts, work, ["operators"], evaluate)
    assert told.startswith(str(scripts.parent)), "the installed package, not this checkout"
    assert all(name in told for name in shipped_operators())
    assert '"error"' in told


def test_the_wheel_brings_the_notebooks(installed):
    scripts, work = installed
    grid = "- notebook: mine/step_losses.ipynb\n  parameters: {budget: smoke, processes: 1, device: cpu}\n"
    (work / "grid.yaml").write_text(f"runs:\n{grid}", encoding="utf-8")
    assert "1 of 1 done" in in_turn(scripts, work, ["notebooks", "mine"], ["batch", "grid.yaml"])
    names = {path.name for path in (work / "mine").iterdir()}
    assert names == {path.name for path in (ROOT / "notebooks").iterdir() if path.suffix in (".ipynb", ".yaml")}


def test_the_wheel_brings_the_dashboard(installed):
    scripts, work = installed
    with serving(scripts / "sciml-fm", "explore", cwd=work) as address:
        assert "Explore pre-trained neural operators" in page(f"{address}/explore")
        assert "Studies" in page(f"{address}/studies")


OWN = """
import sys
from sciml_fm_core.companions import companion_folder
sys.path.insert(0, str(companion_folder("dashboards")))
from explorer.bundles import find_bundles
from explorer.compute import compute
from explorer.state import ExploreState
state = ExploreState(find_bundles()[0])
state.choose_system("biharmonic")
state.choose_bundle("own")
print(state.bundle.tasks[0].label, compute(state.query()).predictions["zero_shot"].relative_error)
"""
"""The explore page, without a browser, shows the operator ``own`` for the system of the plugin."""


def test_the_wheel_takes_plugins_and_own_operators(installed):
    """A package beside it brings an equation by its entry point, and an operator is trained for that."""
    scripts, work = installed
    site = site_of(scripts)
    (site / "plates.py").write_text(FILES["biharmonic.py"], encoding="utf-8")
    about = site / "plates-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plates\nVersion: 1.0\n", encoding="utf-8")
    (about / "entry_points.txt").write_text("[sciml_fm.systems]\nplates = plates\n", encoding="utf-8")
    options = ["--steps", 2, "--batch-size", 2, "--test-count", 2, "--resolution", 32, "--size", "64K"]
    (work / "runs").mkdir(exist_ok=True)
    own = work / "runs" / "own.safetensors"
    call(scripts / "sciml-fm", "pretrain", "BIHARMONIC(0.5,2)", *options, "--output", own, cwd=work)
    task, error = call(scripts / "python", "-c", OWN, cwd=work).split()
    assert task == "BIHARMONIC(0.5,2)"
    assert float(error) > 0


def test_the_citation_is_of_this_version():
    assert f"version: {__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8").split("\n")


def test_the_sdist_holds_what_the_two_commands_need(built, tmp_path):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (tree,) = tmp_path.iterdir()
    if not (ROOT / ".git").exists():
        pytest.skip("this is the sdist itself")
    tracked = set(call("git", "ls-files", cwd=ROOT).split("\n")) - {""}
    missing = {name for name in tracked if not (tree / name).is_file() and not name.startswith((".ci/", ".pre-commit"))}
    assert not missing
    if FRESH:
        call("make", "install", cwd=tree)
        with serving(tree / ".venv" / "bin" / "sciml-fm", "explore", cwd=tree) as address:
            assert "Explore pre-trained neural operators" in page(f"{address}/explore")
