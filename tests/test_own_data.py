"""Fields without an equation, from a file to an operator and its band: by commands as an engineer types them."""

import json
import re
import shlex
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from test_cli import refused

from sciml_fm_core import evaluate, fine_tune, load_operator, operator_of
from sciml_fm_core.data.layout import Layout
from sciml_fm_core.data.own import open_splits
from sciml_fm_core.experiments.uncertainty.bands import Band, calibrated_band
from sciml_fm_core.experiments.uncertainty.ensemble import load_ensemble, pretrain_ensemble
from sciml_fm_core.physics.examples import Examples
from sciml_fm_core.physics.unknown import UnknownSystem
from sciml_fm_core.training.config import TrainConfig

N, NY, NX = 100, 12, 10
FEW = ("--steps", 3, "--batch-size", 4)


def fields(count=N, seed=0):
    """``u = (1 + nu) a`` with a boundary layer, on a grid that is not square."""
    random = np.random.default_rng(seed)
    a, nu = random.normal(size=(count, NY, NX)).astype("f4"), random.uniform(size=count)
    return {"a": a, "nu": nu, "u": (1 + nu[:, None, None]) * a + np.linspace(0, 1, NX)}


@pytest.fixture
def own(tmp_path):
    np.savez(tmp_path / "own.npz", **fields())
    np.savez(tmp_path / "new.npz", **fields(50, 1))
    return ("--data", "own.npz", "--inputs", "a", "--targets", "u", "--scalars", "nu")


def test_commands_of_the_page(run, own, monkeypatch):
    """As an engineer types them, in a folder with two files; and the ensemble."""
    page = (Path(__file__).parent.parent / "docs" / "own_data.md").read_text(encoding="utf-8")
    small = {"pretrain": FEW, "adapt": FEW}
    commands = re.findall(r"^sciml-fm (.+)$", page, re.MULTILINE)
    assert len(commands) == 7
    served = []
    monkeypatch.setattr("sciml_fm_core.cli.serve_dashboard", lambda *_, **options: served.append(options))
    printed = []
    for verb, *arguments in map(shlex.split, commands):
        code, out, err = run(verb, *arguments, *small.get(verb, ()))
        assert code == 0, err
        printed.append(out)
    assert served[0]["operators"] == [Path("own.safetensors")]
    assert served[0]["opens"] == "explore?page=data&operator=own"
    out = next(text for text in reversed(printed) if "band" in text)
    assert "The band holds 90% of the points" in out
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code.replace("members=4", "members=2, batch_size=4, config=sciml_fm.TrainConfig(steps=2)"), {})


def test_three_commands(run, own, tmp_path):
    code, out, _ = run("info", "own.npz")
    assert (code, out.splitlines()[-1]) == (0, "Try: sciml-fm pretrain " + " ".join(own))
    code, out, err = run("pretrain", *own, *FEW, "--output", "own.safetensors")
    assert "Look at it: sciml-fm explore own.safetensors" in out
    assert code == 0, err
    operator = load_operator("own.safetensors")
    card = operator.card
    assert (card["data"][0]["examples"], card["data"][0]["split"], card["validation"][0]["examples"]) == (
        68,
        "train",
        16,
    )
    assert (operator.model.config.modes, operator.model.config.margin, operator.model.config.fill) == (
        5,
        0.25,
        "learned",
    )
    measured = json.loads(run("evaluate", "own.safetensors", "--data", "own.npz", "--band", "--json")[1])
    assert (measured["examples"], measured["data"]["split"]) == (16, "test")
    assert measured["error"] == pytest.approx(card["errors"]["own.npz, test"])
    assert 0 <= measured["band"]["held"] <= 1
    refused(run("evaluate", "own.safetensors", "--data", "own.npz", "--symmetries"), "--symmetries has no effect on a")
    code, out, _ = run("evaluate", "own.safetensors", "--data", "new.npz", "--band")
    assert code == 0
    said = " ".join(out.split())
    assert "50 examples, 12 x 10, all of the file" in said
    assert "The band holds 90% of the points in" in said

    (tmp_path / "own.npz.yaml").write_text("inputs: a\ntargets: u\nscalars: nu\nseed: 1\n")
    again = ("pretrain", "--data", "own.npz", *FEW, "--start", "own.safetensors", "--output", "again.safetensors")
    code, _, err = run(*again)
    assert code == 0, err
    layouts = [load_operator(name).card["data"][0]["layout"] for name in ("own.safetensors", "again.safetensors")]
    assert layouts[0] == layouts[1]  # what the start was tested on it is not trained on
    (tmp_path / "own.npz.yaml").unlink()

    adapt = ("adapt", "own.safetensors", "--data", "new.npz", *FEW, "--examples", 8, "--json")
    tuned = json.loads(run(*adapt, "--output", "tuned.safetensors")[1])
    scratch = json.loads(run(*adapt, "--scratch", "--output", "scratch.safetensors")[1])
    assert (tuned["examples"], tuned["start"], scratch["start"]) == (8, "fine-tuned", "scratch")
    tuned, scratch = load_operator("tuned.safetensors"), load_operator("scratch.safetensors")
    assert tuned.normalization.centre == operator.normalization.centre != scratch.normalization.centre
    parts = open_splits("new.npz", Layout("a", "u", "nu"))
    assert tuned.card["errors"]["new.npz, test"] == pytest.approx(evaluate(tuned, data=parts["test"])["error"])
    for data, count in (("new.npz", 10), ("own.npz", 16)):
        out = run("evaluate", "tuned.safetensors", "--data", data)[1]
        assert f"{count} examples" in out
        assert "the test split of a file that it was trained on" in " ".join(out.split())


