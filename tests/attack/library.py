"""Calls of the library: what is no tensor of real numbers, other shapes, values that are no numbers, huge and tiny."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

import torch

from sciml_fm_core import SYSTEMS, Operator, Task
from sciml_fm_core.models.normalization import fit_normalization

from ._mutate import STRANGE, refused

NAME = "library"


@cache
def _operators() -> tuple[Operator, ...]:
    from sciml_fm_core import FNO, FNOConfig

    made = []
    for kind, label in (("dimensionless", "SYS-1(1,5)"), ("symbol", "SYS-2(0.2,1)"), ("dimensionless", "SYS-3(1,10)")):
        normalization = fit_normalization(kind, [Task.parse(label)], count=16)
        config = FNOConfig(
            in_channels=normalization.in_channels, mode_channels=normalization.channels("modes"), width=4, modes=2
        )
        made.append(Operator(FNO.create(config, torch.Generator().manual_seed(0)), normalization))
    return tuple(made)


@cache
def _examples(name: str, n: int):
    system = SYSTEMS[name]
    task = Task(system, *system.shifts.get("pre-training", (system.dialled.low, system.dialled.high)))
    return task.sample(2, n, torch.Generator().manual_seed(0), dtype=torch.float64)


def prepare() -> None:
    """Before memory is limited."""
    for operator in _operators():
        examples = _examples(operator.systems[0].name, 16)
        operator.predict(examples.source.float(), examples.coefficients.float())


def attack(seed: int, folder: Path) -> str | None:
    """Predict, solve, form a residual, or ask for the gradient of a dial."""
    rng = random.Random(seed)
    how = rng.randrange(4)
    if how == 0:
        return _dial_gradient(rng)
    operator = rng.choice(_operators())
    system = operator.systems[0] if how == 1 else SYSTEMS[rng.choice(sorted(SYSTEMS))]
    source, coefficients, solution, _ = _examples(system.name, rng.choice((8, 16, 32)))
    dtype = rng.choice((torch.float32, torch.float32, torch.float64, torch.float16, torch.bfloat16))
    if rng.random() < 0.5:
        return _scaled(rng, operator, system, source, coefficients, how)
    source, coefficients, solution = source.to(dtype), coefficients.to(dtype), solution.to(dtype)
    strange: Any
    which = rng.randrange(3)
    if which == 0:
        source = strange = _strange(source, rng)
    elif which == 1:
        coefficients = strange = _strange(coefficients, rng)
    else:
        solution = strange = _strange(solution, rng)
    call = (
        (lambda: operator.predict(source, coefficients)),
        (lambda: system.solve(source, coefficients)),
        (lambda: system.residual(solution, source, coefficients)),
    )[how - 1]
    found, wrong = refused(call)
    if found is None:
        return wrong
    # of a solution that blew up the residual is no number either
    blown_up = how == 3 and which == 2 and not strange.isfinite().all()
    return None if blown_up or torch.isfinite(found).all() else f"NaN or infinity of {call.__code__.co_names[-1]}"


def _strange(tensor: torch.Tensor, rng: random.Random) -> Any:
    how = rng.randrange(12)
    if how == 0:
        return rng.choice(STRANGE)()
    if how == 1:
        return tensor.tolist()
    if how == 2:
        return tensor.numpy() if tensor.dtype != torch.bfloat16 else None
    if how == 3:
        kinds = (torch.complex64, torch.complex128, torch.bool, torch.int8, torch.int64, torch.float8_e5m2)
        return tensor.float().to(rng.choice(kinds))
    if how == 4:
        changed = tensor.clone()
        changed.view(-1)[rng.randrange(changed.numel())] = rng.choice((float("nan"), float("inf"), -float("inf")))
        return changed
    if how == 5:
        return tensor[..., :-1]
    if how == 6:
        return tensor.unsqueeze(0).expand(3, *tensor.shape)
    if how == 7:
        return tensor[:0]
    if how == 8:
        return torch.cat([tensor, tensor[:1]])
    if how == 9:
        return tensor.float().to_sparse()
    if how == 10:
        return torch.zeros_like(tensor)
    return tensor.reshape(-1)


def _scaled(rng: random.Random, operator, system, source, coefficients, how: int) -> str | None:
    """A source that is scaled gives a solution that is scaled as much, or is refused."""
    scale = 10.0 ** rng.uniform(-45, 37)
    dtype = rng.choice((torch.float32, torch.float64))
    call = operator.predict if how == 1 else system.solve
    coefficients = coefficients.to(dtype)
    expected = call(source.to(dtype), coefficients).double()
    scaled = (scale * source).to(dtype)
    if float(scaled.abs().max()) < 1e-33 and dtype == torch.float32:
        return None  # float32 itself holds no such source
    found, wrong = refused(lambda: call(scaled, coefficients))
    if found is None:
        return wrong
    error = float((found.double() / scale - expected).abs().max() / expected.abs().max())
    return None if error < 1e-3 else f"{call.__qualname__} of a source times {scale:.1e} is off by {error:.1e}"


def _dial_gradient(rng: random.Random) -> str | None:
    system = SYSTEMS[rng.choice(sorted(SYSTEMS))]
    source, coefficients, _, _ = _examples(system.name, 8)
    coefficients = coefficients.clone()
    if "k11" in system.coefficient_names and rng.random() < 0.7:
        coefficients[:, :3] = torch.tensor([0.02, 0.02, 0.0]) * 10.0 ** rng.uniform(-6, 6)
    coefficients.requires_grad_()
    system.dial(source, coefficients).sum().backward()
    gradient = coefficients.grad
    return (
        None if gradient is None or gradient.isfinite().all() else f"the gradient of the dial of {system.name} is NaN"
    )
