"""Several processes train one operator: the weights of one process to rounding, one writer, one decision to stop."""

import errno
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import multiprocessing

from sciml_fm_core import (
    FNO,
    DatasetFile,
    FixedBatches,
    FNOConfig,
    FreshBatches,
    Operator,
    Task,
    TrainConfig,
    cli,
    draw_split,
    fit,
    generate,
    load_operator,
    pretrain,
)
from sciml_fm_core.models.normalization import fit_normalization
from sciml_fm_core.training import checkpoints as checkpoints_module
from sciml_fm_core.training import loop as training_module
from sciml_fm_core.training.distributed import ALONE, Processes, started_by_torchrun
from sciml_fm_core.training.loop import Member, fit_together

ROOT = Path(__file__).resolve().parent.parent
POISSON, HELMHOLTZ = Task.parse("SYS-1(1,5)"), Task.parse("SYS-3(1,10)")
CONFIG = TrainConfig(steps=9, learning_rate=3e-3, report_every=1, validate_every=3, checkpoint_every=4)
COUNT = 10
"""Examples in a file: epochs end with a smaller batch."""


# What is run, in one process or in two --------------------------------------------------------------------------------


def train(processes, tasks, *, gate_width=8, files=None, config=CONFIG, seed=0, spoil=False, stop_at=None, **settings):
    """A small operator after a training, as plain values."""
    normalization = fit_normalization("dimensionless", tasks, count=64)
    shape = FNOConfig(normalization.in_channels, width=8, modes=4, gate_width=gate_width)
    operator = Operator(FNO(shape, torch.Generator().manual_seed(seed)), normalization)
    share = processes.rank, processes.world_size
    data = FreshBatches(tasks, 6, resolution=16, share=share)
    if files:
        sets = [DatasetFile(files / f"{task.system.name}.h5") for task in tasks]
        data = FixedBatches([(file.system, file) for file in sets], 6, share=share)
    draw = data.batch

    def batch(step, progress):
        if step == stop_at:
            signal.raise_signal(signal.SIGINT)
        parts = draw(step, progress)
        return [(s, each._replace(solution=each.solution * torch.nan)) for s, each in parts] if spoil else parts

    data.batch = batch
    validation = [(task.system, draw_split(task, "validation", 6, resolution=16)) for task in tasks]
    history = fit(operator, data, config, validation=validation, processes=processes, **settings)
    return {
        "weights": dict(operator.model.state_dict()),
        "losses": [row["loss"] for row in history.rows],
        "errors": [row["validation_error"] for row in history.rows],
        "best": [history.best_error, history.best_step],
        "seen": history.examples_seen,
        "stopped": history.stopped,
    }


SCENARIOS = {
    "plain, fresh": {"tasks": [HELMHOLTZ], "gate_width": 0},
    "gated, fresh": {"tasks": [HELMHOLTZ]},
    "plain, fixed": {"tasks": [HELMHOLTZ], "gate_width": 0, "files": True},
    "gated, fixed": {"tasks": [HELMHOLTZ], "files": True},
    "mixture, fresh": {"tasks": [POISSON, HELMHOLTZ]},
    "mixture, fixed": {"tasks": [POISSON, HELMHOLTZ], "files": True},
}