def test_another_file_has_other_names(run, own, tmp_path):
    run("pretrain", *own, *FEW)
    values = fields(5, 2)
    np.savez(tmp_path / "named.npz", **{"k": values["a"], "temperature": values["u"], "speed": values["nu"]})
    measure = ("evaluate", "operator.safetensors", "--data", "named.npz", "--scalars", "nu=speed", "--targets")
    refused(
        run(*measure, "temperature", "--inputs", "k"), "trained for a, nu to u, got k, nu to temperature; say which"
    )
    code, _, err = run(*measure, "u=temperature", "--inputs", "a=k")
    assert code == 0, err


def test_splits_of_a_yaml_and_of_options(run, own, tmp_path):
    (tmp_path / "own.npz.yaml").write_text("inputs: a\ntargets: u\nscalars: nu\nperiodic: true\nsplits: {test: 0.3}\n")
    code, _, err = run("pretrain", "--data", "own.npz", "--validation", "new.npz", *FEW, "--size", "tiny")
    assert code == 0, err
    operator = load_operator("operator.safetensors")
    assert not operator.model.config.margin
    assert operator.card["data"][0]["layout"]["splits"] == {"test": 0.3, "validation": "new.npz"}
    assert (operator.card["data"][0]["examples"], operator.card["validation"][0]["examples"]) == (70, 50)
    (tmp_path / "own.npz.yaml").unlink()
    assert "30 examples" in run("evaluate", "operator.safetensors", "--data", "own.npz")[1]


def test_a_dataset_of_ours_needs_no_task(run, tmp_path):
    run("generate", "SYS-1(1,5)", "--count", 6, "--resolution", 16)
    code, _, err = run("pretrain", "--data", "dataset.h5", "--size", "tiny", "--steps", 2, "--test-count", 0)
    assert code == 0, err
    assert load_operator("operator.safetensors").card["tasks"] == ["SYS-1(1,5)"]


@pytest.mark.parametrize(("command", "message"), [
    (("pretrain",), "expected a TASK to draw examples of, or one --data FILE, got 0 files"),
    (("pretrain", "{own}", "--data", "new.npz"), "or one --data FILE, got 2 files"),
    (("pretrain", "--data", "own.npz"), "own.npz: expected names of inputs and targets, got none; name some of a, nu"),
    (("pretrain", "--data", "own.npz", "--inputs", "b", "--targets", "u"), "expected an array b, got a, nu, u"),
    (("pretrain", "--data", "own.npz", "--inputs", "a"), "expected names of inputs and of targets, got those"),
    (("pretrain", "SYS-1(1,5)", "--inputs", "a"), "--inputs belongs to --data FILE without a TASK"),
    (("pretrain", "SYS-1(1,5)", "--test", "own.npz"), "--test belongs to a file of fields"),
    (("pretrain", "SYS-1(1,5)", "--fill", "learned"), "--fill says what a margin holds"),
    (("pretrain", "{own}", "--fill", "black"), "with a fill mirrored or learned, got 0.25 'black'"),
    (("pretrain", "{own}", "--architecture", "unet", "--margin", 0.2), "margin: the architecture unet has none"),
    (("pretrain", "{own}", "--size", "1M"), "resolution: the network needs at least 32 points, got (12, 10)"),
    (("pretrain", "{own}", "--recipe", "symbol"), "symbol normalization: expected systems with a symbol"),
    (("pretrain", "{own}", "--loss", "physics"), "no Fourier symbol is known of it"),
    (("adapt", "sys-1", "{own}"), "own.npz: no equation is said of it, and the operator was trained for poisson"),
    (("evaluate", "sys-1", "{own}"), "own.npz: no equation is said of it, and the operator was trained for poisson"),
    (("evaluate", "sys-1", "SYS-1(1,5)", "--count", 1, "--band"), "--band is measured on given examples"),
    (("pretrain", "{own}", "--validation", "a.npz", "--validation", "b.npz"), "--validation: expected one file"),
    (("pretrain", "{own}", "--validation-count", 4), "--validation-count has no effect of a file of fields"),
    (("pretrain", "{own}", "--test-resolution", 64), "--test-resolution has no effect of a file of fields"),
    (("pretrain", "{own}", "--system", "SYS-1"), "--system has no effect of a file of fields"),
    (("pretrain", "{own}", "--test", "own.npz", "--size", "64K"), "expected other examples for test than for train"),
    (("pretrain", "{own}", "--resolution", "16x14", "--size", "tiny"), "fields that nobody says are periodic"),
    (("pretrain", "SYS-1(1,5)", "--system", "SYS-1"), "--system has no effect without --data"),
    (("adapt", "sys-1", "SYS-1(5,10)", "--grid", "--learning-rate", 1e-3), "--grid tries five learning rates"),
    (("adapt", "evolutions", "NS(1e-4,2e-4)", "--no-symmetries"), "trajectories are turned and mirrored"),
    (("adapt", "evolutions", "NS(1e-4,2e-4)", "--physics"), "navier_stokes: no Fourier symbol is known of it"),
    (("adapt", "evolutions", "NS(1e-4,2e-4)", "--resolution", "0:32,0.5:64"), "and stay on one grid"),
    (("pretrain", "SYS-1(1,5)", "--resolution", "0:16,0:32"), "resolution: expected points or a schedule"),
    (("evaluate", "sys-1", "SYS-1(1,5)", "--system", "SYS-1"), "--system has no effect without --data"),
    (("study", "--processes", 2, "--scheduler", "tcp://127.0.0.1:1"), "--processes has no effect with --scheduler"),
    (("evaluate", "evolutions", "NS(1e-4,2e-4)", "--steps", 2, "--symmetries"), "--symmetries has no effect with"),
    (("info", "none.npz"), "none.npz: no such file"),
])  # fmt: skip
def test_mistakes_are_one_line(run, own, tmp_path, command, message):
    before = sorted(tmp_path.iterdir())
    options = [option for part in command for option in (own if part == "{own}" else [part])]
    refused(run(*options), message)
    assert sorted(tmp_path.iterdir()) == before


