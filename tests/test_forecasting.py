"""Forecasts where nobody says the equation: the cell, the linear maps, the order of the frames, the runs."""

import math

import pytest
import torch

from sciml_fm_core import SYSTEMS
from sciml_fm_core.experiments.forecasting import (
    DMD,
    OBSERVED,
    RATES,
    ConvLEM,
    ForecastRun,
    FrameFNO,
    forecasting,
    forecasting_table,
    name_of,
)
from sciml_fm_core.experiments.reports.forecasting import findings
from sciml_fm_core.physics.evolutions.states import smooth_states
from sciml_fm_core.study.runs import identity

TINY = {"steps": 2, "train": 2, "validation": 1, "test": 2, "batch_size": 2, "resolution": 16, "modes": 4, "width": 4}


def states_of_waves(count=3, times=8, n=16, seed=0):
    """Trajectories (count, times, n, n) of advection, dispersed by diffusion: each frame is linear in the last."""
    coefficients = torch.tensor([2e-3, 0.3, -0.2, 0.5], dtype=torch.float64).expand(count, -1)
    first = smooth_states(count, (n, n), torch.Generator().manual_seed(seed))
    return SYSTEMS["advection_diffusion_in_time"].trajectory(first, coefficients, times - 1)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return ConvLEM(3, 3).double()


def test_the_cell_is_the_formula(network):
    """At one point, with sums over the kernel and over channels written out."""
    n, width = 5, 3
    frame, hidden, memory = (torch.randn(1, channels, n, n, dtype=torch.float64) for channels in (1, width, width))

    def convolved(layer, field, channel, y, x):
        bias = 0.0 if layer.bias is None else layer.bias[channel].item()
        return bias + sum(
            layer.weight[channel, i, dy + 1, dx + 1].item() * field[0, i, (y + dy) % n, (x + dx) % n].item()
            for i in range(field.shape[1])
            for dy in (-1, 0, 1)
            for dx in (-1, 0, 1)
        )

    def gate(value):
        return 1 / (1 + math.exp(-value))

    new_memory = torch.empty_like(memory)
    for channel in range(width):
        for y in range(n):
            for x in range(n):
                parts = [
                    convolved(network.of_frame, frame, part * width + channel, y, x)
                    + convolved(network.of_hidden, hidden, part * width + channel, y, x)
                    for part in (0, 2)
                ]
                first = gate(parts[0])
                old = memory[0, channel, y, x].item()
                new_memory[0, channel, y, x] = (1 - first) * old + first * math.tanh(parts[1])
    found_hidden, found_memory = network.cell(frame, hidden, memory)
    torch.testing.assert_close(found_memory, new_memory)
    for channel, y, x in ((0, 0, 0), (1, 4, 2), (2, 3, 4)):
        second = gate(
            convolved(network.of_frame, frame, width + channel, y, x)
            + convolved(network.of_hidden, hidden, width + channel, y, x)
        )
        change = math.tanh(
            convolved(network.of_frame, frame, 3 * width + channel, y, x)
            + convolved(network.of_memory, new_memory, channel, y, x)
        )
        expected = (1 - second) * hidden[0, channel, y, x].item() + second * change
        assert found_hidden[0, channel, y, x].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("made", [lambda: ConvLEM(3, 3), lambda: FrameFNO(3, 4, 3)])
def test_networks_do_not_know_where_they_are(made):
    torch.manual_seed(0)
    network, frames = made().double(), torch.randn(2, 3, 12, 12, dtype=torch.float64)
    moved = network(frames.roll((5, -3), (-2, -1)), 4)
    torch.testing.assert_close(moved, network(frames, 4).roll((5, -3), (-2, -1)))


