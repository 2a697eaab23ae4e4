"""Trajectories in files: round trips, the Well's own loader, the command, bad input."""

import h5py
import pytest
import torch
from typer.testing import CliRunner

from sciml_fm_core import SYSTEMS, Task, load_trajectories, save_trajectories, split_trajectories
from sciml_fm_core.cli import app


def small(label="GS(0.03,0.04)", count=3, steps=4, n=16):
    """An evolution, its states and coefficients."""
    task = Task.parse(label)
    found = split_trajectories(task, "train", count, steps, resolution=n)
    return task.system, found.states, found.coefficients


@pytest.mark.parametrize("label", ["GS(0.03,0.04)", "NS(0.001,0.003)", "HYPER(1e-6,1e-5)"])
def test_what_is_read_is_what_was_written(tmp_path, label):
    system, states, coefficients = small(label)
    known, read = load_trajectories(save_trajectories(tmp_path / "a.hdf5", system, states, coefficients))
    assert known is system
    assert torch.equal(read.states, states)
    assert torch.equal(read.coefficients, coefficients)
    assert torch.equal(read.dial, coefficients[:, 0])
    again = system.trajectory(read.states[:, 0], read.coefficients, 4)
    assert (again - read.states).norm() < 1e-5 * read.states.norm()


def test_more_trajectories_begin_with_fewer():
    (_, more, _), (_, fewer, _) = (small("HYPER(1e-6,1e-5)", count=count) for count in (20, 3))
    assert more.shape == (20, 5, 16, 16)
    assert torch.equal(more[:3], fewer)
    assert not torch.equal(more[0], more[16])


def test_the_wells_own_loader_reads_them(tmp_path):
    data = pytest.importorskip("the_well.data", reason="the extra well is not installed")
    for label in ("GS(0.03,0.04)", "NS(0.001,0.003)"):
        folder = tmp_path / label[:2]
        folder.mkdir()
        system, states, coefficients = small(label)
        save_trajectories(folder / "train.hdf5", system, states, coefficients)
        dataset = data.WellDataset(path=str(folder), n_steps_input=1, n_steps_output=2, use_normalization=False)
        names = ["u", "v"] if label[:2] == "GS" else ["state"]
        assert dataset.metadata.field_names[0] == names
        assert dataset.metadata.constant_scalar_names == list(system.coefficient_names)
        assert dataset.metadata.boundary_condition_types == ["PERIODIC"]
        assert len(dataset) == 3 * 3  # of five states three windows of three
        found = dataset[4]  # the second window of the second trajectory
        fields = states if states.ndim == 5 else states[:, :, None]
        expected = fields[1, 1:4].permute(0, 3, 2, 1)  # (time, x, y, field)
        assert torch.equal(torch.cat([found["input_fields"], found["output_fields"]]), expected)
        assert torch.allclose(found["constant_scalars"], coefficients[1])
        assert found["space_grid"].shape == (16, 16, 2)


def test_layout_is_that_of_the_well(tmp_path):
    save_trajectories(tmp_path / "a.hdf5", *small(), attributes={"seed": 0})
    with h5py.File(tmp_path / "a.hdf5") as file:
        groups = {"t0_fields", "t1_fields", "t2_fields", "dimensions", "scalars", "boundary_conditions"}
        assert set(file) == groups
        assert file["t0_fields/u"].shape == (3, 5, 16, 16)
        assert list(file["dimensions/time"]) == [0, 20, 40, 60, 80]
        assert file.attrs["dataset_name"] == "gray_scott"
        assert file.attrs["seed"] == 0


def test_times_of_several_lengths_are_kept(tmp_path):
    system, generator = SYSTEMS["dispersion"], torch.Generator().manual_seed(0)
    coefficients = torch.tensor([[1e-4, 0.5], [1e-4, 0.25]])
    state = system.draw(torch.ones(2), torch.empty(2, 0), (16, 16), generator).float()
    save_trajectories(tmp_path / "a.hdf5", system, system.trajectory(state, coefficients, 2), coefficients)
    with h5py.File(tmp_path / "a.hdf5") as file:
        assert file["dimensions/time"][()].tolist() == [[0, 0.5, 1], [0, 0.25, 0.5]]
        assert file["dimensions/time"].attrs["sample_varying"]


def test_command_writes_them(tmp_path):
    path = tmp_path / "a.hdf5"
    arguments = ["generate", "BURGERS(0.003,0.01)", "--steps", "2", "--count", "2", "--resolution", "16"]
    done = CliRunner().invoke(app, [*arguments, "--output", str(path)])
    assert done.exit_code == 0, done.output
    assert load_trajectories(path)[1].states.shape == (2, 3, 16, 16)
    assert CliRunner().invoke(app, [*arguments, "--output", str(path)]).exit_code != 0  # it exists
    stationary = ["generate", "SYS-1(1,5)", *arguments[2:], "--output", str(tmp_path / "b.hdf5")]
    assert CliRunner().invoke(app, stationary).exit_code != 0


def test_bad_input_is_named(tmp_path):
    system, states, coefficients = small("HYPER(1e-6,1e-5)")
    with pytest.raises(ValueError, match=r"states: hyper_diffusion expects shape \(count, steps \+ 1, n, n\)"):
        save_trajectories(tmp_path / "a.hdf5", system, states[0], coefficients)
    with pytest.raises(ValueError, match="no evolution in time"):
        save_trajectories(tmp_path / "a.hdf5", SYSTEMS["poisson"], states, coefficients)
    with pytest.raises(ValueError, match="no evolution in time"):
        small("SYS-1(1,5)")
    with pytest.raises(ValueError, match="steps: expected at least 1"):
        small("HYPER(1e-6,1e-5)", steps=0)
    save_trajectories(tmp_path / "a.hdf5", system, states, coefficients)
    with pytest.raises(ValueError, match="exists"):
        save_trajectories(tmp_path / "a.hdf5", system, states, coefficients)
    assert [path.name for path in tmp_path.iterdir()] == ["a.hdf5"]


def test_damaged_and_foreign_files_are_told(tmp_path):
    path = save_trajectories(tmp_path / "a.hdf5", *small("HYPER(1e-6,1e-5)"))
    with h5py.File(path, "a") as file:
        del file["scalars/time"]
    with pytest.raises(ValueError, match=r"a\.hdf5: "):
        load_trajectories(path)
    path = save_trajectories(tmp_path / "d.hdf5", *small("HYPER(1e-6,1e-5)"))
    with h5py.File(path, "a") as file:
        file["t0_fields/state"][0, 1] = torch.nan
    with pytest.raises(ValueError, match=r"d\.hdf5: states: expected finite values"):
        load_trajectories(path)
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file["x"] = 1
    with pytest.raises(ValueError, match="no file of trajectories"):
        load_trajectories(tmp_path / "b.hdf5")
    (tmp_path / "c.hdf5").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"c\.hdf5: "):
        load_trajectories(tmp_path / "c.hdf5")
