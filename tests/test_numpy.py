"""NumPy's numbers and arrays wherever a number is asked for: they are those of Python from there on.

Like reports of settings that come from NumPy, and of which JSON, or the truth of an array, says something after hours.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from sciml_fm_core import (
    FNOConfig,
    Operator,
    Task,
    TrainConfig,
    draw_split,
    evaluate,
    fine_tune,
    generate,
    load_operator,
    pretrain,
    schema,
)
from sciml_fm_core.study.records import read_record, read_table, write_record, write_table
from sciml_fm_core.study.runs import AdaptationRun, PretrainingRun, identity

Int, Float = np.int64, np.float32
TASK = Task.parse("SYS-1(1,5)")
KINDS = [
    Float(0.5),
    np.float64(0.5),
    np.float16(0.5),
    np.longdouble(0.5),
    Int(2),
    np.uint8(2),
    np.bool_(True),
    np.str_("a"),
]


@pytest.mark.parametrize(
    "value", [*KINDS, np.array(KINDS[:4]), np.array(0.5), [Float(1)], {Int(3): (Float(1), None)}, Path("a")]
)
def test_what_json_has(value, small_operator, tmp_path):
    plain = schema.plain(value)
    assert json.loads(json.dumps(plain)) == plain
    operator = small_operator()
    operator.card["value"] = value
    assert load_operator(operator.save(tmp_path / "own.safetensors")).card["value"] == plain
    write_record({"identity": "a", "kind": "b", "value": value}, tmp_path / "own.json")
    write_table([{"identity": "a", "kind": "b", "value": value}], tmp_path / "own.csv")
    assert read_record(tmp_path / "own.json")["value"] == plain
    assert read_table(tmp_path / "own.csv")[0]["value"] == plain


def test_what_it_has_not_is_refused_before_the_work():
    for value in (object(), {"a": [1j]}, np.datetime64("2020-01-01"), {(1, 2): 3j}):
        with pytest.raises(ValueError, match="expected numbers, texts, lists and names with them, got"):
            Operator(load_operator("sys-1").model, load_operator("sys-1").normalization, {"value": value})


def test_dataclasses_hold_plain_numbers():
    config = TrainConfig(steps=Int(2), learning_rate=Float(0.5), compile=np.bool_(False), time_limit=np.float64(3))
    assert config == TrainConfig(steps=2, learning_rate=0.5, compile=False, time_limit=3.0)
    assert [type(value) for value in (config.steps, config.learning_rate, config.compile)] == [int, float, bool]
    assert type(FNOConfig(Int(4), width=Int(8)).width) is int
    assert Task(TASK.system, Int(1), Float(5)).label == TASK.label
    made = PretrainingRun("SYS-1(1,5)", seed=Int(3), resolution=((Float(0), Int(32)),))
    assert identity(made) == identity(PretrainingRun("SYS-1(1,5)", seed=3, resolution=((0.0, 32),)))
    rates = np.logspace(-4, -2, 3)
    run = AdaptationRun("sys-1", "SYS-1(5,10)", "fine-tuned", Int(2), learning_rates=rates, symmetries=np.bool_(False))
    assert run == AdaptationRun("sys-1", "SYS-1(5,10)", "fine-tuned", 2, learning_rates=tuple(rates.tolist()))
    assert hash(run)


def test_functions_take_them(tmp_path):
    path, checkpoint = tmp_path / "own.safetensors", tmp_path / "own.checkpoint"
    operator, _ = pretrain(
        [TASK], TrainConfig(steps=Int(2)), size="64K", seed=Int(1), batch_size=Int(2), validation_count=Int(2),
        resolution={Float(0): Int(16), np.float64(0.5): Int(32)}, checkpoint=checkpoint,
    )  # fmt: skip
    assert load_operator(operator.save(path)).card["resolution"] == {"0.0": 16, "0.5": 32}
    data, held_out = (
        draw_split(TASK, split, Int(4), seed=Int(1), resolution=Int(32)) for split in ("train", "validation")
    )
    tuned = fine_tune(
        operator, data, validation=held_out, config=TrainConfig(steps=2), learning_rates=np.logspace(-4, -2, 2),
        batch_size=Int(2), resolution=Int(32), seed=Int(1), checkpoint=tmp_path / "t.checkpoint",
    )  # fmt: skip
    assert load_operator(tuned.operator.save(path)).card["learning_rate"] in (1e-4, 1e-2)
    assert json.dumps(evaluate(operator, TASK, count=Int(2), resolution=Int(32), seed=Int(0)))
    generate(TASK, tmp_path / "own.h5", count=Int(2), resolution=np.int16(32), seed=np.uint32(3))