def test_the_memory_takes_the_oldest_frame_first_and_its_own_forecasts_after_the_last(network):
    frames = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    hidden = memory = frames.new_zeros(2, 3, 8, 8)
    for frame in (frames[:, :1], frames[:, 1:2], frames[:, 2:]):
        hidden, memory = network.cell(frame, hidden, memory)
    first = frames[:, 2:] + network.change(hidden)
    hidden, memory = network.cell(first, hidden, memory)
    found = network(frames, 2)
    torch.testing.assert_close(found, torch.cat([first, first + network.change(hidden)], dim=1))
    assert not torch.allclose(found, network(frames.flip(1)[:, [1, 2, 0]], 2)), "older frames count"


def test_channels_hold_the_last_frames_the_oldest_first():
    network = FrameFNO(2, 4, 3)

    class Echo(torch.nn.Module):
        """Ten times the newer channel and the older one, so that both can be read off the next frame."""

        config = network.network.config

        def forward(self, fields):
            return 10 * fields[:, 1:] + fields[:, :1]

    network.network = Echo()
    frames = torch.tensor([1.0, 2.0])[None, :, None, None].expand(1, 2, 8, 8)
    # after 1 and 2: 2 + (10 * 2 + 1) = 23, then 23 + (10 * 23 + 2) = 255
    assert network(frames, 2)[0, :, 0, 0].tolist() == [23, 255]


@pytest.mark.parametrize(("rank", "count"), [(0, 3), (512, 80)])
def test_a_linear_evolution_is_found_exactly(rank, count):
    """From Fourier coefficients one by one, and from all modes together, on states that were not fitted."""
    fitted, other = states_of_waves(count), states_of_waves(2, 11, seed=1)
    found = DMD(fitted, 1, rank)(other[:, 3:4], 7)
    torch.testing.assert_close(found, other[:, 4:], rtol=0, atol=1e-8)


def test_what_swings_takes_two_frames_in_their_order():
    """``u_(n+1) = 2 cos(w) u_n - u_(n-1)``: of one frame nobody can say where it goes."""
    fields = torch.randn(4, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    angles = 0.7 * torch.arange(12, dtype=torch.float64) + torch.arange(4)[:, None]
    states = angles.cos()[..., None, None] * fields
    frames, exact = states[:, 4:6], states[:, 6:]
    for rank in (0, 4):
        torch.testing.assert_close(DMD(states, 2, rank)(frames, 6), exact, rtol=0, atol=1e-8)
        assert (DMD(states, 2, rank)(frames.flip(1), 6) - exact).norm() > 0.5 * exact.norm()
        assert (DMD(states, 1, rank)(frames[:, 1:], 6) - exact).norm() > 0.2 * exact.norm()


def test_a_decomposition_is_fitted_to_what_follows_the_observed_frames():
    states = states_of_waves()
    spoiled = states.clone()
    spoiled[:, : OBSERVED - 1] = 0
    torch.testing.assert_close(DMD(spoiled, 1, 0).map, DMD(states, 1, 0).map)


@pytest.mark.parametrize("method", ["conv_lem", "fno"])
def test_training_windows_are_frames_and_those_that_follow(method, monkeypatch):
    """Frames that count up by one: a network sees consecutive ones, whoever observes more sees the same forecasts."""
    seen = []

    class Watching(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))

        def forward(self, frames, steps):
            seen.append((frames[:, :, 0, 0], steps))
            return frames[:, -1:].expand(-1, steps, -1, -1) * self.weight

    for name in ("ConvLEM", "FrameFNO"):
        monkeypatch.setattr(f"sciml_fm_core.experiments.forecasting.{name}", lambda *_: Watching())
    states = torch.arange(14.0)[None, :, None, None].expand(2, -1, 4, 4) + 1
    last = []
    for count in (1, OBSERVED):
        seen.clear()
        ForecastRun("NS(0.0003,0.003)", method, count, **TINY)._trained(states, 1e-3)
        assert [steps for _, steps in seen] == [1, 4]
        frames = torch.cat([shown * states.std() for shown, _ in seen])
        assert frames.shape[1] == count
        assert torch.allclose(frames.diff(dim=1), torch.ones(())), "one after the other, the oldest first"
        last.append(frames[:, -1])
    torch.testing.assert_close(*last)
    assert last[0].min() > OBSERVED - 0.5