def refused(call):
    """What a call raises, as text."""
    try:
        call()
    except (ValueError, OSError, KeyboardInterrupt) as error:
        return f"{type(error).__name__}: {error}"


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def in_two_processes(rank, port, folder):
    """What each of the two does; its results go to a file of its own."""
    torch.set_num_threads(1)
    values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in values.items()})
    results = {}
    with started_by_torchrun("cpu") as (processes, device):
        results["processes"] = [processes.rank, processes.world_size, device, torch.distributed.get_backend()]
        for name, settings in SCENARIOS.items():
            files = folder if settings.get("files") else None
            results[name] = train(processes, **settings | {"files": files})

        # Each asks to stop at its own step; then all go on from the checkpoint, at once, which only the first can read.
        settings, asked = {"tasks": [HELMHOLTZ], "checkpoint": folder / "state"}, []

        def stop(progress):
            asked.append(progress.step)
            return progress.step == 6 - 3 * rank

        results["stopped"] = train(processes, **settings, callback=stop) | {"asked": asked}
        settings["checkpoint"] = folder / ("absent" if rank else "state")
        results["resumed"] = train(processes, **settings, seed=5 * rank)
        settings["config"] = replace(CONFIG, learning_rate=1e-3)
        results["refused"] = refused(lambda: train(processes, **settings))
        results["not finite"] = refused(lambda: train(processes, [HELMHOLTZ], files=folder, spoil=rank == 1))

        # The disk of the first is full; the second gets a signal; then there is room again.
        write, settings = checkpoints_module.save_tensors, {"tasks": [HELMHOLTZ], "checkpoint": folder / "full"}
        checkpoints_module.save_tensors = full_disk
        results["full"] = refused(lambda: train(processes, **settings))
        checkpoints_module.save_tensors = write
        stopping = {"stop_at": 4 if rank else None}
        results["signalled"] = refused(lambda: train(processes, **settings, **stopping))
        results["after"] = train(processes, **settings)

        # The clock of the second stands still.
        if rank:
            training_module.time = SimpleNamespace(perf_counter=lambda: 0.0)
        limited = TrainConfig(steps=10**6, time_limit=0.5, validate_every=10**6, report_every=10**6)
        results["limited"] = train(processes, [HELMHOLTZ], config=limited, checkpoint=folder / f"written by {rank}")
    threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]  # none where there is no Linux
    results["ended"] = not (torch.distributed.is_initialized() or any("gloo" in name for name in threads))
    torch.save(results, folder / f"{rank}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folder with a dataset for each system."""
    path = tmp_path_factory.mktemp("distributed")
    for task in (POISSON, HELMHOLTZ):
        generate(task, path / f"{task.system.name}.h5", COUNT, resolution=16)
    return path


@pytest.fixture(scope="module")
def pair(folder):
    """Results of the two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(in_two_processes, args=(port, folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


def assert_same_training(result, expected):
    """To rounding, which Adam may blow up where a gradient is nearly nothing."""
    for key, value in expected["weights"].items():
        torch.testing.assert_close(result["weights"][key], value, rtol=1e-3, atol=1e-4)
    assert result["losses"] == pytest.approx(expected["losses"], rel=1e-4)
    assert result["best"] == pytest.approx(expected["best"], rel=1e-4)
    assert result["seen"] == expected["seen"]


# Two processes against one --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCENARIOS)
def test_two_processes_end_with_the_weights_of_one(pair, folder, name):
    settings = SCENARIOS[name]
    alone = train(ALONE, **settings | {"files": folder if settings.get("files") else None})
    for result in pair:
        assert_same_training(result[name], alone)
    for key, value in pair[0][name]["weights"].items():
        assert torch.equal(pair[1][name]["weights"][key], value)  # between the two, to the last bit


def test_torchruns_variables_start_and_end_the_group(pair):
    assert [result["processes"] for result in pair] == [[0, 2, "cpu", "gloo"], [1, 2, "cpu", "gloo"]]
    assert all(result["ended"] for result in pair)
    with started_by_torchrun("cpu") as started:
        assert started == (ALONE, "cpu")
        assert not torch.distributed.is_initialized()


def test_the_first_decides_when_to_stop(pair):
    for result in pair:
        assert result["stopped"]["stopped"]
        assert len(result["stopped"]["losses"]) == 6
    assert [result["stopped"]["asked"] for result in pair] == [[1, 2, 3, 4, 5, 6], []]


def test_resumed_training_is_the_uninterrupted_one(pair):
    for result in pair:
        for key, value in result["gated, fresh"]["weights"].items():
            assert torch.equal(result["resumed"]["weights"][key], value)
        assert result["resumed"]["losses"] == result["gated, fresh"]["losses"]


def test_what_goes_wrong_on_one_rank_is_raised_on_all(pair):
    """Like reports on data-parallel trainings that hang when one of the ranks alone has failed."""
    for result in pair:
        assert "config.learning_rate.0: 0.003 in the file, 0.001 asked for" in result["refused"]
        assert result["not finite"].startswith(
            "ValueError: training data: expected finite numbers, got NaN or infinity"
        )
        assert result["full"] == "OSError: [Errno 28] No space left on device"
        assert result["signalled"].startswith("KeyboardInterrupt: stopped: 5 of 9 steps are taken and are kept in ")
        for key, value in result["gated, fresh"]["weights"].items():
            assert torch.equal(result["after"]["weights"][key], value)


def test_a_time_limit_ends_all_at_one_step(pair):
    seen = [result["limited"]["seen"] for result in pair]
    assert seen[0] == seen[1] > 0
    assert pair[0]["limited"]["best"] == pair[1]["limited"]["best"]


def test_the_first_alone_writes_checkpoints(pair, folder):
    assert [(folder / f"written by {rank}").exists() for rank in (0, 1)] == [True, False]


# Shares ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("count", [2, 3, 6])
def test_shares_are_the_batch_dealt_out(fixed, count):
    tasks, sizes = [POISSON, HELMHOLTZ, POISSON], (4, 7, 1)

    def batches(share):
        if not fixed:
            return FreshBatches(tasks, 6, resolution=8, share=share)
        sets = [draw_split(task, "train", size, resolution=8) for task, size in zip(tasks, sizes, strict=True)]
        return FixedBatches([(task.system, data) for task, data in zip(tasks, sets, strict=True)], 6, share=share)

    def rows(parts):
        return [(system.name, *source[0].tolist()) for system, examples in parts for source in examples.source]

    whole, shares = batches((0, 1)), [batches((rank, count)) for rank in range(count)]
    for step in range(4):
        dealt = [rows(share.batch(step, 0)) for share in shares]
        assert {len(each) for each in dealt} == {6 // count}
        assert sorted(row for each in dealt for row in each) == sorted(rows(whole.batch(step, 0)))


def test_unequal_shares_are_refused(folder):
    with pytest.raises(ValueError, match="batch size: expected a multiple of the number of processes, 2, got 5"):
        pretrain([POISSON], size="64K", batch_size=5, processes=Processes(1, 2))
    with DatasetFile(folder / "poisson.h5") as file:
        with pytest.raises(ValueError, match="batch size: expected a multiple of the number of processes, 4, got 6"):
            FixedBatches([(file.system, file)], 6, share=(0, 4))
        with pytest.raises(ValueError, match=r"number of examples: expected a multiple of .* processes, 4, got 10"):
            FixedBatches([(file.system, file)], 8, share=(0, 4))


def test_several_members_are_refused(small_operator):
    members = [Member(small_operator(), rate) for rate in (1e-4, 1e-3)]
    with pytest.raises(ValueError, match="several processes: expected one operator to train, got 2"):
        fit_together(members, None, CONFIG, processes=Processes(0, 2))


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for key, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(key, value)
    with (
        pytest.raises(ValueError, match="process 1 has no GPU of its own; start at most 1, or use --device cpu"),
        started_by_torchrun("cuda"),
    ):
        pass


# The command ----------------------------------------------------------------------------------------------------------


def test_torchrun_writes_one_bundle(tmp_path, monkeypatch, capsys):
    arguments = [
        "pretrain", "SYS-3(1,10)", "--size", "64K", "--steps", "4", "--batch-size", "4", "--resolution", "16",
        "--test-count", "0", "--device", "cpu", "--checkpoint", "state",
    ]  # fmt: skip
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "sciml_fm_core.cli", *arguments, "--output", "two.safetensors"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500)
    assert ran.returncode == 0, ran.stderr
    assert "Warning" not in ran.stderr
    assert ran.stdout.count("two.safetensors") == 3  # title, command, and the line after the card
    assert ran.stderr.count("SYS-3(1,10): step 4") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state", "two.safetensors"]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sciml-fm", *arguments[:-1], "state of one", "--output", "one.safetensors"])
    cli.main()
    assert "one.safetensors" in capsys.readouterr().out
    one, two = (load_operator(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    for key, value in one.model.state_dict().items():
        torch.testing.assert_close(two.model.state_dict()[key], value, rtol=1e-3, atol=1e-4)
    assert two.card["examples_seen"] == one.card["examples_seen"] == 16
    assert two.card["hardware"] == f"2 x {one.card['hardware']}"
