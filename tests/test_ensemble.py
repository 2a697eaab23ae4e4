"""Ensembles: mean and spread by hand, one file, what is shared stored once, damaged files told apart."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sciml_fm_core import Ensemble, Task, load_ensemble, load_operator, new_operator, shipped_ensembles
from sciml_fm_core.digests import with_digest

TASK = Task.parse("SYS-1(1,5)")


@pytest.fixture(scope="module")
def members():
    return [new_operator([TASK], size="64K", seed=seed) for seed in range(3)]


@pytest.fixture(scope="module")
def examples():
    return TASK.sample(3, 32, torch.Generator().manual_seed(0))


def test_mean_and_spread_are_those_of_the_members(members, examples):
    ensemble = Ensemble(members)
    own = torch.stack([member.predict(examples.source, examples.coefficients) for member in members])
    mean, spread = ensemble.predict(examples.source, examples.coefficients, "poisson")
    assert mean.shape == spread.shape == examples.solution.shape
    torch.testing.assert_close(mean, sum(own) / 3)
    torch.testing.assert_close(spread, ((own - mean).square().sum(0) / 2).sqrt())
    torch.testing.assert_close(ensemble.predict_members(examples.source, examples.coefficients), own)
    assert ensemble.tasks == ["SYS-1(1,5)"]
    assert ensemble.systems == members[0].systems


@pytest.mark.parametrize("packed", [False, True])
def test_saved_and_loaded(tmp_path, members, examples, packed):
    path = Ensemble(members, {"seeds": [0, 1, 2]}).save(tmp_path / "e.safetensors", packed=packed)
    loaded = load_ensemble(path)
    assert loaded.card == {"seeds": [0, 1, 2]}
    assert [member.card for member in loaded.members] == [member.card for member in members]
    before, after = (e.predict(examples.source, examples.coefficients) for e in (Ensemble(members), loaded))
    for one, other in zip(before, after, strict=True):
        assert (one - other).norm() < (0.05 if packed else 1e-6) * one.norm()
    plain = sum(p.numel() * 4 for member in members for p in member.model.parameters())
    assert path.stat().st_size < (0.33 if packed else 1.1) * plain


def test_what_members_share_is_stored_once(tmp_path, members, examples):
    """As of a trunk with several heads."""
    heads = [members[0].copy() for _ in range(4)]
    for number, head in enumerate(heads):
        torch.nn.init.normal_(head.model.output.weight, generator=torch.Generator().manual_seed(number))
    path = Ensemble(heads).save(tmp_path / "heads.safetensors", packed=True)
    one = members[0].save(tmp_path / "one.safetensors", packed=True)
    assert path.stat().st_size < 1.2 * one.stat().st_size
    with safe_open(path, framework="pt") as file:
        own = {key for key in file.keys() if not key.startswith("shared.")}  # noqa: SIM118
    assert own == {f"{number}.output.weight:{part}" for number in range(4) for part in ("shares", "largest")}
    loaded = load_ensemble(path)
    assert loaded.members[0].normalization is loaded.members[3].normalization, "encoded once"
    mean, spread = loaded.predict(examples.source, examples.coefficients)
    assert (spread > 0).any()
    assert torch.isfinite(mean).all()


def test_members_have_to_be_alike(members):
    with pytest.raises(ValueError, match="two members or more, got 1"):
        Ensemble(members[:1])
    with pytest.raises(ValueError, match="member 1 has another one"):
        Ensemble([members[0], new_operator([TASK], size="256K")])
    others = [new_operator([Task.parse(label)], recipe="symbol", size="64K") for label in ("SYS-1(1,5)", "SYS-3(1,10)")]
    with pytest.raises(ValueError, match="same systems"):
        Ensemble(others)


def test_files_that_are_none(tmp_path, members):
    with pytest.raises(ValueError, match="or the path of a file"):
        load_ensemble("sys-99")
    path = Ensemble(members).save(tmp_path / "e.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated"):
        load_ensemble(path)
    with pytest.raises(ValueError, match="not one written by Ensemble"):
        load_ensemble(members[0].save(tmp_path / "o.safetensors"))
    path.write_bytes(whole)
    with pytest.raises(ValueError, match="not one written by Operator"):
        load_operator(path)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["header"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    for change, message in (
        ({"version": 99}, "reads up to 2"),
        ({"architecture": None}, "architecture"),
        ({"members": header["members"] * 2}, "do not fit"),
    ):
        save_file(tensors, path, metadata={"header": json.dumps(with_digest(header | change, tensors))})
        with pytest.raises(ValueError, match=message):
            load_ensemble(path)
    with pytest.raises(ValueError, match="make it first"):
        Ensemble(members).save(tmp_path / "absent" / "e.safetensors")


@pytest.mark.parametrize("name", shipped_ensembles())
def test_shipped(name):
    ensemble = load_ensemble(name)
    assert shipped_ensembles()[name].stat().st_size < 1.35e6
    assert {"tasks", "recipe", "seeds", "steps", "hardware", "command"} <= set(ensemble.card)
    task = Task.parse(ensemble.tasks[0])
    examples = task.sample(8, 32, torch.Generator().manual_seed(0))
    mean, spread = ensemble.predict(examples.source, examples.coefficients)
    error = (mean - examples.solution).norm() / examples.solution.norm()
    assert error < 0.1
    assert 0.1 * error < spread.norm() / mean.norm() < 10 * error