@pytest.mark.parametrize("method", RATES)
def test_a_run_is_its_settings(method):
    run = ForecastRun("NS(0.0003,0.003)", method, 2, learning_rates=(1e-3, 2e-3), **TINY)
    found, again = (run.measure("cpu") for _ in range(2))
    assert found["errors"] == again["errors"]
    assert found["chosen"] in ((1e-3, 2e-3) if method != "dmd" else range(1000))
    assert all(0 < error < 1e6 for error in found["errors"])


def test_what_is_told_the_equation_is_better_than_what_stands_still():
    """And a solver on the same grid is the reference; one on a coarser grid lacks waves."""
    sizes = TINY | {"resolution": 32}
    errors = {
        about: ForecastRun("NS(0.0003,0.003)", method, points=points, substeps=substeps, parent=parent, **sizes)
        .measure("cpu")["errors"]
        for about, method, points, substeps, parent in (
            ("still", "persistence", 0, 0, ""),
            ("linear", "linear", 0, 0, ""),
            ("operator", "operator", 0, 0, "evolutions"),
            ("coarse", "solver", 16, 2, ""),
            ("same", "solver", 32, 20, ""),
        )
    }  # fmt: skip
    assert max(errors["same"]) < 1e-5
    assert errors["same"][0] < errors["coarse"][0] < errors["linear"][0] < errors["still"][0]
    assert errors["operator"][-1] < errors["linear"][-1] < errors["still"][-1]


def test_the_runs_of_a_budget():
    runs = forecasting("laptop")
    assert len({identity(run) for run in runs}) == len(runs)
    fitted = [run for run in runs if run.method in RATES]
    assert {run.frames for run in fitted} == {1, OBSERVED}
    assert {len(run.learning_rates) for run in fitted if run.method != "dmd"} == {2}
    assert len({(run.steps, run.unrolled, run.batch_size, run.train) for run in fitted}) == 1, "on equal terms"
    with pytest.raises(ValueError, match="budget: expected one of"):
        forecasting("huge")
    with pytest.raises(ValueError, match="forecasting: expected a method of persistence"):
        ForecastRun("NS(0.0003,0.003)", "oracle")
    with pytest.raises(ValueError, match="1 to 4 frames"):
        ForecastRun("NS(0.0003,0.003)", "fno", 5)
    with pytest.raises(ValueError, match="it is no evolution in time"):
        ForecastRun("SYS-1(1,5)", "fno")


def test_findings_follow_the_records():
    """Verdicts are computed: where the numbers change sides, so do the sentences."""
    records = [
        {"task": run.task, "method": run.method, "frames": run.frames, "points": run.points, "substeps": run.substeps,
         "seed": run.seed, "milliseconds": 1.0, "fitting_seconds": 9.0,
         "errors": [0.1, 0.2, 0.9 if run.method == "persistence" else 0.3 / run.frames]}
        for run in forecasting("laptop")
        if run.task.startswith("NS")
    ]  # fmt: skip
    better = next(said for said in findings(records) if "bears out" in said)
    assert "tell the FNO more than one, 7.5 % against 30 %" in better
    assert "the operator that is told" not in better, "all have 30 % from one frame"
    turned = [r | {"errors": [0.1, 0.2, 0.3 * r["frames"]]} if r["method"] == "fno" else r for r in records]
    better, worse = (next(s for s in findings(turned) if word in s) for word in ("bears out", "contradicts"))
    assert "tell the FNO" in worse
    assert "with its memory, forecasts better" in better
    once = [
        r | {"errors": [0.1, 0.2, 0.4]} if (r["method"], r["seed"], r["frames"]) == ("fno", 1, 4) else r
        for r in records
    ]
    assert "tell the FNO" in next(said for said in findings(once) if "contradicts" in said), "in every seed"
    table = forecasting_table(records)
    assert {name_of(record) for record in records} == {line.split(" | ")[1] for line in table.splitlines()[2:]}
    assert "told: solver, 16 points, 2 substeps" in table
