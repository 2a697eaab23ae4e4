"""Dataset files: layout, interchange, independent splits, resuming to the same bytes, bad files."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from released_files import write_released

from sciml_fm_core import (
    PAPER_TASKS,
    DatasetFile,
    FixedBatches,
    FreshBatches,
    Task,
    __version__,
    draw_split,
    generate,
)
from sciml_fm_core.data.hdf5 import ATTRIBUTES, plain_attribute
from sciml_fm_core.data.splits import CHUNK, stream
from sciml_fm_core.experiments.physics_loss import CurriculumBatches

POISSON = Task.parse("SYS-1(1,5)")
ROOT = Path(__file__).resolve().parent.parent


class Interrupted(Exception):
    """Stands for a killed process."""


def interrupt_after(count):
    def callback(done, _):
        if done >= count:
            raise Interrupted

    return callback


# Layout and interchange -----------------------------------------------------------------------------------------------


def test_layout_types_and_attributes(task, tmp_path):
    path = generate(task, tmp_path / "data.h5", 10, resolution=16, seed=3, split="test")
    with h5py.File(path) as file:
        assert set(file) == {"fields", "tensor", "dial"}
        assert file["fields"].shape == (10, 2, 16, 16)
        assert file["tensor"].shape == (10, len(task.system.coefficient_names))
        assert file["dial"].shape == (10,)
        assert {file[name].dtype for name in ("fields", "tensor", "dial")} == {np.dtype("<f4")}
        attributes = {key: plain_attribute(value) for key, value in file.attrs.items()}
    assert set(attributes) == set(ATTRIBUTES)
    assert (attributes["system"], attributes["task"]) == (task.system.name, task.label)
    assert (attributes["low"], attributes["high"]) == (task.low, task.high)
    assert (attributes["seed"], attributes["resolution"], attributes["split"]) == (3, 16, "test")
    assert attributes["package_version"] == __version__
    assert list(attributes["coefficient_names"]) == list(task.system.coefficient_names)
    assert list(attributes["sparsities"]) == [0.2, 0.4, 0.6, 0.8]
    assert attributes["dial_name"] == task.system.dial_name
    assert "unit square" in attributes["units"]
    assert (attributes["acceptance_rate"] < 1) == (task.system.name == "helmholtz")


def test_files_hold_solved_examples_and_read_back(task, tmp_path):
    path = generate(task, tmp_path / "data.h5", 12, resolution=32)
    expected = draw_split(task, "train", 12, resolution=32)
    with DatasetFile(path) as file:
        assert (file.size, file.resolution, file.system) == (12, 32, task.system)
        read = file.take(slice(0, 12))
        assert all(torch.equal(a, b) for a, b in zip(read, expected, strict=True))
        picked = file.take(torch.tensor([7, 2, 2, 11]))
        assert torch.equal(picked.source, expected.source[[7, 2, 2, 11]])
        assert torch.equal(picked.dial, expected.dial[[7, 2, 2, 11]])
    residual = task.system.residual(read.solution.double(), read.source.double(), read.coefficients.double())
    largest = task.system.symbol(read.coefficients, 32).abs().max() * read.solution.abs().max()
    assert residual.abs().max() < max(1e-3, torch.finfo(torch.float32).eps * largest)


def test_our_files_carry_what_the_released_reader_takes(task, tmp_path):
    """The released loader reads fields[i, 0], fields[i, 1] and tensor[i], and nothing else."""
    path = generate(task, tmp_path / "data.h5", 5, resolution=16)
    expected = draw_split(task, "train", 5, resolution=16)
    with h5py.File(path, "r") as file:
        for i in range(5):
            np.testing.assert_array_equal(file["fields"][i, 0], expected.source[i])
            np.testing.assert_array_equal(file["fields"][i, 1], expected.solution[i])
            np.testing.assert_array_equal(file["tensor"][i], expected.coefficients[i])


def test_released_files_open_without_attributes(paper_system, tmp_path, generator):
    task = Task.parse(PAPER_TASKS[paper_system.name]["pre-training"])
    examples = task.sample(6, 16, generator)
    path = write_released(examples, tmp_path / "released.h5")
    with h5py.File(path) as file:
        assert set(file) == {"fields", "tensor"}
        assert not dict(file.attrs)
    with DatasetFile(path, task.system) as file:
        read = file.take(slice(None))
    assert torch.equal(read.source, examples.source)
    assert torch.equal(read.solution, examples.solution)
    assert torch.equal(read.coefficients, examples.coefficients)
    torch.testing.assert_close(read.dial, examples.dial, rtol=1e-5, atol=0)


def test_attributes_of_other_programs_do_not_matter(tmp_path, generator):
    path = write_released(POISSON.sample(4, 16, generator), tmp_path / "released.h5")
    with h5py.File(path, "r+") as file:
        file.attrs["version"], file.attrs["system"] = "2.1-beta", "cluster node 7"
    with DatasetFile(path, "poisson") as file:
        assert file.system is POISSON.system


def test_the_number_of_coefficients_does_not_name_a_system(tmp_path, generator):
    """Like reports that a loader guessed what a file holds from its number of columns, and trained on another thing."""
    path = write_released(POISSON.sample(4, 16, generator), tmp_path / "released.h5")
    with DatasetFile(path) as file:
        for use in (lambda: file.system, lambda: file.take(slice(None)), lambda: file.take(slice(2))):
            with pytest.raises(ValueError, match="could be of poisson, biharmonic_advection, and the file does not"):
                use()
    with h5py.File(path, "r+") as file:
        file.attrs["system"] = "biharmonic_advection"
    with DatasetFile(path) as file:
        assert file.system.name == "biharmonic_advection"
    with pytest.raises(ValueError, match="says that it is of biharmonic_advection, not of poisson"):
        DatasetFile(path, "poisson")


def test_file_size_is_flat_in_examples(tmp_path):
    path = generate(POISSON, tmp_path / "data.h5", 300, resolution=16)
    assert os.path.getsize(path) < 300 * (2 * 16 * 16 + 3 + 1) * 4 + 300 * 100 + 20_000


# Subsets and splits ---------------------------------------------------------------------------------------------------


def test_files_begin_as_the_split_does(tmp_path):
    path = generate(POISSON, tmp_path / "data.h5", 64, resolution=16)
    whole = draw_split(POISSON, "train", 64, resolution=16)
    with DatasetFile(path) as file:
        assert torch.equal(file.take(slice(16)).source, whole.source[:16])  # example i has sparsity i mod 4


def test_longer_files_start_with_shorter_ones(tmp_path):
    for label in ("SYS-1(1,5)", "SYS-3(1,10)"):  # the second redraws
        task = Task.parse(label)
        short = draw_split(task, "train", CHUNK + 3, resolution=8)
        long = draw_split(task, "train", 2 * CHUNK + 1, resolution=8)
        assert all(torch.equal(a, b[: CHUNK + 3]) for a, b in zip(short, long, strict=True))


def test_splits_seeds_and_tasks_are_different_streams():
    first = {
        (split, seed, label): draw_split(Task.parse(label), split, 4, seed=seed, resolution=8).source
        for split in ("train", "validation", "test")
        for seed in (0, 1)
        for label in ("SYS-1(1,5)", "SYS-1(5,10)")
    }
    values = list(first.values())
    assert not any(torch.equal(a, b) for i, a in enumerate(values) for b in values[:i])
    # Chunks of one split do not repeat either.
    whole = draw_split(POISSON, "train", 2 * CHUNK, resolution=8).source
    assert not torch.equal(whole[:4], whole[CHUNK : CHUNK + 4])


def test_no_split_depends_on_the_size_of_another(tmp_path):
    generate(POISSON, tmp_path / "train.h5", 8, resolution=8)
    generate(POISSON, tmp_path / "test.h5", 8, resolution=8, split="test")
    generate(POISSON, tmp_path / "train2.h5", 300, resolution=8)
    generate(POISSON, tmp_path / "test2.h5", 8, resolution=8, split="test")
    assert (tmp_path / "test.h5").read_bytes() == (tmp_path / "test2.h5").read_bytes()


def test_streams_are_named_not_concatenated():
    assert stream(1, "a", 23).initial_seed() != stream(1, "a2", 3).initial_seed()
    assert stream(0, "x").initial_seed() == stream(0, "x").initial_seed()


# Interruption ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["SYS-1(1,5)", "SYS-3(1,10)"])
@pytest.mark.parametrize("done", [CHUNK, 2 * CHUNK])
def test_interrupted_generation_resumes_to_the_same_bytes(tmp_path, label, done):
    task, count = Task.parse(label), 2 * CHUNK + 10
    whole = generate(task, tmp_path / "whole.h5", count, resolution=8)
    path = tmp_path / "data.h5"
    with pytest.raises(Interrupted):
        generate(task, path, count, resolution=8, callback=interrupt_after(done))
    assert not path.exists()
    written = []
    generate(task, path, count, resolution=8, callback=lambda done, total: written.append((done, total)))
    assert written[0] == (min(done + CHUNK, count), count)  # went on, did not start again
    assert written[-1] == (count, count)
    assert path.read_bytes() == whole.read_bytes()
    assert {file.name for file in tmp_path.iterdir()} == {"whole.h5", "data.h5"}


def test_a_killed_process_resumes_to_the_same_bytes(tmp_path):
    count = 3 * CHUNK
    whole = generate(POISSON, tmp_path / "whole.h5", count, resolution=16)
    path = tmp_path / "data.h5"
    script = (
        "import sys, time, torch\n"
        f"torch.set_num_threads({torch.get_num_threads()})\n"  # the last bit depends on how work is shared out
        "from sciml_fm_core import Task, generate\n"
        "def wait(done, count):\n"
        "    print(done, flush=True)\n"
        "    time.sleep(60 if done > 256 else 0)\n"
        f"generate(Task.parse('SYS-1(1,5)'), sys.argv[1], {count}, resolution=16, callback=wait)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    with process:
        assert process.stdout.readline() == "256\n"
        assert process.stdout.readline() == "512\n"
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
    assert process.returncode == -signal.SIGKILL
    assert not path.exists()
    done = []
    generate(POISSON, path, count, resolution=16, callback=lambda number, _: done.append(number))
    assert done == [count]
    assert path.read_bytes() == whole.read_bytes()


def test_chunk_written_but_not_recorded_is_made_again(tmp_path):
    """A kill between the data and its progress note: the note is the truth."""
    path, count = tmp_path / "data.h5", 2 * CHUNK
    whole = generate(POISSON, tmp_path / "whole.h5", count, resolution=8)
    with pytest.raises(Interrupted):
        generate(POISSON, path, count, resolution=8, callback=interrupt_after(CHUNK))
    with h5py.File(tmp_path / "data.h5.partial", "r+") as file:
        file["fields"][CHUNK + 5 :] = 7
    generate(POISSON, path, count, resolution=8)
    assert path.read_bytes() == whole.read_bytes()


def test_existing_file_is_left_untouched(tmp_path):
    path = tmp_path / "data.h5"
    path.write_bytes(b"precious")
    with pytest.raises(ValueError, match="exists already and is left as it is"):
        generate(POISSON, path, 4, resolution=8)
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"resolution": 16}, {"split": "test"}, {"count": 700}, {"task": Task.parse("SYS-1(1,6)")}]
)
def test_partial_of_other_settings_is_refused(tmp_path, other):
    settings = {"task": POISSON, "path": tmp_path / "data.h5", "count": 2 * CHUNK, "resolution": 8}
    with pytest.raises(Interrupted):
        generate(**settings, callback=interrupt_after(CHUNK))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"data.h5.partial: written with other settings"):
        generate(**settings | other)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "dev"}, "split: expected one of train, validation, test, got 'dev'"),
        ({"count": 0}, "count: expected at least 1 example, got 0"),
        ({"resolution": 129}, "resolution: expected an even number of at least 8, got 129"),
        ({"resolution": -2}, "resolution: expected an even number"),
    ],
)
def test_bad_settings_leave_nothing_behind(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        generate(POISSON, tmp_path / "data.h5", **{"count": 4, "resolution": 8} | arguments)
    assert not list(tmp_path.iterdir())


def test_folder_must_exist(tmp_path):
    with pytest.raises(ValueError, match=r"the folder .* does not exist; make it first"):
        generate(POISSON, tmp_path / "no" / "data.h5", 4, resolution=8)


# Bad files ------------------------------------------------------------------------------------------------------------


def test_missing_file(tmp_path):
    with pytest.raises(ValueError, match=r"no such file; `sciml-fm generate` writes one"):
        DatasetFile(tmp_path / "none.h5")


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_truncated_file(tmp_path, share):
    path = generate(POISSON, tmp_path / "data.h5", 8, resolution=16)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"data.h5: not a readable HDF5 file, or a truncated one"):
        DatasetFile(path)


def test_every_flipped_bit_is_found_or_changes_nothing(tmp_path, generator):
    """Flips in all that is not an example, and in the checksum and some numbers of each."""
    path = generate(POISSON, tmp_path / "data.h5", 8, resolution=8)
    whole = path.read_bytes()
    with DatasetFile(path) as file:
        expected = file.take(slice(8))
    with h5py.File(path) as file:
        chunks = [one.id.get_chunk_info(i) for one in file.values() for i in range(one.id.get_num_chunks())]
    numbers = {place for one in chunks for place in range(one.byte_offset, one.byte_offset + one.size)}
    some = torch.randperm(len(numbers), generator=generator)[:200].tolist()
    places = [place for place in range(len(whole)) if place not in numbers] + [sorted(numbers)[i] for i in some]
    found = 0
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(torch.randint(8, (1,), generator=generator))
        path.write_bytes(damaged)
        try:
            with DatasetFile(path) as file:
                assert all(torch.equal(*parts) for parts in zip(file.take(slice(8)), expected, strict=True)), place
                assert place not in numbers
        except ValueError as error:
            assert re.match(rf"dataset {path}: not (a )?readable", str(error))  # noqa: PT017
            found += 1
    assert found > 0.5 * len(places)


def test_damaged_metadata_of_an_unfinished_file_are_found(tmp_path):
    path = tmp_path / "data.h5"
    with pytest.raises(Interrupted):
        generate(POISSON, path, 2 * CHUNK, resolution=8, callback=interrupt_after(CHUNK))
    partial = path.with_name("data.h5.partial")
    partial.write_bytes(partial.read_bytes().replace(b"SYS-1(1,5)", b"SYS-1(1,6)"))
    with pytest.raises(ValueError, match=r"data.h5.partial: not readable .*; remove it and data.h5.progress"):
        generate(POISSON, path, 2 * CHUNK, resolution=8)


def test_a_file_killed_as_its_last_attribute_is_written_is_finished(tmp_path, monkeypatch):
    def killed(*_):
        raise Interrupted

    path, undisturbed = tmp_path / "data.h5", generate(POISSON, tmp_path / "other.h5", 4, resolution=8)
    with monkeypatch.context() as patch:
        patch.setattr("h5py.AttributeManager.modify", killed)
        with pytest.raises(Interrupted):
            generate(POISSON, path, 4, resolution=8)
    generate(POISSON, path, 4, resolution=8)
    assert path.read_bytes() == undisturbed.read_bytes()


def test_files_of_earlier_versions_are_read(tmp_path):
    """Contiguous arrays, checksums of their own, and a block before HDF5's first byte."""
    path, old = generate(POISSON, tmp_path / "data.h5", 4, resolution=8), tmp_path / "old.h5"
    with h5py.File(path) as new, h5py.File(old, "w", userblock_size=512) as file:
        for name in new:
            file[name] = new[name][:]
        file["checksum"] = np.arange(4, dtype="u4")
        file.attrs.update(new.attrs)
        file.attrs["checksum"] = 3
    old.write_bytes(b"sciml-fm tables {}".ljust(512) + old.read_bytes()[512:])
    with DatasetFile(old) as file, DatasetFile(path) as other:
        assert all(torch.equal(*parts) for parts in zip(file.take(slice(4)), other.take(slice(4)), strict=True))


