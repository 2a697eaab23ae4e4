"""Bundles: save and load, cards, damaged and foreign files, prediction in physical units, what ships."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sciml_fm_core import (
    FNO,
    Ensemble,
    Evolution,
    FNOConfig,
    Operator,
    Task,
    digests,
    evaluate,
    load_operator,
    relative_error,
    shipped_operators,
)
from sciml_fm_core.digests import with_digest
from sciml_fm_core.experiments.low_precision.method import predict_in
from sciml_fm_core.experiments.uncertainty.ensemble import load_ensemble
from sciml_fm_core.models import predict as predict_module
from sciml_fm_core.models.operator import read_header
from sciml_fm_core.models.packed import BLOCK, SMALL, pack, unpack

ROOT = Path(__file__).resolve().parent.parent
LABELS = ("SYS-1(1,5)", "SYS-2(0.2,1)", "SYS-3(1,10)")


def draw(label, count=3, n=16, dtype=torch.float32):
    return Task.parse(label).sample(count, n, torch.Generator().manual_seed(4), dtype=dtype)


def rewrite_header(path, change):
    """The same bundle with another JSON header, and the digest of that."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["header"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    save_file(tensors, path, metadata={"header": json.dumps(with_digest(change(header), tensors))})


# Save and load --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["paper", "dimensionless"])
@pytest.mark.parametrize("labels", [LABELS[:1], LABELS[1:2], LABELS[2:], LABELS])
def test_predicts_identically_after_save_and_load(small_operator, tmp_path, kind, labels):
    operator = small_operator(*labels, kind=kind)
    loaded = load_operator(operator.save(tmp_path / "bundle.safetensors"))
    assert loaded.device.type == "cpu"
    assert [s.name for s in loaded.systems] == [Task.parse(label).system.name for label in labels]
    for label in labels:
        examples, system = draw(label), Task.parse(label).system
        prediction = operator.predict(examples.source, examples.coefficients, system)
        assert torch.equal(loaded.predict(examples.source, examples.coefficients, system), prediction)
        assert torch.isfinite(prediction).all()


def test_card_round_trips(small_operator, tmp_path):
    card = {
        "tasks": ["SYS-1(1,5)"],
        "errors": {"SYS-1(1,5)": 0.0123},
        "note": "ä – ∇",
        "curve": [[1, 0.5]],
        "none": None,
    }
    operator = small_operator()
    operator.card = card
    path = operator.save(tmp_path / "bundle.safetensors")
    assert load_operator(path).card == card
    assert read_header(path).card == card


def test_bundle_is_one_file(small_operator, tmp_path):
    path = small_operator().save(tmp_path / "bundle.safetensors")
    assert list(tmp_path.iterdir()) == [path]
    moved = tmp_path / "elsewhere.safetensors"
    path.rename(moved)
    assert load_operator(str(moved)).card["tasks"] == ["SYS-1(1,5)"]


def test_half_precision_bundles_are_half_the_size_and_close(small_operator, tmp_path):
    operator = small_operator()
    whole, half = operator.save(tmp_path / "a.safetensors"), operator.save(tmp_path / "b.safetensors", half=True)
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    source, coefficients, _, _ = draw("SYS-1(1,5)")
    a, b = (load_operator(path).predict(source, coefficients) for path in (whole, half))
    assert next(load_operator(half).model.parameters()).dtype == torch.float32
    assert 0 < (a - b).norm() / a.norm() < 1e-2


