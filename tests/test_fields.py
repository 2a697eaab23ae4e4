"""Files of fields that other programs wrote: layouts as they are found, what a file says, splits, and bad files."""

import json
import pickle
import re
import zipfile
from functools import partial

import h5py
import numpy as np
import pytest
import torch

from sciml_fm_core import Task, generate
from sciml_fm_core.data.arrays import ArrayFile
from sciml_fm_core.data.describe import describe
from sciml_fm_core.data.fields import FieldsFile
from sciml_fm_core.data.given import Rows, described
from sciml_fm_core.data.hdf5 import OutOfRange
from sciml_fm_core.data.layout import Layout, Times, layout_beside
from sciml_fm_core.data.own import find_layout, open_splits, trained_on

N, NY, NX = 6, 9, 12
RANDOM = np.random.default_rng(0)
A, U = (RANDOM.normal(size=(N, NY, NX)).astype("f4") for _ in range(2))
UV = np.stack([U, U + 1], axis=1)
NU = np.linspace(0.1, 0.6, N)
TIMES = RANDOM.normal(size=(N, 20, NY, NX)).astype("f4")


def open_fields(path, inputs=None, targets=None, scalars="", **options):
    return FieldsFile(path, None if inputs is None else Layout(inputs, targets, scalars, **options))


def hdf5(path, attributes=None, **arrays):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name.replace("__", "/")] = values
        file.attrs.update(attributes or {})
    return path


def matlab(path, **arrays):
    """As MATLAB writes version 7.3: a block of 512 bytes before HDF5, axes reversed, vectors as matrices."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            values = np.asarray(values)
            values = values.astype("u1") if values.dtype == bool else values
            dataset = file.create_dataset(name, data=np.atleast_2d(values).T)
            dataset.attrs["MATLAB_class"] = np.bytes_("logical" if values.dtype == "u1" else "double")
        file.create_group("#refs#")["a"] = np.ones(3)
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Mon Jan  1 00:00:00 2026 HDF5 schema 1.00 .")
    return path


def npz(path, **arrays):
    np.savez_compressed(path, **arrays)
    return path


def tensors(path, content):
    torch.save(content, path)
    return path


def check(file, inputs, targets, scalars=None):
    """All examples, some in another order, and one, are those that are expected, (N, channels, ny, nx)."""
    assert (file.size, file.shape) == (N, (NY, NX))
    scalars = np.zeros((N, 0)) if scalars is None else scalars
    inputs, targets = (part.squeeze(1) if part.shape[1] == 1 else part for part in (inputs, targets))
    for index in (slice(None), [4, 0, 4], torch.tensor([1, 2, 3]), np.arange(N) > 3, -1, slice(0, 0)):
        rows = index.numpy() if isinstance(index, torch.Tensor) else index
        for part, expected in zip(file.take(index), (inputs, scalars, targets, np.zeros(N)), strict=True):
            assert part.dtype == torch.float32
            assert part.shape == expected[rows].shape
            np.testing.assert_array_equal(part, np.asarray(expected, "f4")[rows])
    file.close()


def test_darcy_flow_in_tensors(tmp_path):
    """The layout of neuraloperator's darcy_train_16.pt."""
    path = tensors(tmp_path / "darcy.pt", {"x": torch.from_numpy(A > 0), "y": torch.from_numpy(U)})
    check(open_fields(path, "x", "y"), (A > 0)[:, None], U[:, None])
    said = describe(path)
    assert (said.kind, said.examples, [one.dtype for one in said.arrays]) == ("PyTorch", N, ["bool", "float32"])
    assert said.command == f"Try: sciml-fm pretrain --data {path} --inputs x --targets y"
    assert str(said).splitlines()[2].split() == ["x", "6", "x", "9", "x", "12", "bool", "0", "to", "1"]


def test_pdebench(tmp_path):
    """The layout of 2D_DarcyFlow_beta1.0_Train.hdf5: an axis of one time."""
    coordinates = {"x-coordinate": np.arange(NY), "y-coordinate": np.arange(NX), "t-coordinate": np.zeros(1)}
    path = hdf5(tmp_path / "own.hdf5", {"beta": 1.0}, nu=A, tensor=U[:, None], **coordinates)
    check(open_fields(path, "nu", "tensor"), A[:, None], U[:, None])
    assert describe(path).command.endswith("--inputs nu --targets tensor")