@pytest.mark.parametrize("name", ["fields", "tensor", "dial"])
def test_examples_that_are_no_numbers_are_refused(tmp_path, name):
    path = generate(POISSON, tmp_path / "data.h5", 8, resolution=8)
    with h5py.File(path, "r+") as file:
        file[name][(5, *[0] * (file[name].ndim - 1))] = np.nan
    with DatasetFile(path) as file:
        file.take(slice(4))
        with pytest.raises(ValueError, match=r"data.h5: expected finite values, got NaN or infinity in example 5"):
            file.take(slice(8))


def test_arrays_that_do_not_belong_together(tmp_path):
    def rewritten(change):
        path = tmp_path / "data.h5"
        path.unlink(missing_ok=True)
        generate(POISSON, path, 4, resolution=8)
        with h5py.File(path, "r+") as file:
            change(file)
            return path

    def replaced(name, **dataset):
        def change(file):
            del file[name]
            file.create_dataset(name, **dataset)

        return change

    huge = {"shape": (4, 2, 2**20, 2**20), "chunks": (1, 1, 64, 64), "dtype": "f4"}
    for change, told in (
        (replaced("dial", shape=(3,), dtype="f4"), r"expected dial \(4,\), got \(3,\)"),
        (replaced("dial", shape=(4, 2), dtype="f4"), r"expected dial \(4,\), got \(4, 2\)"),
        (replaced("tensor", shape=(4,), dtype="f4"), r"expected fields \(N, 2, n, n\) and tensor \(N, c\)"),
        (replaced("tensor", shape=(4, 3), dtype="S3"), "expected numbers of kind f in tensor, got another"),
        (replaced("fields", **huge), "expected at least one example on an even number of 4 to 4096 points"),
        (
            replaced("fields", **huge | {"shape": (4, 2, 4096, 4096)}),
            "fields: 32768 of its 32768 chunks were never written",
        ),
        (lambda file: file.attrs.__setitem__("system", 3), "system: expected a text, got 3"),
        (lambda file: file.attrs.__delitem__("system"), "lacks system"),
    ):
        with pytest.raises(ValueError, match=rf"^dataset .*data.h5: .*{told}"):
            DatasetFile(rewritten(change))