def test_failed_save_leaves_the_old_file(small_operator, tmp_path, monkeypatch):
    path = small_operator().save(tmp_path / "bundle.safetensors")
    before = path.read_bytes()

    def break_off(tensors, partial, header):
        partial.write_bytes(b"half a file")
        raise OSError("no space left on device")

    monkeypatch.setattr(digests, "save_tensors", break_off)
    with pytest.raises(OSError, match="no space left"):
        small_operator(seed=1).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_card_that_is_no_json_leaves_the_old_file(small_operator, tmp_path):
    operator = small_operator()
    path = operator.save(tmp_path / "bundle.safetensors")
    before = path.read_bytes()
    operator.card["tensor"] = torch.zeros
    with pytest.raises(ValueError, match=r"expected numbers, texts, .* and nothing was written"):
        operator.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("value", "options"),
    [(7e4, {"half": True}), *((torch.nan, how) for how in ({}, {"half": True}, {"packed": True})), (torch.inf, {})],
)
def test_weights_that_could_not_be_loaded_are_not_written_over_good_ones(small_operator, tmp_path, value, options):
    """Like reports of checkpoints of a diverged training, or in half precision, that replace the last good one."""
    operator = small_operator()
    path = operator.save(tmp_path / "bundle.safetensors")
    ensemble = Ensemble([operator, small_operator(seed=1)]).save(tmp_path / "ensemble.safetensors")
    before = path.read_bytes(), ensemble.read_bytes()
    with torch.no_grad():
        operator.model.spectral[0].weight[0, 0, 0, 0] = value
    with pytest.raises(ValueError, match=r"bundle.safetensors: .*'spectral.0.weight'.*nothing was written"):
        operator.save(path, **options)
    if "half" not in options:
        with pytest.raises(ValueError, match=r"ensemble.safetensors: .*'spectral.0.weight'.*nothing was written"):
            Ensemble([small_operator(seed=1), operator]).save(ensemble, **options)
    assert (path.read_bytes(), ensemble.read_bytes()) == before
    assert {each.name for each in tmp_path.iterdir()} == {path.name, ensemble.name}


def test_weights_that_float16_would_lose_are_not_halved(small_operator, tmp_path):
    """Like reports of small weights that become zeros in half precision."""
    operator = small_operator()
    with torch.no_grad():
        operator.model.spectral[0].weight *= 1e-8
    with pytest.raises(
        ValueError, match=r"'spectral.0.weight': expected weights that float16 holds.* without half=True"
    ):
        operator.save(tmp_path / "bundle.safetensors", half=True)
    kept = load_operator(operator.save(tmp_path / "packed.safetensors", packed=True)).model.spectral[0].weight
    torch.testing.assert_close(kept, operator.model.spectral[0].weight, rtol=0, atol=1e-10)


def test_a_digest_is_of_what_computes_and_not_of_how_it_is_kept(small_operator, tmp_path):
    operator = small_operator()
    with torch.no_grad():
        for parameter in operator.model.parameters():
            parameter.copy_(parameter.half())  # which float16 holds
    first = operator.digest
    operator.card["command"] = "another one"
    for number, half in enumerate((False, True)):
        assert load_operator(operator.save(tmp_path / f"{number}.safetensors", half=half)).digest == first
    with torch.no_grad():
        operator.model.output.bias += 1e-3
    assert operator.digest != first
    assert small_operator(kind="paper").digest != small_operator().digest


def test_folder_must_exist(small_operator, tmp_path):
    with pytest.raises(ValueError, match=r"the folder .* does not exist; make it first"):
        small_operator().save(tmp_path / "no" / "bundle.safetensors")


def test_copy_is_independent(small_operator):
    operator = small_operator()
    source, coefficients, _, _ = draw("SYS-1(1,5)")
    before = operator.predict(source, coefficients)
    copy = operator.copy()
    assert torch.equal(copy.predict(source, coefficients), before)
    with torch.no_grad():
        copy.model.lift.weight.zero_()
    copy.card["note"] = "changed"
    assert torch.equal(operator.predict(source, coefficients), before)
    assert "note" not in operator.card


def test_network_and_normalisation_must_fit(small_operator):
    operator = small_operator()
    with pytest.raises(ValueError, match="the network has 2 input channels, the normalisation makes 4"):
        Operator(FNO(FNOConfig(2, 4, 2)), operator.normalization)


def test_bundles_load_and_predict_where_cuda_is_hidden(small_operator, tmp_path):
    operator = small_operator()
    path = operator.save(tmp_path / "bundle.safetensors")
    source, coefficients, _, _ = draw("SYS-1(1,5)", count=1)
    save_file({"source": source, "coefficients": coefficients}, tmp_path / "inputs.safetensors")
    script = (
        "import sys, torch\n"
        "from safetensors.torch import load_file, save_file\n"
        "from sciml_fm_core import load_operator\n"
        "torch.set_num_threads(1)\n"
        "assert not torch.cuda.is_available()\n"
        "inputs = load_file(sys.argv[2])\n"
        "u = load_operator(sys.argv[1]).predict(inputs['source'], inputs['coefficients'])\n"
        "save_file({'u': u}, sys.argv[3])\n"
    )
    files = [str(tmp_path / name) for name in ("bundle.safetensors", "inputs.safetensors", "output.safetensors")]
    subprocess.run(
        [sys.executable, "-c", script, *files], check=True, cwd=ROOT, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    )
    with safe_open(files[2], framework="pt") as file:
        assert torch.equal(file.get_tensor("u"), operator.predict(source, coefficients))
    assert path.exists()


