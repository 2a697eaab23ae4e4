"""Fixtures shared by the tests of the core: small, deterministic, on one thread."""

import os
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
    # A shell starts what is to run in its background with SIGINT ignored, and so would be all that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST = (
    "test_notebooks.py",
    "test_package.py",
    "test_dashboard_browser.py",
    "test_stage_browser.py",
    "test_extending.py",
    "test_studies_browser.py",
    "test_dashboard_state.py",
    "test_study.py",
    "test_batch.py",
    "test_docs.py",
)
"""Begun first, so that no process works alone at the end."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Where several processes run the tests, those of one file share its fixtures."""
    from xdist.scheduler import LoadFileScheduling

    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


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