def test_a_damaged_progress_is_named(tmp_path):
    path = tmp_path / "data.h5"
    with pytest.raises(Interrupted):
        generate(POISSON, path, 2 * CHUNK, resolution=8, callback=interrupt_after(CHUNK))
    progress = path.with_name("data.h5.progress")
    whole = progress.read_text()
    for text, told in (
        ("{", "not readable as JSON"),
        ("[]", "expected names and values"),
        (whole.replace(f'"done": {CHUNK}', f'"done": {CHUNK - 1}'), "damaged: its digest"),
        (whole.replace('"draws"', '"draw"'), "lacks draws"),
    ):
        progress.write_text(text)
        with pytest.raises(ValueError, match=rf"data.h5.progress: not readable .*{told}.*; remove it and data.h5.part"):
            generate(POISSON, path, 2 * CHUNK, resolution=8)


def test_file_that_is_no_hdf5(tmp_path):
    path = tmp_path / "data.h5"
    path.write_text("not a dataset")
    with pytest.raises(ValueError, match="not a readable HDF5 file"):
        DatasetFile(path)


def test_foreign_hdf5(tmp_path):
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file["temperature"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"expected datasets 'fields' and 'tensor', got \['temperature'\]"):
        DatasetFile(path)
    with h5py.File(path, "w") as file:
        file["fields"], file["tensor"] = np.zeros((3, 1, 8, 8), "f4"), np.zeros((3, 3), "f4")
    with pytest.raises(ValueError, match=r"expected fields \(N, 2, n, n\) and tensor \(N, c\), got \(3, 1, 8, 8\)"):
        DatasetFile(path)
    with h5py.File(path, "w") as file:
        file["fields"], file["tensor"] = np.zeros((3, 2, 8, 8), "f4"), np.zeros((3, 4), "f4")
    with DatasetFile(path) as file, pytest.raises(ValueError, match="4 coefficients could be of none that is known"):
        file.take(slice(None))
    with pytest.raises(ValueError, match="poisson has 3 coefficients, the file 4"):
        DatasetFile(path, "poisson")