# Damaged, foreign and newer files -------------------------------------------------------------------------------------


def test_newer_format(small_operator, tmp_path):
    path = small_operator().save(tmp_path / "bundle.safetensors")
    rewrite_header(path, lambda header: header | {"version": 99})
    with pytest.raises(ValueError, match="format version 99, this package reads up to 5; upgrade sciml-fm"):
        load_operator(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_bundle(small_operator, tmp_path, share):
    path = small_operator().save(tmp_path / "bundle.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"bundle.safetensors: not a readable safetensors file, or a truncated one"):
        load_operator(path)


def test_every_flipped_bit_of_the_weights_is_found(small_operator, tmp_path, generator):
    path = small_operator().save(tmp_path / "bundle.safetensors")
    whole = path.read_bytes()
    first = 8 + int.from_bytes(whole[:8], "little")
    for bit in torch.randint(8 * first, 8 * len(whole), (40,), generator=generator).tolist():
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"bundle.safetensors: damaged: its digest"):
            load_operator(path)


def test_bundles_without_a_digest_load_unless_their_weights_are_no_numbers(small_operator, tmp_path):
    path = small_operator().save(tmp_path / "bundle.safetensors")
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["header"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    del header["digest"]
    save_file(tensors, path, metadata={"header": json.dumps(header)})
    load_operator(path)
    tensors["output.bias"][0] = torch.nan
    save_file(tensors, path, metadata={"header": json.dumps(header)})
    with pytest.raises(ValueError, match=r"bundle.safetensors: weights: expected finite numbers in 'output.bias'"):
        load_operator(path)


@pytest.mark.parametrize("name", ["depth", "width", "modes", "gate_width", "mode_gate_width"])
def test_a_declared_size_is_compared_with_the_weights_before_it_is_allocated(small_operator, tmp_path, name):
    path = small_operator().save(tmp_path / "bundle.safetensors")
    for value in (10**6, 10**12, 10**18):
        change = {"config": json.loads(json.dumps(read_header(path).config)) | {name: value}}
        if name != "mode_gate_width":  # without modes it makes no weight
            rewrite_header(path, lambda header, change=change: header | change)
            with pytest.raises(ValueError, match=r"bundle.safetensors: weights and configuration do not fit"):
                load_operator(path)


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("version", "3", "version: expected a whole number, got '3'"),
        ("version", True, "version: expected a whole number, got True"),
        ("version", 10**30, "expected whole numbers of at most 20 digits, got 31"),
        ("config", [1], r"config: expected names and values, got \[1\]"),
        ("config", None, "config: expected names and values, got None"),
        ("normalization", 3, "normalization: expected names and values, got 3"),
        ("architecture", ["fno"], r"architecture: expected a text, got \['fno'\]"),
        ("card", {"tasks": "SYS-1(1,5)"}, r"card: tasks: expected a list, got 'SYS-1\(1,5\)'"),
        ("card", {"errors": {"SYS-1(1,5)": "small"}}, r"errors: 'SYS-1\(1,5\)': expected a number, got 'small'"),
        ("card", {"parent": {"examples_seen": 0.5}}, "parent: examples_seen: expected a whole number, got 0.5"),
        ("packed", "yes", "packed: expected names and values, got 'yes'"),
        ("surprise", json.loads("[" * 40 + "]" * 40), "expected at most 32 levels"),
    ],
)
def test_headers_are_not_believed(small_operator, tmp_path, key, value, told):
    path = small_operator().save(tmp_path / "bundle.safetensors")
    rewrite_header(path, lambda header: header | {key: value})
    with pytest.raises(ValueError, match=rf"^operator .*bundle\.safetensors: .*{told}") as caught:
        load_operator(path)
    assert "\n" not in str(caught.value)