def test_pdebench_on_a_line_is_refused(tmp_path):
    path = hdf5(tmp_path / "own.hdf5", tensor=A, nu=NU)
    with pytest.raises(ValueError, match=r"own.hdf5: expected other targets than inputs, got tensor; of trajectories"):
        open_fields(path, "tensor", "tensor", "nu")
    with pytest.raises(ValueError, match=r"expected trajectories on a plane, .* with the times \[0, 1\], got no times"):
        open_fields(path, "tensor", "tensor", time=Times())
    with pytest.raises(ValueError, match=r"nu: \(6,\): expected fields on a plane, \(N, ny, nx\), and at most"):
        open_fields(path, "nu", "tensor")


def test_matlab(tmp_path):
    """The layout of the FNO paper's NavierStokes_V1e-3_N5000_T50.mat: times last; and a row of scalars."""
    path = matlab(tmp_path / "own.mat", a=A, mask=A > 0, u=np.moveaxis(TIMES, 1, -1), t=np.arange(20.0), nu=NU)
    file = open_fields(path, "a,mask", "u", "nu", time=Times("last", targets=[-1, 3]))
    assert file.target_names == ["u at time -1", "u at time 3"]
    check(file, np.stack([A, A > 0], axis=1), TIMES[:, [-1, 3]], NU[:, None])
    with pytest.raises(
        ValueError, match=r"u: \(6, 9, 12, 20\): which axes are of the plane is not sure; say --channels"
    ):
        open_fields(path, "a", "u")
    said = describe(path)
    assert (said.kind, said.layout.time) == ("MATLAB 7.3", Times("last", slide=True))
    assert said.arrays[0].shape == (N, NY, NX)
    (tmp_path / "own.yaml").write_text(said.yaml)
    assert layout_beside(path) == said.layout
    assert f"time: {{axis: last, inputs: 0, targets: 1, slide: true}}\nTry: sciml-fm pretrain --data {path}" in str(
        said
    )


def test_matlab_of_version_7(tmp_path):
    (tmp_path / "own.mat").write_bytes(b"MATLAB 5.0 MAT-file, Platform: PCWIN64".ljust(128))
    with pytest.raises(ValueError, match=r"own.mat: a MAT-file of version 7 or older, expected 7.3; .* '-v7.3'"):
        describe(tmp_path / "own.mat")


def well(path):
    velocity = np.stack([TIMES, TIMES + 1], axis=-1)
    arrays = {"t0_fields__density": TIMES, "t1_fields__velocity": velocity, "scalars__Re": np.float32(100)}
    return hdf5(path, {"n_spatial_dims": 2}, dimensions__time=np.arange(20), t0_fields__mask=A, **arrays)


def test_the_well(tmp_path):
    path = well(tmp_path / "own.hdf5")
    with pytest.raises(
        ValueError, match=r"density: \(6, 20, 9, 12\) seems to be of trajectories; say in a YAML which times"
    ):
        open_fields(path, "density", "velocity")
    layout = {"inputs": "mask,density,velocity_1", "targets": "velocity", "scalars": "Re"}
    file = open_fields(path, **layout, time=Times(inputs=[0, 1], targets=2))
    assert file.input_names == ["mask"] + [f"{name} at time {i}" for name in ("density", "velocity_1") for i in (0, 1)]
    inputs = np.concatenate([A[:, None], TIMES[:, :2], TIMES[:, :2] + 1], axis=1)
    check(file, inputs, np.stack([TIMES[:, 2], TIMES[:, 2] + 1], axis=1), np.full((N, 1), 100.0))
    with open_fields(path, **layout, time=Times(inputs=[0, 1], targets=2, slide=True)) as file:
        assert file.size == N * 18
        found = file.take([18 * 3 + 5, 17])
        np.testing.assert_array_equal(found.source[0, 1:3], TIMES[3, 5:7])
        np.testing.assert_array_equal(found.solution[:, 0], [TIMES[3, 7], TIMES[0, 19]])
    states = ["density", "velocity"]
    assert describe(path).layout == Layout(["density", "mask", "velocity"], states, time=Times(slide=True))