def test_newer_layout(tmp_path):
    path = generate(POISSON, tmp_path / "data.h5", 4, resolution=8)
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 99
    with pytest.raises(ValueError, match="layout version 99, this package reads up to 1; upgrade sciml-fm"):
        DatasetFile(path)


# Batches --------------------------------------------------------------------------------------------------------------


def test_fresh_batches_are_a_function_of_seed_and_step():
    tasks = [POISSON, Task.parse("SYS-2(0.2,1)")]
    a, b, other = (FreshBatches(tasks, 6, resolution=8, seed=seed) for seed in (1, 1, 2))
    a.batch(0, 0)
    for step in (5, 3):
        for (system, first), (same, again) in zip(a.batch(step, 0.1), b.batch(step, 0.1), strict=True):
            assert system is same
            assert torch.equal(first.solution, again.solution)
    assert not torch.equal(a.batch(3, 0)[0][1].source, a.batch(4, 0)[0][1].source)
    assert not torch.equal(a.batch(3, 0)[0][1].source, other.batch(3, 0)[0][1].source)


def test_fresh_mixtures_share_out_equally():
    tasks = [POISSON, Task.parse("SYS-2(0.2,1)"), Task.parse("SYS-3(1,10)")]
    batches = FreshBatches(tasks, 8, resolution=8)
    total = Counter()
    for step in range(3):
        parts = batches.batch(step, 0)
        assert [system for system, _ in parts] == [task.system for task in tasks]
        assert sum(examples.size for _, examples in parts) == 8
        assert {examples.size for _, examples in parts} == {2, 3}
        total.update({system.name: examples.size for system, examples in parts})
    assert set(total.values()) == {8}


