"""Fixtures shared by the tests of the core: small, deterministic, on one thread."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest
import torch

from sciml_fm_core import FNO, PAPER_TASKS, SIZES, SYSTEMS, Evolution, FNOConfig, Operator, Task
from sciml_fm_core.models.normalization import fit_normalization
from sciml_fm_core.physics.spectral_system import is_spectral

DATA = Path(__file__).parent / "data"


def pytest_configure(config):
    torch.set_num_threads(1)  # the tensors are small, and test machines share their cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the kernels and commands that tests start
    os.environ["SCIML_FM_LIMIT_NICE"] = "1"  # of pages: tests wait for what is worked out beside other tests
    sys.modules["rfc3987_syntax"] = None  # jsonschema does without this grammar, which takes a second to build
    # A shell starts what is to run in its background with SIGINT ignored, and so would be all that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST = (
    "stage_browser", "notebooks", "site", "dashboard_browser", "studies_browser", "operator", "package", "batch",
    "chaos", "docs", "differential", "export", "player_browser", "cli", "study", "extending", "own_data_browser",
    "sessions", "public_browser", "distributed", "lessons", "evolution",
)  # fmt: skip
"""Files of half a minute and more, begun first, so that no process works alone at the end."""


def pytest_collection_modifyitems(items):
    order = {f"test_{name}.py": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Where several processes run the tests, those of one file share its fixtures, and those of the explore page it."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return "explore page" if re.search("(dashboard|player|stage)_browser.py$", file) else file

    config.option.loadscopereorder = False
    return Scheduling(config, log)


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    """A server of the explore page on what ships, where a file of tests has none of its own."""
    from test_dashboard_browser import served  # most tests need no browser

    folder = tmp_path_factory.mktemp("log")
    with served(folder, "dashboards/explore.py", SCIML_FM_OPERATORS=str(folder)) as url:
        yield f"{url}/explore"


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def generator():
    """A random stream of its own for every test."""
    return torch.Generator().manual_seed(1)


@pytest.fixture(
    params=[name for name, system in SYSTEMS.items() if is_spectral(system) and not isinstance(system, Evolution)]
)
def system(request):
    """Each of the known systems that has a symbol and no time; see `test_evolution` for the others."""
    return SYSTEMS[request.param]


@pytest.fixture(params=list(PAPER_TASKS))
def paper_system(request):
    """Each of the paper's systems."""
    return SYSTEMS[request.param]


@pytest.fixture
def task(system):
    """The pre-training task of the system; all of its dial where nothing is trained on it."""
    return Task(system, *system.shifts.get("pre-training", (system.dialled.low, system.dialled.high)))


@pytest.fixture
def times():
    """Function of a factor, a system and its coefficients: those of the operator times the factor."""

    def multiplied(factor, system, coefficients):
        return torch.tensor([factor ** (name != "exponent") for name in system.coefficient_names]) * coefficients

    return multiplied


@pytest.fixture(scope="session")
def small_operator():
    """Function making an untrained operator of a few thousand parameters."""

    def make(*labels, kind="dimensionless", width=8, modes=4, gate_width=8, seed=0, **card):
        tasks = [Task.parse(label) for label in labels or ("SYS-1(1,5)",)]
        normalization = fit_normalization(kind, tasks, count=64)
        config = FNOConfig(
            normalization.in_channels, width=width, modes=modes,
            gate_width=gate_width if normalization.channel_names else 0,
            mode_channels=normalization.mode_channels,
        )  # fmt: skip
        model = FNO(config, torch.Generator().manual_seed(seed))
        card = {
            "tasks": [task.label for task in tasks],
            "recipe": "dimensionless",
            "size": "tiny",
            "seed": seed,
            **card,
        }
        return Operator(model, normalization, card)

    return make


@pytest.fixture(scope="session")
def data_folder():
    """Folder of the reference arrays made by the paper's released code."""
    return DATA


@pytest.fixture
def registry():
    """What a test registers is forgotten after it."""
    before = dict(SYSTEMS)
    yield SYSTEMS
    SYSTEMS.clear()
    SYSTEMS.update(before)


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run a command in this process, in an empty folder; returns (exit code, output, errors)."""
    from sciml_fm_core import cli  # most tests need no command line

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setitem(SIZES, "tiny", {"width": 4, "modes": 4})

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["sciml-fm", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