def test_a_force_beside_trajectories(tmp_path):
    """The layout of PDEBench's ns_incom files: a force has channels where a velocity has times."""
    path = hdf5(tmp_path / "own.h5", force=np.moveaxis(UV, 1, -1), velocity=TIMES[..., None])
    file = open_fields(path, "force,velocity", "velocity", time=Times(targets=3))
    check(file, np.concatenate([UV, TIMES[:, :1]], axis=1), TIMES[:, 3:4])
    assert describe(path).layout == Layout("force,velocity", "velocity", time=Times(slide=True))
    path = hdf5(tmp_path / "few.h5", force=UV, velocity=TIMES[:, :2, None])
    with pytest.raises(ValueError, match=r"force: .* whether 2 is the number of times or of channels is not sure"):
        open_fields(path, "force,velocity", "velocity", time=Times())


def test_channels_last_in_npz(tmp_path):
    path = npz(tmp_path / "own.npz", a=A, u=np.moveaxis(UV, 1, -1), p=np.stack([NU, 2 * NU], axis=1), one=3)
    file = open_fields(path, ["a"], ["u"], ["p", "one"])
    assert (file.target_names, file.scalar_names) == (["u_0", "u_1"], ["p_0", "p_1", "one"])
    check(file, A[:, None], UV, np.stack([NU, 2 * NU, np.full(N, 3)], axis=1))
    check(open_fields(path, "a,u_0", "u_1", "p_1"), np.stack([A, U], axis=1), UV[:, 1:], 2 * NU[:, None])
    assert describe(path).command.endswith("--inputs a --targets u --scalars p")
    with pytest.raises(ValueError, match=r"expected other targets than inputs, got u_1"):
        open_fields(path, "u", "u_1")
    with pytest.raises(ValueError, match=r"own.npz: u: .*: expected a channel below 2, got u_2"):
        open_fields(path, "a", "u_2")


def test_a_folder_with_a_file_for_each_array(tmp_path):
    """The layout of CFDBench, u.npy and v.npy; and of bare tensors."""
    np.save(tmp_path / "u.npy", np.asfortranarray(U.astype(">f8")))
    tensors(tmp_path / "a.pt", torch.from_numpy(A).to(torch.bfloat16))
    npz(tmp_path / "more.npz", nu=NU)
    (tmp_path / "readme.txt").write_text("own")
    rounded = torch.from_numpy(A).to(torch.bfloat16).float().numpy()
    check(open_fields(tmp_path, "a", "u", "nu"), rounded[:, None], U[:, None], NU[:, None])
    assert describe(tmp_path).command.endswith("--inputs a --targets u --scalars nu")


def test_ambiguous_channels_are_asked_for(tmp_path):
    square = RANDOM.normal(size=(N, 4, 5, 4))
    path = npz(tmp_path / "own.npz", a=square, u=square[:, :2])
    with pytest.raises(ValueError, match=r"a: \(6, 4, 5, 4\): which axes are of the plane is not sure; say --channels"):
        open_fields(path, "a", "u")
    with open_fields(path, "a", "u", channels="first") as file:
        assert file.shape == (5, 4)
        assert file.input_names == ["a_0", "a_1", "a_2", "a_3"]
    with pytest.raises(
        ValueError, match=r"expected one points \(ny, nx\) in all fields, got \(4, 5\) of a, \(2, 5\) of u"
    ):
        open_fields(path, "a", "u", channels="last")


def test_scattered_points_are_no_fields(tmp_path):
    """The layout of DeepXDE's files: functions at sensors, and an array of objects."""
    objects = np.empty(2, object)
    objects[:] = [np.ones((3, 2)), np.ones(4)]
    path = npz(tmp_path / "own.npz", X=objects, X_train0=np.ones((50, 100)), y=np.ones((50, 1)))
    assert describe(path).arrays[0].note.startswith("expected an array of numbers, got Python objects or texts")
    assert "No array of fields was found" in str(describe(path))
    with pytest.raises(ValueError, match=r"own.npz: X: expected an array of numbers, got Python objects"):
        open_fields(path, "X", "y")