def test_fresh_batches_follow_a_schedule_of_resolutions():
    batches = FreshBatches([POISSON], 2, resolution={0: 8, 0.5: 16})
    sizes = [batches.batch(0, progress)[0][1].source.shape[-1] for progress in (0, 0.49, 0.5, 1)]
    assert sizes == [8, 8, 16, 16]


def test_a_curriculum_moves_the_dial_to_its_task():
    """From the easiest range to that of the task in the first half; by equal factors on a logarithmic dial."""
    easy, hard = Task.parse("SYS-1(1,3)"), Task.parse("SYS-1(11,15)")
    batches = CurriculumBatches(easy, hard, 64, resolution=8)
    for progress, (low, high) in {0: (1, 3), 0.2: (5, 7.8), 0.5: (11, 15), 0.9: (11, 15)}.items():
        ((system, examples),) = batches.batch(3, progress)
        assert system is hard.system
        assert low <= examples.dial.min() < examples.dial.max() <= high
        assert examples.dial.max() - examples.dial.min() > 0.8 * (high - low)
    plain = FreshBatches([hard], 64, resolution=8).batch(3, 0)[0][1]
    assert torch.equal(batches.batch(3, 1.0)[0][1].source, plain.source)
    flow = CurriculumBatches(Task.parse("SYS-2(0.1,0.2)"), Task.parse("SYS-2(1.6,3.2)"), 2, resolution=8)
    assert (flow.task_at(0.25).low, flow.task_at(0.25).high) == pytest.approx((0.4, 0.8))
    waves = CurriculumBatches(Task.parse("SYS-3(1,2)"), Task.parse("SYS-3(5,12)"), 2, resolution=8)
    assert waves.task_at(0.1).label == "SYS-3(2,4)"
    with pytest.raises(ValueError, match=r"two tasks of one system, got SYS-1\(1,3\) and SYS-3\(5,12\)"):
        CurriculumBatches(easy, Task.parse("SYS-3(5,12)"), 2)


