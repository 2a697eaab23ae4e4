"""Operators in fewer bits: their weights as they would be stored, and their pointwise products in bfloat16.

Weights are rounded to a kind and back to float32, so that what is predicted is what a bundle of that kind would
predict. Two ways to have eight bits differ in what shares a scale: numbers that lie side by side, as `packed` stores
them, or the matrix of one Fourier mode.
"""

from __future__ import annotations

import torch
from safetensors.torch import save
from torch import Tensor

from sciml_fm_core.eager import graph_where_needed
from sciml_fm_core.models.base import apply_together
from sciml_fm_core.models.operator import Operator
from sciml_fm_core.models.packed import BLOCK, State, pack, unpack
from sciml_fm_core.models.predict import encode_together
from sciml_fm_core.physics.system import System

WEIGHT_KINDS = ("float32", "float16", "bfloat16", "int8 in blocks", "int8 by mode")
"""What weights are rounded to."""


def with_weights_in(operator: Operator, kind: str) -> Operator:
    """Copy whose weights, float32 again, have the values that are left of them when they are stored as a kind.

    >>> from sciml_fm_core import load_operator
    >>> operator = load_operator("sys-1")
    >>> rounded = with_weights_in(operator, "bfloat16").model.lift.weight
    >>> bool(torch.equal(rounded, operator.model.lift.weight.bfloat16().float()))
    True

    Args:
        operator: what is rounded; it is not changed.
        kind: one of `WEIGHT_KINDS`.

    Raises:
        ValueError: on another kind.
    """
    rounded = operator.copy()
    rounded.model.load_state_dict(_restored(stored(operator, kind), kind))
    return rounded


def stored_bytes(operator: Operator, kind: str) -> int:
    """Size of a file with the weights of an operator as a kind; without the card, which is the same for all kinds.

    Raises:
        ValueError: on another kind than those of `WEIGHT_KINDS`.
    """
    return len(save({key: value.contiguous() for key, value in stored(operator, kind).items()}))


def stored(operator: Operator, kind: str) -> State:
    """The tensors that a file of this kind has, by name.

    In eight bits a tensor of `packed.SMALL` numbers or more is whole numbers from -127 to 127 and the largest of each
    block, and smaller ones are float16. By mode, a spectral weight (2, modes, d, d) has a block for each real and
    imaginary part of each mode: 256 numbers at d = 16, where others have 16.

    Raises:
        ValueError: on another kind than those of `WEIGHT_KINDS`.
    """
    state = {key: value.detach().cpu().float() for key, value in operator.model.plain().state_dict().items()}
    if kind in ("int8 in blocks", "int8 by mode"):
        return {
            name: part
            for key, value in state.items()
            for name, part in pack({key: value}, block=_block(kind, key, value)).items()
        }
    if kind in WEIGHT_KINDS:
        return {key: value.to(getattr(torch, kind)) for key, value in state.items()}
    raise ValueError(f"weights: expected one of {', '.join(WEIGHT_KINDS)}, got {kind!r}")


def _block(kind: str, key: str, value: Tensor) -> int:
    by_mode = kind == "int8 by mode" and key.startswith("spectral") and value.ndim == 4
    return value[0, 0].numel() if by_mode else BLOCK


def _restored(kept: State, kind: str) -> State:
    """Weights in float32 from what `stored` made of them."""
    if not kind.startswith("int8"):
        return {key: value.float() for key, value in kept.items()}
    state: State = {}
    for key, value in kept.items():
        name, _, part = key.rpartition(":")
        if part == "shares":
            own = {key: value, f"{name}:largest": kept[f"{name}:largest"]}
            state |= unpack(own, block=_block(kind, name, value))
    return state


def predict_in(
    operator: Operator, precision: str, source: Tensor, coefficients: Tensor, system: System | None = None
) -> Tensor:
    """Predict as `Operator.predict`, with the network in a precision that it has a form in, such as ``bfloat16``.

    What is rounded by the FNO are the factors of its pointwise products of hidden channels, and their results;
    transforms and modes stay in float32.

    >>> from sciml_fm_core import Task, draw_split, load_operator, relative_error
    >>> operator, examples = load_operator("sys-1"), draw_split(Task.parse("SYS-1(1,5)"), "test", 2, resolution=32)
    >>> rounded = predict_in(operator, "bfloat16", examples.source, examples.coefficients)
    >>> bool(relative_error(rounded, operator.predict(examples.source, examples.coefficients)).max() < 0.05)
    True

    Args:
        operator: what predicts.
        precision: ``float32`` or ``bfloat16``.
        source: f, shape (batch, n, n), float32.
        coefficients: shape (batch, c).
        system: which is meant, for an operator of several.

    Raises:
        ValueError: if the architecture has no form in that precision; else as `Operator.predict`.
    """
    known = operator.normalization.resolve(system)
    known.check(source, coefficients)
    known.check_mean(source)
    with graph_where_needed(source, coefficients):
        (encoded,) = encode_together([operator], [(known, source, coefficients)])
        (output,) = apply_together([operator.model], [encoded.inputs], operator.model.network(precision))
        return encoded.decode(output)
