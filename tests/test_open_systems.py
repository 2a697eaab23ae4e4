"""A system without a symbol: two input fields, two output fields, 48 x 40 points, from its file to a prediction."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent / "dashboards"))

from explorer.bundles import FOLDER_VARIABLE, find_bundles
from explorer.compute import compute, frame_message
from explorer.error_curves import mean_errors
from explorer.insight import spectrum
from explorer.state import ExploreState

from sciml_fm_core import (
    SYSTEMS,
    DatasetFile,
    Parameter,
    System,
    Task,
    TrainConfig,
    draw_split,
    evaluate,
    fine_tune,
    generate,
    load_operator,
    pretrain,
    train_from_scratch,
)
from sciml_fm_core.physics.spectral_system import spectral

GRID = (48, 40)


@pytest.fixture
def mixing(registry):
    """Nonlinear, two fields in and two out: ``u = c (a - b^2)``, ``v = a b``."""

    class Mixing(System):
        name, label, title = "mixing", "MIX", "Mixing"
        equation = r"u = c\,(a - b^2),\; v = a b"
        inputs, outputs, coefficient_names = ("a", "b"), ("u", "v"), ("c",)
        dialled = Parameter("c", 0.5, 3)
        shifts = {"pre-training": (1, 2), "large": (2, 3)}  # noqa: RUF012

        def solve(self, source, coefficients):
            a, b = source.unbind(-3)
            return torch.stack([coefficients[..., 0, None, None] * (a - b**2), a * b], dim=-3)

    return SYSTEMS["mixing"]


def test_from_generation_to_evaluation(mixing, tmp_path):
    task, shift = Task.parse("MIX(1,2)"), Task.parse("MIX(2,3)")
    path = generate(task, tmp_path / "mix.h5", 40, resolution=GRID)
    with DatasetFile(path) as file:
        assert (file.system, file.resolution, file.size) == (mixing, GRID, 40)
        drawn, stored = draw_split(task, "train", 4, resolution=GRID), file.take(slice(0, 4))
        assert stored.source.shape == stored.solution.shape == (4, 2, *GRID)
        for one, other in zip(drawn, stored, strict=True):
            torch.testing.assert_close(one, other)
    torch.testing.assert_close(mixing.solve(stored.source, stored.coefficients), stored.solution)

    config = TrainConfig(steps=60, validate_every=20)
    operator, history = pretrain([task], config, recipe="fields", size="64K", data=path, batch_size=8)
    loaded = load_operator(operator.save(tmp_path / "mix.safetensors"))
    test = draw_split(task, "test", 8, resolution=GRID)
    prediction = operator.predict(test.source, test.coefficients)
    assert prediction.shape == test.solution.shape
    torch.testing.assert_close(loaded.predict(test.source, test.coefficients), prediction)
    assert loaded.predict(test.source[:1, :, :33, :17], test.coefficients[:1]).shape == (1, 2, 33, 17)

    untrained, _ = pretrain([task], TrainConfig(steps=1), recipe="fields", size="64K", data=path, batch_size=8)
    before, after = (evaluate(each, task, count=16, resolution=GRID)["error"] for each in (untrained, operator))
    assert after < before / 2

    few = draw_split(shift, "train", 8, resolution=GRID)
    held_out = draw_split(shift, "validation", 8, resolution=GRID)
    for adapt in (fine_tune, train_from_scratch):
        tuned = adapt(loaded, few, validation=held_out, config=TrainConfig(steps=20, validate_every=10)).operator
        assert tuned.card["system"] == "mixing"
        assert torch.isfinite(tuned.predict(test.source, test.coefficients)).all()
        found = evaluate(tuned, shift, count=8, resolution=GRID)
        assert found["resolution"] == GRID
    assert "step" in history.rows[-1]


def test_who_needs_a_symbol_says_that_there_is_none(mixing):
    task = Task.parse("MIX(1,2)")
    with pytest.raises(ValueError, match="mixing: no Fourier symbol is known"):
        spectral(mixing)
    for recipe in ("dimensionless", "symbol", "paper"):
        with pytest.raises(ValueError, match="systems with a symbol, got mixing; use recipe 'fields'"):
            pretrain([task], TrainConfig(steps=1), recipe=recipe, size="64K", resolution=16, batch_size=4)
    few = draw_split(task, "train", 4, resolution=16)
    with pytest.raises(ValueError, match="no residual is known"):
        mixing.residual(few.solution, few.source, few.coefficients)
    operator, _ = pretrain([task], TrainConfig(steps=1), recipe="fields", size="64K", resolution=16, batch_size=4)
    with pytest.raises(ValueError, match="mixing: no Fourier symbol is known"):
        fine_tune(operator, few, config=TrainConfig(steps=1, loss="physics"))
    with pytest.raises(ValueError, match=r"mixing expects \(\.\.\., 2, ny, nx\) of a b"):
        operator.predict(few.source[:, 0], few.coefficients)


def test_a_symbol_asks_for_a_spectral_system():
    with pytest.raises(TypeError, match="derive it from SpectralSystem"):
        type("Old", (System,), {"symbol": lambda self, coefficients, n: coefficients})


def test_the_page_computes_its_frames_and_curves(mixing, tmp_path, monkeypatch):
    task = Task.parse("MIX(1,2)")
    operator, _ = pretrain([task], TrainConfig(steps=2), recipe="fields", size="64K", resolution=GRID, batch_size=4)
    operator.save(tmp_path / "mixing.safetensors")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    bundles, problems = find_bundles()
    assert not problems
    state = ExploreState(bundles)
    state.choose_system("mixing")
    assert state.bundle.name == "mixing"
    frame = compute(state.query())
    assert set(frame.further) == {"a", "v"}
    assert frame.source.shape == frame.solution.shape == frame.predictions["zero_shot"].values.shape
    header, arrays = frame_message(frame)
    assert header["residual"] is None
    assert header["numbers"]["zero_shot"]["bounds"] == [0.0, None]
    assert set(arrays) == {"source", "solution", "zero_shot", "a", "v"}
    errors = mean_errors([operator], [1.0, 1.5, 2.5], mixing, 2)
    assert all(0 < error < 10 for error in errors[0])
    with pytest.raises(ValueError, match="no Fourier symbol is known"):
        spectrum(state.query())