def test_fresh_batches_check_their_settings():
    with pytest.raises(ValueError, match="expected at least one example for each of 2 tasks"):
        FreshBatches([POISSON, POISSON], 1)
    with pytest.raises(ValueError, match="expected a schedule that begins at 0"):
        FreshBatches([POISSON], 4, resolution={0.5: 32})


def test_fixed_batches_cover_each_example_once_an_epoch(tmp_path):
    poisson = draw_split(POISSON, "train", 11, resolution=8)
    poisson.coefficients[:, 0] = 1 + torch.arange(11)
    helmholtz = Task.parse("SYS-3(1,10)")
    other = draw_split(helmholtz, "train", 6, resolution=8)
    other.coefficients[:, 0] = 100 + torch.arange(6)
    with DatasetFile(write_released(other, tmp_path / "helmholtz.h5"), "SYS-3") as file:
        batches = FixedBatches([(POISSON.system, poisson), (helmholtz.system, file)], 5, seed=4)
        assert batches.steps_per_epoch == 4
        orders = []
        for epoch in range(2):
            seen, sizes = [], []
            for step in range(4):
                parts = batches.batch(4 * epoch + step, 0)
                sizes.append(sum(examples.size for _, examples in parts))
                for system, examples in parts:
                    marks = examples.coefficients[:, 0]
                    assert ((marks >= 100) == (system is helmholtz.system)).all()
                    # Rows stay together.
                    first, whole = (100, other) if system is helmholtz.system else (1, poisson)
                    assert torch.equal(examples.solution, whole.solution[(marks - first).long()])
                    seen += marks.tolist()
            assert sizes == [5, 5, 5, 2]  # the last part of an epoch is kept
            assert sorted(seen) == [*range(1, 12), *range(100, 106)]
            orders.append(seen)
        assert orders[0] != orders[1]  # shuffled anew
        again = FixedBatches([(POISSON.system, poisson), (helmholtz.system, file)], 5, seed=4)
        late, same = again.batch(6, 0), batches.batch(6, 0)  # a function of the step: resuming is exact
        assert all(torch.equal(a.source, b.source) for (_, a), (_, b) in zip(late, same, strict=True))