def test_it_reads_in_other_processes(tmp_path):
    rows = Rows(open_fields(hdf5(tmp_path / "own.h5", group__a=A, group__u=U), "a", "u"), torch.tensor([5, 3]))
    again = pickle.loads(pickle.dumps(rows))
    assert again.size == 2
    np.testing.assert_array_equal(again.take(slice(0, 1)).solution, U[5:6])
    rows.file._process = -1  # as if it were another's
    np.testing.assert_array_equal(rows.take([1]).source, A[3:4])
    with pytest.raises(OutOfRange, match="expected a slice, whole numbers from -6 to 5 or a mask of 6"):
        rows.file.take([6])


def test_our_own_dataset_is_known(tmp_path):
    path = generate(Task.parse("SYS-1(1,5)"), tmp_path / "own.h5", 2, resolution=8)
    assert "sciml-fm dataset of SYS-1(1,5)\n" in str(describe(path))
    assert describe(path).command == f"Try: sciml-fm pretrain --data {path}"
    with pytest.raises(ValueError, match=r"own.h5: a dataset of poisson by `sciml-fm generate`, which needs no names"):
        open_fields(path, "fields", "fields")


# Layouts and splits ---------------------------------------------------------------------------------------------------


def test_a_layout_beside_the_file(tmp_path):
    path = npz(tmp_path / "own.npz", a=A, u=U, nu=NU)
    with pytest.raises(
        ValueError, match=r"own.npz: expected names of inputs and targets, got none; name some of a, u, nu by"
    ):
        open_fields(path)
    (tmp_path / "own.yaml").write_text("inputs: a\ntargets: [u]\nscalars: nu\nperiodic: false\nsplits: {test: 0.5}\n")
    assert layout_beside(path) == Layout(["a"], ["u"], ["nu"], periodic=False, splits={"test": 0.5})
    check(open_fields(path), A[:, None], U[:, None], NU[:, None])
    parts = open_splits(path)
    assert {name: part.size for name, part in parts.items()} == {"train": 2, "validation": 1, "test": 3}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("inputs: [a", "own.npz.yaml, line 1: "),
        ("inputs: \udce4", "layout .*own.npz.yaml: not readable .*; expected YAML in UTF-8"),
        ("inputs: a", "own.npz.yaml: lacks targets"),
        ("inputs: 3\ntargets: u", "own.npz.yaml: inputs: expected a text, got 3"),
        ("inputs: ','\ntargets: u", "own.npz.yaml: expected at least one array as inputs, got none"),
        ("inputs: [a, a]\ntargets: u", "own.npz.yaml: expected each of the inputs once, got a, a"),
        ("inputs: a\ntargets: u\nperiod: true", "expected the names inputs, targets, .*, got 'period' too"),
        ("inputs: a\ntargets: u\nchannels: middle", "own.npz.yaml: channels: expected first or last, got 'middle'"),
        ("inputs: a\ntargets: u\ntime: {axis: 2}", "own.npz.yaml: time: axis: expected a text, got 2"),
        (
            "inputs: a\ntargets: u\ntime: {inputs: []}",
            "own.npz.yaml: time: expected at least one time of inputs and one",
        ),
        ("inputs: a\ntargets: u\ntime: {targets: -1, slide: true}", "time: expected times from 0 on where they slide"),
        (
            "inputs: a\ntargets: u\nsplits: {training: 0.5}",
            "own.npz.yaml: splits: expected train, validation, test, got",
        ),
        (
            "inputs: a\ntargets: u\nsplits: {train: 0.9, test: 0.2}",
            "splits: expected shares above 0, together at most 1",
        ),
        (
            "inputs: a\ntargets: u\nsplits: {test: 1}",
            "own.npz: expected examples to train on beside those held out, got 6",
        ),
        (
            "inputs: a\ntargets: u\nsplits: {test: part}",
            "own.npz: splits: expected arrays under part/, or that end in _part, or a file part, got a, u",
        ),
        ("inputs: b\ntargets: u", "own.npz: expected an array b, got a, u"),
        ("inputs: a\ntargets: u\nsplits: {train: .nan}", "splits: .*train.: expected a text, got nan"),
        ("inputs: a\ntargets: u\nscalars: a=nu", "expected each field and scalar once, got a twice"),
        ("inputs: a\ntargets: u\nsplits: {test: own.npz}", "expected other examples for test than for train"),
        ("inputs: a\ntargets: u\nsplits: {validation: same.npz, test: same.npz}", "for test than for validation"),
    ],
)
def test_a_bad_layout_is_one_line(tmp_path, text, said):
    path = npz(tmp_path / "own.npz", a=A, u=U, nu=np.arange(6.0))
    npz(tmp_path / "same.npz", a=A, u=U + 1)
    (tmp_path / "own.npz.yaml").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=said) as error:
        open_splits(path)
    assert "\n" not in str(error.value)


