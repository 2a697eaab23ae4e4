"""Whether operations run at once on ordinary tensors, or are traced, compiled or transformed by `torch.func`.

Only what runs at once may be kept for later calls, be written into arrays that are used again, or be looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.autograd import forward_ad

P = ParamSpec("P")
T = TypeVar("T")
PRODUCTS: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
"""PyTorch's settings of products of matrices on a CPU."""


def is_eager() -> bool:
    """Whether nothing is compiled, exported, traced, transformed by `torch.func` or given tangents."""
    functorch = torch._C._functorch
    return not (_is_recorded() or functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0)


def _is_recorded() -> bool:
    """Whether operations are compiled, exported or traced, or something else has a say in each."""
    return bool(
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._len_torch_dispatch_stack()
        or torch._ops._len_torch_dispatch_stack_pre_dispatch()
    )


def is_plain(device: torch.device) -> bool:
    """Whether no autocast, inference mode, default device or rounding of products changes what is computed there."""
    set_apart = torch.is_inference_mode_enabled() or torch.is_autocast_enabled(device.type)
    rounded = PRODUCTS.fp32_precision not in ("none", "ieee")
    return not (set_apart or rounded) and torch.get_default_device() == device


@contextmanager
def exact_products() -> Iterator[None]:
    """No product of float32 matrices on a CPU is rounded to bfloat16, as `torch.set_float32_matmul_precision` asks for
    where the processor can."""
    before, PRODUCTS.fp32_precision = PRODUCTS.fp32_precision, "ieee"
    try:
        yield
    finally:
        PRODUCTS.fp32_precision = before


def is_ordinary(tensor: Tensor | None) -> bool:
    """Whether a tensor holds its own numbers: no FakeTensor, none else that answers operations itself, and no batch of
    gradients."""
    return tensor is None or not (
        type(tensor).__torch_dispatch__ is not Tensor.__torch_dispatch__
        or tensor.is_meta
        or torch._C._functorch.is_legacy_batchedtensor(tensor)
    )


def known_values(tensor: Tensor) -> Tensor | None:
    """The numbers of a tensor, detached, for a check to look at; None where there are none: what is traced or "meta".

    Where `torch.func.vmap` maps over a dimension, it comes first.

    >>> torch.func.vmap(lambda row: known_values(row).sum() + row)(torch.ones(2, 3))[0]
    tensor([7., 7., 7.])
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return None
    tensor = tensor.detach()
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(tensor):
        mapped = functorch.maybe_get_bdim(tensor) if functorch.is_batchedtensor(tensor) else -1
        tensor = functorch.get_unwrapped(tensor)
        tensor = tensor if mapped < 0 else tensor.movedim(mapped, 0)
    return tensor if is_ordinary(tensor) and not torch._C._len_torch_dispatch_stack() else None


def graph_where_needed(*inputs: Tensor) -> AbstractContextManager:
    """No graph is made where none of these requires a gradient, and operations run at once."""
    needed = not is_eager() or any(tensor.requires_grad for tensor in inputs)
    return nullcontext() if needed else torch.no_grad()


def cached_tensors(maxsize: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """`functools.lru_cache` for what makes constant tensors: it keeps those alone that any later call can use.

    To the transformations of `torch.func` they are constants, which are made outside of them.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        kept = lru_cache(maxsize)(torch.inference_mode(False)(torch.no_grad()(function)))

        @wraps(function)
        def found(*arguments: Any) -> T:
            if _is_recorded():
                return function(*arguments)  # type: ignore[call-arg]
            with temporarily_clear_interpreter_stack():
                return kept(*arguments)  # type: ignore[arg-type]

        found.cache_clear = kept.cache_clear  # type: ignore[attr-defined]
        return found  # type: ignore[return-value]

    return decorate