def test_fixed_batches_of_files_are_those_of_memory_in_any_order_of_steps(tmp_path):
    """The batch that is read ahead is used for its own step alone."""
    data = draw_split(POISSON, "train", 23, resolution=8)
    with DatasetFile(generate(POISSON, tmp_path / "data.h5", 23, resolution=8)) as file:
        read, kept = (FixedBatches([(POISSON.system, reader)], 5, seed=2) for reader in (file, data))
        for step in (0, 1, 2, 9, 3, 4, 4, 5, 0):
            ((_, a),), ((_, b),) = read.batch(step, 0), kept.batch(step, 0)
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_chunked_and_compressed_files_are_read_too(tmp_path):
    examples = POISSON.sample(9, 8, stream(0))
    plain = write_released(examples, tmp_path / "plain.h5")
    with h5py.File(plain) as source, h5py.File(tmp_path / "packed.h5", "w") as packed:
        packed.create_dataset("fields", data=source["fields"][()], chunks=(2, 2, 8, 8), compression="gzip")
        packed["tensor"] = source["tensor"][()]
    for path in (plain, tmp_path / "packed.h5"):
        with DatasetFile(path, "poisson") as file:
            for index in (slice(2, 5), torch.tensor([7, 0, 0, 3])):
                for read, expected in zip(file.take(index)[:3], examples.take(index)[:3], strict=True):
                    assert torch.equal(read, expected)


def linked(file, folder, fields):
    with h5py.File(folder / "other.h5", "w") as other:
        other["before"], other["fields"] = np.full(1000, 7.0), fields
    file["fields"] = h5py.ExternalLink("other.h5", "fields")


def elsewhere(file, folder, fields):
    (folder / "raw").write_bytes(bytes(64) + fields.tobytes())
    file.create_dataset("fields", fields.shape, "f4", external=[(str(folder / "raw"), 64, fields.nbytes)])


def virtual(file, folder, fields):
    with h5py.File(folder / "part.h5", "w") as part:
        part["part"] = fields
    layout = h5py.VirtualLayout(fields.shape, "f4")
    layout[:] = h5py.VirtualSource("part.h5", "part", fields.shape)
    file.create_virtual_dataset("fields", layout)


def in_chunks(rows):
    def write(file, folder, fields):
        file.create_dataset("fields", fields.shape, "f4", chunks=(2, 2, 8, 8), compression="gzip")[:rows] = fields[
            :rows
        ]

    return write


def soft(file, folder, fields):
    file["group/inside"], file["fields"] = fields, h5py.SoftLink("/group/inside")


PLACES = {
    "an external link": (linked, None),
    "a soft link": (soft, None),
    "other numbers": (lambda file, folder, fields: file.__setitem__("fields", fields.astype(">f8")), None),
    "chunks": (in_chunks(9), None),
    "a dangling link": (
        lambda file, *_: file.__setitem__("fields", h5py.SoftLink("/x")),
        "fields is a link to nothing",
    ),
    "never": (lambda file, _, fields: file.create_dataset("fields", fields.shape, "f4"), "fields: was never written"),
    "missing chunks": (in_chunks(4), "fields: 3 of its 5 chunks were never written"),
    "external": (elsewhere, "fields: its values are in other files; save them in this one"),
    "virtual": (virtual, "fields: its values are in other files; save them in this one"),
}