def test_a_card_that_could_not_be_read_back_is_not_written(small_operator, tmp_path):
    operator = small_operator()
    operator.card["tasks"] = "SYS-1(1,5)"
    with pytest.raises(ValueError, match="card: tasks: expected a list"):
        operator.save(tmp_path / "bundle.safetensors")
    assert not list(tmp_path.iterdir())


def test_missing_files_and_unknown_names(tmp_path):
    with pytest.raises(ValueError, match=r"none.safetensors: no such file; `sciml-fm operators` lists what ships"):
        load_operator(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match=r"operator: expected one of .*or the path of a bundle; got 'sys-99'"):
        load_operator("sys-99")
    with pytest.raises(ValueError, match="operator: expected one of"):
        load_operator(tmp_path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"header": "[1, 2]"}, {"header": "{}"}, {"header": "3"}])
def test_foreign_safetensors(tmp_path, metadata):
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, path, metadata=metadata)
    with pytest.raises(ValueError, match=r"a safetensors file, but not one written by Operator.save"):
        load_operator(path)


def test_header_that_is_no_json(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, path, metadata={"header": "no json"})
    with pytest.raises(ValueError, match=r"foreign.safetensors"):
        load_operator(path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_pickles_are_refused_and_not_executed(tmp_path, suffix):
    trap, path = tmp_path / "executed", tmp_path / f"model{suffix}"

    class Payload:
        def __reduce__(self):
            return open, (str(trap), "w")

    path.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_operator(path)
    assert not trap.exists()
    torch.save({"weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_operator(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header | {"config": header["config"] | {"width": 4}},
        lambda header: header | {"config": header["config"] | {"surprise": 1}},
        lambda header: header | {"config": header["config"] | {"in_channels": 5}},
        lambda header: header | {"normalization": {"kind": "paper"}},
        lambda header: {key: value for key, value in header.items() if key != "normalization"},
        lambda header: {key: value for key, value in header.items() if key != "version"},
        lambda header: {key: value for key, value in header.items() if key != "card"},
    ],
)
def test_inconsistent_bundles(small_operator, tmp_path, change):
    path = small_operator().save(tmp_path / "bundle.safetensors")
    rewrite_header(path, change)
    with pytest.raises(ValueError, match=r"bundle.safetensors|weights"):
        load_operator(path)


def test_bundle_of_an_unknown_system_names_it(small_operator, tmp_path):
    path = small_operator().save(tmp_path / "bundle.safetensors")
    rewrite_header(path, lambda header: header | {"normalization": header["normalization"] | {"systems": ["heat"]}})
    with pytest.raises(ValueError, match=r"system: expected one of .*got 'heat'"):
        load_operator(path)


# Prediction -----------------------------------------------------------------------------------------------------------


def test_predict_shapes_and_broadcasting(small_operator):
    operator = small_operator()
    source, coefficients, _, _ = draw("SYS-1(1,5)")
    batch = operator.predict(source, coefficients)
    assert batch.shape == (3, 16, 16)
    single = operator.predict(source[1], coefficients[1])
    assert single.shape == (16, 16)
    torch.testing.assert_close(single, batch[1], rtol=1e-4, atol=1e-6)
    table = operator.predict(source[:, None], coefficients[None, :2])
    assert table.shape == (3, 2, 16, 16)
    torch.testing.assert_close(table[1, 1], batch[1], rtol=1e-4, atol=1e-6)
    assert operator.predict(source, coefficients[0]).shape == (3, 16, 16)
    assert operator.predict(source[0], coefficients).shape == (3, 16, 16)
    assert operator.predict(source[:0], coefficients[:0]).shape == (0, 16, 16)


def test_predict_in_parts_is_the_same(small_operator, monkeypatch):
    operator = small_operator()
    source, coefficients, _, _ = draw("SYS-1(1,5)", count=5)
    whole = operator.predict(source, coefficients)
    monkeypatch.setattr(predict_module, "BATCH_POINTS", 2 * 16**2)
    torch.testing.assert_close(operator.predict(source, coefficients), whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_predict_keeps_the_dtype(small_operator, dtype):
    operator = small_operator()
    source, coefficients, _, _ = draw("SYS-1(1,5)")
    prediction = operator.predict(source.to(dtype), coefficients.to(dtype))
    assert prediction.dtype == dtype
    difference = prediction.float() - operator.predict(source, coefficients)
    assert difference.abs().max() < 1e-2 * prediction.float().abs().max()
    assert not prediction.requires_grad


@pytest.mark.parametrize("n", [8, 16, 32, 64, 128])
def test_predict_at_any_resolution(small_operator, n):
    source, coefficients, _, _ = draw("SYS-2(0.2,1)", count=1, n=n)
    assert small_operator("SYS-2(0.2,1)").predict(source, coefficients).shape == (1, n, n)


@pytest.mark.parametrize("label", LABELS)
def test_dimensionless_operators_obey_the_scaling_laws(small_operator, label):
    """In float64, so that only the laws are tested: u is linear in the size of f and inverse in that of L."""
    operator = small_operator(label)
    operator.model.double()
    source, coefficients, _, _ = draw(label, dtype=torch.float64)
    prediction = operator.predict(source, coefficients)
    for f_factor, l_factor in ((1000.0, 1.0), (1.0, 0.01), (5.0, 5.0)):
        scaled = operator.predict(f_factor * source, l_factor * coefficients)
        torch.testing.assert_close(scaled, f_factor / l_factor * prediction, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("label", LABELS)
def test_predictions_commute_with_translations(small_operator, label):
    operator = small_operator(label)
    operator.model.double()
    source, coefficients, _, _ = draw(label, dtype=torch.float64)
    moved = operator.predict(torch.roll(source, (5, -3), (-2, -1)), coefficients)
    expected = torch.roll(operator.predict(source, coefficients), (5, -3), (-2, -1))
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("label", LABELS[:2])
def test_predictions_have_zero_mean_where_solutions_do(small_operator, label):
    source, coefficients, _, _ = draw(label)
    prediction = small_operator(label).predict(source, coefficients)
    assert (prediction.mean(dim=(-2, -1)).abs() < 1e-5 * prediction.abs().amax(dim=(-2, -1))).all()


def test_mixed_operator_needs_the_system(small_operator):
    operator = small_operator(*LABELS)
    source, coefficients, _, _ = draw("SYS-3(1,10)")
    with pytest.raises(ValueError, match="knows poisson, advection_diffusion, helmholtz; say which with system="):
        operator.predict(source, coefficients)
    by_name = operator.predict(source, coefficients, "helmholtz")
    assert torch.equal(by_name, operator.predict(source, coefficients, system="SYS-3"))
    with pytest.raises(ValueError, match=r"expected one of .*got 'heat'"):
        operator.predict(source, coefficients, "heat")


@pytest.mark.parametrize("scale", [1e-28, 1e-24, 1e-12, 1e12, 1e23, 1e28])
@pytest.mark.parametrize("label", LABELS)
def test_predictions_scale_with_the_source_however_large(small_operator, label, scale):
    operator = small_operator(label, kind="dimensionless")
    source, coefficients, _, _ = draw(label)
    expected = operator.predict(source, coefficients)
    scaled = operator.predict(scale * source, coefficients)
    assert torch.allclose(scaled / scale, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    # So is the equation with all of its coefficients: the features of a small or large K are those of K.
    if label != LABELS[2] and 1e-13 < scale < 1e13:
        scaled = operator.predict(scale * source, scale * coefficients)
        assert torch.allclose(scaled, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_what_float32_cannot_hold_is_refused(small_operator):
    operator = small_operator()
    source, coefficients, _, _ = draw("SYS-1(1,5)")
    for scale in (1e-36, 1e31, 1e35):
        with pytest.raises(ValueError, match=r"source: expected numbers of size 1e-30 to 1e\+30, or 0, got"):
            operator.predict(scale * source, coefficients)
    for scale in (1e-60, 1e200):
        with pytest.raises(ValueError, match="source: expected numbers of size"):
            operator.predict(scale * source.double(), coefficients)
    for scale in (1e-40, 1e100):
        with pytest.raises(ValueError, match="coefficients: expected numbers of size"):
            operator.predict(source, scale * coefficients.double())
    for up, down in ((1e-25, 1e25), (1e25, 1e-25)):
        with pytest.raises(ValueError, match="solution: expected numbers of size"):
            operator.predict(up * source, down * coefficients)
    with pytest.raises(ValueError, match=r"solution: too large for torch.float16; scale the source"):
        operator.predict(
            (1e4 * source).half() - (1e4 * source).half().mean((-2, -1), keepdim=True), 1e-3 * coefficients
        )


@pytest.mark.parametrize(
    ("name", "label"), [("sys-3", LABELS[2]), ("mixed", LABELS[2]), ("symbol", LABELS[1]), ("sys-1-paper", LABELS[0])]
)
@pytest.mark.parametrize("symmetries", [False, True])
def test_no_source_has_no_solution(name, label, symmetries):
    """Like reports of surrogates whose answer to no load is no zero; alone, and among others."""
    operator, (source, coefficients, _, _) = load_operator(name), draw(label, n=32)
    options = {"system": Task.parse(label).system, "symmetries": symmetries}
    expected = operator(source, coefficients, **options)
    source = source.clone()
    source[1] = 0
    found = operator(source.requires_grad_(), coefficients, **options)
    assert not found[1].any()
    torch.testing.assert_close(found[::2], expected[::2])
    assert torch.autograd.grad(found.sum(), source)[0].isfinite().all()
    assert not operator(torch.zeros_like(source), coefficients, **options).any()


@pytest.mark.parametrize("name", ["predict", "solve"])
def test_each_with_each_has_to_be_said(small_operator, name):
    """Like reports of a channel axis that was broadcast to all pairs without a word."""
    operator, (source, coefficients, _, _) = small_operator(), draw("SYS-1(1,5)")
    function = operator if name == "predict" else operator.systems[0].solve
    for shapes in ((source[:, None], coefficients), (source, coefficients[:, None])):
        with pytest.raises(ValueError, match=r"leading shapes \(3, 1\) and \(3,\) would give all pairs; squeeze"):
            function(*shapes)
    pairs = function(source[:, None], coefficients[None])
    torch.testing.assert_close(pairs[range(3), range(3)], function(source, coefficients))
    assert function(source[:2, None], coefficients).shape == (2, 3, 16, 16)


@pytest.mark.parametrize("form", ["plain", "members", "symmetries", "packed", "bfloat16"])
def test_gradients_of_what_is_asked(form, tmp_path):
    """Like reports of inverse problems that never moved, as a prediction had dropped the gradient without a word."""
    operator, (source, coefficients, _, _) = load_operator("sys-1"), draw("SYS-1(1,5)", n=32)
    assert not operator(source, coefficients).requires_grad
    if form == "packed":
        operator = load_operator(operator.save(tmp_path / "packed.safetensors", packed=True))

    def predict(f, c):
        if form == "members":
            return load_ensemble("sys-1").predict(f, c).mean
        if form == "bfloat16":
            return predict_in(operator, "bfloat16", f, c)
        return operator(f, c, symmetries=form == "symmetries")

    source, coefficients = source.requires_grad_(), coefficients.requires_grad_()
    directions = torch.randn_like(source), 0.1 * coefficients.detach()
    directions[0].sub_(directions[0].mean((-2, -1), keepdim=True))
    gradients = torch.autograd.grad(predict(source, coefficients).square().sum(), (source, coefficients))
    for number, (gradient, along) in enumerate(zip(gradients, directions, strict=True)):
        with torch.no_grad():
            ends = [[source, coefficients] for _ in range(2)]
            for end, step in zip(ends, (1e-2, -1e-2), strict=True):
                end[number] = end[number] + step * along
            high, low = (predict(*end).double().square().sum() for end in ends)
        slope = (gradient * along).sum().double()
        torch.testing.assert_close(slope, (high - low) / 2e-2, rtol=0.2 if form == "bfloat16" else 2e-2, atol=1e-2)


def test_memory_is_that_of_the_solutions():
    """Like reports of predictions that take several times the memory of their inputs."""
    code = """
import torch
from sciml_fm_core import Task, load_operator
def kilobytes(key):
    return int(next(line for line in open("/proc/self/status") if line.startswith(key)).split()[1])
operator, examples = load_operator("sys-1"), Task.parse("SYS-1(1,5)").sample(4, 256, torch.Generator().manual_seed(0))
source, coefficients = examples.source.repeat(24, 1, 1), examples.coefficients.repeat(24, 1)
operator(source[:16], coefficients[:16])
open("/proc/self/clear_refs", "w").write("5")
before = kilobytes("VmRSS")
solutions = operator(source, coefficients)
print((kilobytes("VmHWM") - before) * 1024 / solutions.nbytes)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert float(done.stdout) < 1.7, "once the solutions, and what a batch of them takes"


@pytest.mark.parametrize(
    "value",
    [
        None,
        [[1.0]],
        3,
        "source",
        torch.ones(2, 16, 16).to(torch.float8_e4m3fn),
        torch.ones(2, 16, 16) * 1j,
        torch.ones(2, 16, 16).to_sparse(),
        torch.ones(2, 16, 16).bool(),
    ],
)
def test_what_is_no_tensor_of_real_numbers_is_refused(small_operator, value):
    operator = small_operator()
    source, coefficients, _, _ = draw("SYS-1(1,5)", count=2)
    wrong = "got (a tensor|NoneType|list|int|str|torch.*); pass"
    for function in (operator.predict, operator.systems[0].solve):
        with pytest.raises(ValueError, match=f"source: expected .*{wrong}"):
            function(value, coefficients)
        with pytest.raises(ValueError, match=f"coefficients: expected .*{wrong}"):
            function(source, value)
    with pytest.raises(ValueError, match="system: expected a System or its name, got int"):
        operator.predict(source, coefficients, 3)


def test_bad_inputs_are_refused(small_operator):
    operator = small_operator()
    source, coefficients, _, _ = draw("SYS-1(1,5)")
    with pytest.raises(ValueError, match="was trained for poisson, got helmholtz"):
        operator.predict(source, coefficients, "helmholtz")
    with pytest.raises(ValueError, match=r"poisson expects shape \(\.\.\., 3\)"):
        operator.predict(source, coefficients[:, :2])
    with pytest.raises(ValueError, match="source: expected finite values"):
        operator.predict(source * float("nan"), coefficients)
    with pytest.raises(ValueError, match="coefficients: expected finite values"):
        operator.predict(source, coefficients * float("inf"))
    with pytest.raises(ValueError, match=r"expected an even number of points.*129"):
        operator.predict(torch.zeros(129, 129), coefficients[0])
    with pytest.raises(ValueError, match="expects at least 8 points in each direction"):
        operator.predict(torch.zeros(6, 6), coefficients[0])
    with pytest.raises(ValueError, match="do not broadcast"):
        operator.predict(source, coefficients[:2])


# What ships -----------------------------------------------------------------------------------------------------------

SHIPPED = list(shipped_operators()) or [pytest.param("", marks=pytest.mark.skip(reason="no weights in this checkout"))]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_operator_has_a_complete_card(name):
    operator = load_operator(name)
    card = operator.card
    missing = {"tasks", "recipe", "examples_seen", "seed", "command", "hardware", "errors", "parameters"} - set(card)
    assert not missing
    assert [Task.parse(label).system.name for label in card["tasks"]] == [s.name for s in operator.systems]
    assert card["parameters"] == operator.model.parameter_count
    assert set(card["tasks"]) < set(card["errors"])  # in and out of distribution
    assert str(ROOT) not in json.dumps(card)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_operator_is_as_good_as_its_card(name):
    operator = load_operator(name)
    for label in operator.card["tasks"]:
        task = Task.parse(label)
        resolution = 64 if isinstance(task.system, Evolution) else 128  # a card's
        measured = evaluate(operator, task, count=64, resolution=resolution)["error"]
        assert measured < 1.5 * operator.card["errors"][label]


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("n", [32, 48])
def test_shipped_operator_predicts_on_coarse_grids(name, n):
    operator = load_operator(name)
    for system in operator.systems:
        label = next(label for label in operator.card["tasks"] if Task.parse(label).system is system)
        source, coefficients, solution, _ = draw(label, count=8, n=n)
        prediction = operator.predict(source, coefficients, system)
        error = torch.linalg.vector_norm(prediction - solution, dim=(1, 2)) / solution.norm(dim=(1, 2))
        assert error.median() < 0.3


# Packed ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 1e-5, 1e-8, 1e-36, 1e36])
@pytest.mark.parametrize("numbers", [1, SMALL - 1, SMALL, SMALL + 7])
def test_eight_bits_are_a_part_in_254_of_the_largest_of_a_block(numbers, size, generator):
    """Like reports of quantised weights whose scales vanish in float16."""
    weights = {"w": size * torch.randn(numbers, generator=generator), "zero": torch.zeros(3, 5)}
    kept = unpack(pack(weights))
    assert torch.equal(kept["zero"], weights["zero"])
    for first in range(0, numbers, BLOCK):
        block = slice(first, first + BLOCK)
        largest = weights["w"][block].abs().max()
        off = largest / 254 if numbers >= SMALL else weights["w"].abs().max() / 2000
        assert (kept["w"][block] - weights["w"][block]).abs().max() <= off * (1 + 1e-4)
    again = unpack(pack(kept))
    assert torch.equal(again["w"], kept["w"])


def test_what_earlier_versions_packed_is_read():
    numbers, scale = torch.randint(-127, 128, (40,), dtype=torch.int8), torch.tensor([1.0, 0.5, 2.0]).half()
    packed = {"w:numbers": numbers, "w:scale": scale, "b:half": torch.tensor([0.25, -1.5]).half()}
    kept = unpack(packed)
    assert torch.equal(kept["w"], numbers * scale.float().repeat_interleave(16)[:40])
    assert kept["b"].tolist() == [0.25, -1.5]
    for wrong in ({"w:scale": scale[:2]}, {"w:scale": scale.float()}, {"w:largest": scale, "w:shares": numbers}):
        with pytest.raises(ValueError, match=r"to have a (scale|largest) for every 16 numbers"):
            unpack({"w:numbers": numbers} | wrong)


def test_a_packed_bundle_is_a_quarter_of_the_size_and_predicts_nearly_the_same(tmp_path, small_operator):
    operator, examples = small_operator(width=16, modes=16), draw("SYS-1(1,5)", n=32)
    plain = operator.save(tmp_path / "plain.safetensors")
    path = operator.save(tmp_path / "packed.safetensors", packed=True)
    assert path.stat().st_size < 0.25 * plain.stat().st_size
    again = load_operator(path).save(tmp_path / "again.safetensors", packed=True)
    paths = plain, path, again
    exact, near, nearly = (load_operator(each).predict(examples.source, examples.coefficients) for each in paths)
    assert relative_error(near, exact).max() < 0.05
    assert relative_error(nearly, near).max() < 0.02


def test_modes_of_short_waves_are_rounded_by_no_more_than_is_said(small_operator):
    model = small_operator(width=16, modes=16).model
    weights, coarseness = model.state_dict(), model.coarseness()
    packed = pack(weights, coarseness=coarseness)
    shapes = {key: value.shape for key, value in weights.items()}
    kept = unpack(packed, shapes=shapes)
    for key, part in coarseness.items():
        largest = weights[key].flatten(2).unflatten(2, (-1, BLOCK)).abs().amax(3).amax(2)[..., None, None]
        most = torch.maximum(part * weights[key].square().mean().sqrt(), largest / 254)
        assert ((kept[key] - weights[key]).abs() <= 1.001 * most).all()
        assert packed[f"{key}:zipped"].numel() < 0.8 * weights[key].numel()
    key = next(iter(coarseness))
    damaged = packed | {f"{key}:zipped": packed[f"{key}:zipped"][:-1000]}
    for wrong, known in ((packed, {}), (packed, shapes | {key: (2, 3)}), (damaged, shapes)):
        with pytest.raises(ValueError, match=r"expected 'spectral.0.weight' to be compressed numbers of a weight of"):
            unpack(wrong, shapes=known)


def test_a_packed_difference_needs_the_parent_that_it_was_made_with(tmp_path):
    operator = load_operator("sys-1")
    with torch.no_grad():
        operator.model.lift.weight += 0.001
    path = operator.save(tmp_path / "tuned.safetensors", packed=True, parent="sys-1")
    examples = draw("SYS-1(1,5)", n=32)
    whole, packed = (each.predict(examples.source, examples.coefficients) for each in (operator, load_operator(path)))
    assert relative_error(packed, whole).max() < 1e-4
    other = tmp_path / "other.safetensors"
    for change, message in (({"digest": "0" * 16}, "has changed"), ({"parent": "gone"}, "'gone', which does not ship")):
        other.write_bytes(path.read_bytes())
        rewrite_header(other, lambda header, change=change: header | {"packed": header["packed"] | change})
        with pytest.raises(ValueError, match=message):
            load_operator(other)
    with pytest.raises(ValueError, match="expected a parent with the same network, symbol has another one"):
        operator.save(tmp_path / "no.safetensors", packed=True, parent="symbol")