def test_info_of_foreign_hdf5(run, tmp_path):
    with h5py.File(tmp_path / "own.h5", "w") as file:
        for name, values in fields(4).items():
            file[f"train/{name}"] = file[f"test/{name}"] = values
    code, out, _ = run("info", "own.h5")
    assert code == 0
    assert 'splits: {"train": "train", "test": "test"}' in out


def test_a_band_holds_what_it_should():
    """Errors of a known size: exchangeable examples are held as often as is said, and others are not."""

    class Blurred:
        systems = (UnknownSystem(["a", "b"], ["u", "v"]),)

        def predict(self, source, coefficients):
            return source

    def drawn(count, size):
        generator = torch.Generator().manual_seed(count)
        u = torch.randn(count, 2, 16, 16, generator=generator)
        error = size * torch.rand(count, 1, 1, 1, generator=generator) * torch.randn(u.shape, generator=generator)
        return Examples(u + error, torch.zeros(count, 0), u, torch.zeros(count))

    band = calibrated_band(Blurred(), drawn(400, 0.1))
    assert band.measure(Blurred(), drawn(500, 0.1))["held"] == pytest.approx(0.9, abs=0.04)
    assert band.measure(Blurred(), drawn(500, 0.3))["held"] < 0.5
    assert band == Band(band.factor, examples=400)
    with pytest.raises(ValueError, match=r"8 examples are too few for a confidence of 0.9; give at least 9"):
        calibrated_band(Blurred(), drawn(8, 0.1))


def test_networks_are_validated_as_they_predict(own, tmp_path):
    """A network with dropout is noisy only where it trains."""
    parts = open_splits(tmp_path / "own.npz", Layout("a", "u", "nu"))
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 8, 1), torch.nn.Dropout(0.5), torch.nn.Conv2d(8, 1, 1))
    start = operator_of(network, data=parts["train"])
    config = TrainConfig(steps=4, validate_every=2)
    tuned = fine_tune(start, parts["train"], validation=parts["validation"], config=config)
    assert evaluate(tuned.operator, data=parts["validation"])["error"] == pytest.approx(
        tuned.validation_error, rel=1e-4
    )


def test_an_ensemble_of_own_data(own, tmp_path):
    parts = open_splits(tmp_path / "own.npz", Layout("a", "u", "nu"))
    options = {"data": parts["train"], "validation": parts["validation"], "size": "auto", "batch_size": 4}
    ensemble = pretrain_ensemble(config=TrainConfig(steps=3), members=2, **options)
    band = calibrated_band(ensemble, parts["validation"])
    assert 0 <= band.measure(ensemble, parts["test"])["held"] <= 1
    again = load_ensemble(ensemble.save(tmp_path / "ensemble.safetensors"))
    test = parts["test"].take(slice(None))
    for one, other in zip(*(e.predict(test.source, test.coefficients) for e in (ensemble, again)), strict=True):
        torch.testing.assert_close(one, other)