@pytest.mark.parametrize(("write", "told"), PLACES.values(), ids=PLACES)
def test_fields_are_read_from_where_hdf5_keeps_them_or_said_to_be_missing(write, told, tmp_path):
    """Like reports that loaders read fill values, or another file's bytes, where HDF5 keeps an array elsewhere."""
    examples = POISSON.sample(9, 8, stream(0))
    with h5py.File(tmp_path / "data.h5", "w") as file:
        write(file, tmp_path, torch.stack([examples.source, examples.solution], 1).numpy())
        file["tensor"] = examples.coefficients.numpy()
    if told:
        with pytest.raises(ValueError, match=rf"data.h5: .*{told}"):
            DatasetFile(tmp_path / "data.h5")
        return
    with DatasetFile(tmp_path / "data.h5", POISSON.system) as file:
        for read, expected in zip(file.take([7, 0, 0, 3])[:3], examples.take([7, 0, 0, 3])[:3], strict=True):
            assert torch.equal(read, expected)


@pytest.mark.parametrize("row", [(0, 0, 0), (-1, -1, 0), (0.1, 0.1, 0.2)])
def test_a_row_of_coefficients_that_is_no_equation_is_named(row, tmp_path):
    """Like reports of data sets with rows of zeros that were trained on."""
    examples = POISSON.sample(9, 8, stream(0))
    examples.coefficients[4] = torch.tensor(row)
    with DatasetFile(write_released(examples, tmp_path / "data.h5"), "poisson") as file:
        file.take(slice(0, 4))
        with pytest.raises(ValueError, match=r"data.h5: example 4 has the coefficients \[.*positive definite"):
            file.take(torch.tensor([8, 4, 2]))


def test_a_dataset_file_is_a_sequence(tmp_path):
    """Like reports of data sets that a mask or a negative number reads the wrong rows of."""
    with DatasetFile(generate(POISSON, tmp_path / "data.h5", 9, resolution=8)) as file:
        whole, mask = file[:], torch.arange(9) % 2 == 0
        for index in (3, -1, np.int64(2), torch.tensor(4), [1, 2], mask, mask.numpy(), slice(None, 2, 3), slice(5, 2)):
            for read, expected in zip(file[index], whole.take(index), strict=True):
                assert torch.equal(read, expected)
        assert file[::-2].dial.tolist() == whole.dial.flip(0)[::2].tolist()
        assert (file.take([]).size, len(file), len(list(file))) == (0, 9, 9)
        for index in (9, -10, [9], mask[:8], 1.5, [0.5], torch.tensor([[1]]), None, "x"):
            with pytest.raises(
                ValueError, match=r"data.h5: expected a slice, whole numbers from -9 to 8 or a mask of 9"
            ):
                file.take(index)
        with pytest.raises(IndexError):
            file[9]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_of_a_data_loader_read_a_dataset_file(start, tmp_path):
    """Like reports that an open file cannot be pickled, or is shared by forked workers."""
    with DatasetFile(generate(POISSON, tmp_path / "data.h5", 9, resolution=8)) as file:
        loader = torch.utils.data.DataLoader(file, 4, num_workers=1, multiprocessing_context=start)
        assert torch.equal(torch.cat([batch.solution for batch in loader]), file[:].solution)


def test_files_that_other_programs_have_begun_or_gone_on_with(tmp_path):
    """Like reports that a file is called broken once someone has noted something in it."""
    path = generate(POISSON, tmp_path / "data.h5", 4, resolution=8)
    with h5py.File(path, "r+") as file:
        file.attrs["note"], file["mine"] = "kept", np.zeros(3)
        before = file["fields"][:]
    with DatasetFile(path) as file:
        assert torch.equal(file[:].source, torch.from_numpy(before[:, 0]))
    begins = b"MATLAB 7.3 MAT-file".ljust(512)
    for turned, told in ((False, None), (True, "MATLAB reverses dimensions: save permute")):
        matlab = tmp_path / f"{turned}.mat"
        with h5py.File(matlab, "w", userblock_size=512) as file:
            file["fields"], file["tensor"] = before.T if turned else before, np.full((4, 2), 0.01)
        matlab.write_bytes(begins + matlab.read_bytes()[512:])
        with pytest.raises(ValueError, match=told) if told else nullcontext():
            DatasetFile(matlab, "helmholtz").take(0)


def test_fixed_batches_are_never_larger_than_the_data():
    data = draw_split(POISSON, "train", 3, resolution=8)
    batches = FixedBatches([(POISSON.system, data)], 128)
    assert (batches.batch_size, batches.steps_per_epoch) == (3, 1)
    with pytest.raises(ValueError, match="expected at least one example"):
        FixedBatches([], 4)