def rows_of(parts):
    return {name: part.rows.tolist() for name, part in parts.items()}


def test_splits_are_drawn_once_with_the_seed(tmp_path):
    path = npz(tmp_path / "own.npz", a=np.ones((40, 8, 8)), u=np.ones((40, 8, 8)))
    first, again, other = (rows_of(open_splits(path, Layout("a", "u", seed=seed))) for seed in (0, 0, 1))
    assert first == again != other
    assert sorted(row for part in first.values() for row in part) == list(range(40))
    assert [len(part) for part in first.values()] == [24, 8, 8]


def test_trajectories_are_split_whole(tmp_path):
    path = npz(tmp_path / "own.npz", u=np.ones((10, 5, 8, 8)))
    parts = open_splits(path, Layout("u", "u", time=Times(slide=True)))
    assert {name: part.size for name, part in parts.items()} == {"train": 24, "validation": 8, "test": 8}


def test_splits_by_groups(tmp_path):
    path = hdf5(tmp_path / "own.h5", train__a=A, train__u=U, eval__a=A[:2], eval__u=U[:2] + 1)
    parts = open_splits(path, Layout("a", "u", splits={"train": "train", "test": "eval"}))
    assert {name: part.size for name, part in parts.items()} == {"train": 5, "validation": 1, "test": 2}
    np.testing.assert_array_equal(parts["test"].take(slice(None)).solution, U[:2] + 1)


def test_one_group_for_each_example_is_told(tmp_path):
    """The layout of PDEBench's 2D_rdb_NA_NA.h5."""
    path = hdf5(tmp_path / "own.h5", **{f"000{i}__data": TIMES[..., None][0] for i in range(3)})
    assert "Arrays of the same names are in 0000, 0001, 0002: stack them into one array each" in str(describe(path))


def test_splits_of_other_channels_are_refused(tmp_path):
    path = npz(tmp_path / "own.npz", a=A, u=U)
    npz(tmp_path / "test.npz", a=A, u=UV)
    with pytest.raises(ValueError, match=r"test.npz: expected the channels of those to train on, got a, u_0, u_1"):
        open_splits(path, Layout("a", "u", splits={"test": "test.npz"}))


def test_splits_by_endings_and_another_file(tmp_path):
    path = npz(tmp_path / "own.npz", a_train=A, u_train=U, a_test=A[:2], u_test=U[:2] + 1)
    said = describe(path)
    assert said.layout == Layout("a", "u", splits={"train": "train", "test": "test"})
    parts = open_splits(path, said.layout)
    assert {name: part.size for name, part in parts.items()} == {"train": 5, "validation": 1, "test": 2}
    np.testing.assert_array_equal(parts["test"].take(slice(None)).solution, U[:2] + 1)
    npz(tmp_path / "test.npz", a=A[:3, 1:], u=U[:3, 1:])
    path = npz(tmp_path / "other.npz", a=A, u=U)
    assert open_splits(path, Layout("a", "u", splits={"test": "test.npz"}))["test"].resolution == (NY - 1, NX)


def test_a_card_keeps_the_splits(tmp_path):
    """What was held out is found again from the card, whatever the file is called and the YAML beside it says then."""
    path = npz(tmp_path / "own.npz", a=np.ones((40, 8, 8)), u=np.ones((40, 8, 8)))
    parts = open_splits(path, Layout("a", "u", splits={"test": 0.5}, seed=3))
    card = {"parent": {"data": [described(parts["train"])]}}
    other = path.rename(tmp_path / "renamed.npz")
    (tmp_path / "renamed.yaml").write_text("inputs: a\ntargets: u\nseed: 5\n")
    assert card["parent"]["data"][0]["layout"]["splits"] == {"test": 0.5, "validation": 0.2}
    shares = Layout("a", "u", splits={"train": 0.9, "test": 0.1})
    parts_of_all = open_splits(other, shares)
    assert {name: part.size for name, part in parts_of_all.items()} == {"train": 28, "validation": 8, "test": 4}
    assert rows_of(open_splits(other, parts_of_all["test"].file.layout)) == rows_of(parts_of_all)
    again = open_splits(other, trained_on(other, json.loads(json.dumps(card))))
    assert rows_of(again) == rows_of(parts)
    assert find_layout(other, {}, card).seed == 5
    npz(tmp_path / "new.npz", a=A, u=U)
    assert trained_on(tmp_path / "new.npz", card) is None
    assert find_layout(tmp_path / "new.npz", {}, card) == Layout("a", "u")
    with pytest.raises(ValueError, match=r"new.npz: expected names of inputs and of targets, got those of scalars"):
        find_layout(tmp_path / "new.npz", {"scalars": "nu"})


# Bad files ------------------------------------------------------------------------------------------------------------


def with_values(values):
    changed = A.copy()
    changed[3, 0, 0] = values
    return changed


def cut(path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    return path


def linked(path):
    hdf5(path.with_name("other.h5"), a=A)
    hdf5(path, u=U)
    with h5py.File(path, "a") as file:
        file["a"] = h5py.ExternalLink("other.h5", "a")
    return path


def elsewhere(path):
    A.tofile(path.with_name("raw"))
    hdf5(path, u=U)
    with h5py.File(path, "a") as file:
        file.create_dataset("a", A.shape, "f4", external=[(str(path.with_name("raw")), 0, A.nbytes)])
    return path


def unwritten(path):
    hdf5(path, u=U)
    with h5py.File(path, "a") as file:
        file.create_dataset("a", A.shape, "f4")
    return path


def unsigned(path):
    with h5py.File(hdf5(path, u=U, a=(A * 100).astype("i1")), "a") as file:
        file["a"].attrs["_Unsigned"] = "true"
    return path


def packed(path):
    hdf5(path, u=U, a=(A * 100).astype("i2"))
    with h5py.File(path, "a") as file:
        file["a"].attrs["scale_factor"] = 0.01
    return path


def filled(path, value=1e20, **attributes):
    """Where NetCDF has no value, a number that an attribute says, its default, or one that is not valid."""
    hdf5(path, u=U)
    with h5py.File(path, "a") as file:
        file.create_dataset("a", data=with_values(value), fillvalue=15 * 2.0**119)
        file["a"].attrs.update(attributes)
    return path


def bomb(path):
    """A header that declares more than the member holds."""
    npz(path, u=U)
    with zipfile.ZipFile(path, "a") as archive, archive.open("a.npy", "w") as content:
        np.lib.format.write_array_header_1_0(
            content, {"descr": "<f4", "fortran_order": False, "shape": (N, 10**9, 10**9)}
        )
    return path


def damaged(path):
    npz(path, a=A, u=U)
    content = bytearray(path.read_bytes())
    content[300] ^= 255
    path.write_bytes(content)
    return path


def pickled(path):
    path.write_bytes(pickle.dumps({"a": re.compile("a"), "u": 1}, protocol=2))
    return path


def text(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    return path


BAD = {
    "missing": ("own.npz", lambda path: path, "own.npz: no such file"),
    "a pointer": (
        "own.npz",
        text,
        r"expected HDF5, MATLAB 7.3, NPZ, NPY or .*begins with b'version https://git-'; save",
    ),
    "two of a name": (
        "own",
        lambda path: path.mkdir() or np.save(path / "a.npy", A) or npz(path / "a.npz", a=U).parent,
        "own: expected one array of each name, got a twice; rename one of them",
    ),
    "empty folder": ("own", lambda path: path.mkdir() or path, "own: a folder without a file of arrays"),
    "cut npz": (
        "own.npz",
        lambda path: cut(npz(path, a=A, u=U), 2000),
        "own.npz: expected HDF5, .* got one that begins",
    ),
    "cut hdf5": ("own.h5", lambda path: cut(hdf5(path, a=A, u=U), 4000), "own.h5: not readable, damaged or cut short"),
    "cut npy": (
        "",
        lambda path: np.save(path / "a.npy", A) or np.save(path / "u.npy", U) or cut(path / "a.npy", 999).parent,
        "a: not readable, the file is damaged there",
    ),
    "cut tensors": (
        "own.pt",
        lambda path: cut(tensors(path, {"a": torch.ones(9999)}), 9000),
        "own.pt: expected HDF5, MATL",
    ),
    "code": ("own.pt", pickled, "own.pt: expected tensors, or a dictionary .* damaged or would run code"),
    "damaged npz": ("own.npz", damaged, "own.npz: not readable, damaged or cut short .Bad CRC"),
    "a bomb": ("own.npz", bomb, r"a: it declares \(6, 1000000000, 1000000000\) and holds other"),
    "expanded": (
        "own.pt",
        lambda path: tensors(path, {"a": torch.ones(1).expand(6, 99999, 99999), "u": torch.ones(6, 8, 8)}),
        r"a: it declares \(6, 99999, 99999\), more than it holds; save tensor.clone",
    ),
    "sparse": (
        "own.pt",
        lambda path: tensors(path, {"a": torch.eye(3).to_sparse(), "u": 1}),
        "a: expected a dense tensor",
    ),
    "an external link": ("own.h5", linked, "a: a link to a in another file, other.h5; name that itself, or save"),
    "external": ("own.h5", elsewhere, "a: its values are in other files; save them in this one"),
    "unwritten": ("own.h5", unwritten, "a: was never written"),
    "packed": ("own.h5", packed, "a: packed by scale_factor and add_offset; save the values themselves"),
    "NaN": (
        "own.npz",
        lambda path: npz(path, a=with_values(np.nan), u=U),
        "own.npz: a: .* got NaN or infinity in example 3;",
    ),
    **{
        f"no value {i}": ("own.nc", make, "own.nc: a: .* got NaN or infinity in example 3;")
        for i, make in enumerate(
            [
                partial(filled, _FillValue=np.float32(1e20)),
                partial(filled, value=15 * 2.0**119),
                partial(filled, valid_range=[-1e3, 1e3]),
                partial(filled, valid_max=1e3),
                partial(filled, value=-9999, missing_value="-9999"),
            ]
        )
    },
    "unsigned": (
        "own.nc",
        unsigned,
        "own.nc: a: numbers with a sign that are meant without",
    ),
    "too small": ("own.npz", lambda path: npz(path, a=A.astype("f8") * 1e-50, u=U), "a: .* that float32 tells apart"),
    "rounded": (
        "own.h5",
        lambda path: hdf5(path, a=A.astype("f8") + 1e9, u=U),
        r"a: expected values that float32 tells apart, got a spread of .* about 1e\+09; save them less their mean",
    ),
    "too large": (
        "own.h5",
        lambda path: hdf5(path, a=A.astype("f8") * 1e300, u=U),
        "own.h5: a: expected finite values in float32, got",
    ),
    "complex": (
        "own.npz",
        lambda path: npz(path, a=A + 1j, u=U),
        "a: expected real numbers, got complex ones; save real",
    ),
    "text": (
        "own.h5",
        lambda path: hdf5(path, a=["one", "two"], u=U),
        "a: expected an array of numbers, got Python objects",
    ),
    "records": (
        "own.npz",
        lambda path: npz(path, a=np.zeros(6, "f4,f4"), u=U),
        "a: expected an array of numbers, got record",
    ),
    "empty": ("own.npz", lambda path: npz(path, a=A[:0], u=U), "a: it holds nothing"),
    "counts": (
        "own.npz",
        lambda path: npz(path, a=A[:5], u=U),
        "expected one number of examples, the first axis in all fields, got 5 of a, 6 of u",
    ),
    "space": (
        "own.npz",
        lambda path: npz(path, a=np.ones((6, 8, 8, 8, 8)), u=U),
        "a: .* seems to be of trajectories; say",
    ),
    "twice": (
        "own.h5",
        lambda path: hdf5(path, one__a=A, two__a=A, u=U),
        "a may be one/a or two/a; write one of these",
    ),
    "near": ("own.npz", lambda path: npz(path, a0=A, u=U), r"expected an array a, got a0, u; did you mean a0\?"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_one_line(tmp_path, case):
    name, make, said = BAD[case]
    path = make(tmp_path / name)
    with pytest.raises(ValueError, match=said) as error, open_fields(path, "a", "u") as file:
        file.take(slice(None))
    assert "\n" not in str(error.value)


def test_hostile_names(tmp_path):
    path = hdf5(tmp_path / "own.h5", **{"a\n\x1b[2J": A, "no, yes": A, "u": U})
    said = describe(path)
    assert [one.name for one in said.arrays] == ["a\\n\\x1b[2J", "no, yes", "u"]
    (tmp_path / "own.h5.yaml").write_text(said.yaml)
    assert layout_beside(path) == said.layout
    check(open_fields(path), np.stack([A, A], axis=1), U[:, None])


def test_groups_in_a_circle_end(tmp_path):
    path = hdf5(tmp_path / "own.h5", group__a=A)
    with h5py.File(path, "a") as file:
        file["group/again"] = file["group"]
    with ArrayFile(path) as found:
        assert list(found.arrays) == ["group/a"]


def test_what_is_not_finite_is_told(tmp_path):
    path = npz(tmp_path / "own.npz", a=with_values(np.inf), u=U)
    assert describe(path).arrays[0].note == "NaN or infinity in example 3"


# Layouts that were found in files of others -------------------------------------------------------------------------


def write_climate(path, times=20):
    """A field by time, latitude and longitude, as NetCDF 4 holds it."""
    values = np.random.default_rng(0).normal(size=(times, 9, 12)).astype("f4")
    with h5py.File(path, "w") as file:
        file["uwnd"], file["time"], file["latitude"] = values, np.arange(times), np.linspace(-90, 90, 9)
    return values


def test_one_trajectory_is_a_series_whose_last_times_are_held_out(tmp_path):
    path = tmp_path / "wind.nc"
    values = write_climate(path)
    said = describe(path)
    assert said.layout == Layout("uwnd", "uwnd", time=Times("only", slide=True))
    assert (said.examples, "times of one trajectory" in said.note) == (19, True)
    (tmp_path / "wind.nc.yaml").write_text(said.yaml)
    parts = open_splits(path)
    assert [parts[name].rows.tolist() for name in ("train", "validation", "test")] == [
        list(range(13)), [13, 14, 15], [16, 17, 18]
    ]  # fmt: skip
    ahead = open_splits(path, Layout("uwnd", "uwnd", time=Times("only", 0, [1, 2, 3], slide=True)))
    assert [max(ahead[name].rows) + 3 for name in ("train", "validation")] == [
        min(ahead[name].rows) for name in ("validation", "test")
    ]  # a target of one is none of another
    with pytest.raises(ValueError, match="expected other targets than inputs"):
        open_splits(path, Layout("uwnd", "uwnd", time=Times("only", [0, 1], [1, 2], slide=True)))
    found = parts["test"].take(slice(None))
    assert np.array_equal(found.source.numpy(), values[16:19])
    assert np.array_equal(found.solution.numpy(), values[17:20])


@pytest.mark.parametrize(("arrays", "says"), [
    ({"input": np.ones((6, 8)), "output": np.ones((6, 5, 8))}, "input seems to be a field on a line"),
    ({"sst": np.full((6, 8, 8), np.nan), "x": np.full((6, 8, 8), np.inf)}, "NaN or infinity in every array of fields"),
])  # fmt: skip
def test_what_cannot_be_learned_from_is_said(tmp_path, arrays, says):
    np.savez(tmp_path / "own.npz", **arrays)
    said = describe(tmp_path / "own.npz")
    assert (said.layout, said.note[: len(says)]) == (None, says)


def test_fields_with_gaps_are_not_suggested(tmp_path):
    np.savez(tmp_path / "own.npz", a=np.ones((6, 8, 8)), gaps=np.full((6, 8, 8), np.nan), u=np.ones((6, 8, 8)))
    assert describe(tmp_path / "own.npz").layout == Layout("a", "u")


def test_containers_that_are_to_be_converted(tmp_path):
    (tmp_path / "old.nc").write_bytes(b"CDF\x01" + bytes(64))
    with pytest.raises(ValueError, match="NetCDF of the classic kind, expected NetCDF 4; convert it by nccopy"):
        describe(tmp_path / "old.nc")
    with h5py.File(tmp_path / "cells.mat", "w") as file:
        file["one"] = np.ones((4, 4))
        file.create_dataset("cells", data=[[file["one"].ref]], dtype=h5py.ref_dtype)
    assert "a cell or struct array of MATLAB" in str(describe(tmp_path / "cells.mat"))
