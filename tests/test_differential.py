"""Random cases of `predict` and its derivatives, in every way that PyTorch runs a function, against a plain reference.

Like reports that export, `torch.func`, double backward, autocasting, threads or a changed default gave other numbers,
or left wrong ones behind, in libraries of neural operators, of Gaussian processes and of transforms.
"""

import math
import random
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from test_blocks import textbook
from torch import nn

from sciml_fm_core import FNO, FNOConfig, Operator, find_system
from sciml_fm_core.models import blocks, fused
from sciml_fm_core.models.normalization import DimensionlessNormalization, PaperNormalization, SymbolNormalization

POISSON = find_system("poisson")
MEDIANS, CENTRE, SPREAD = (0.02, 0.03, 0.005), (0.1, -0.2, 0.8), (0.5, 0.4, 0.3)
MODES = 3


def operator_of(kind, dtype):
    norm = {
        "paper": lambda: PaperNormalization((POISSON,), 0.7, MEDIANS),
        "dimensionless": lambda: DimensionlessNormalization((POISSON,), CENTRE, SPREAD),
        "symbol": lambda: SymbolNormalization((POISSON,)),
    }[kind]()
    more = {"paper": {}, "dimensionless": {"gate_width": 5}, "symbol": {"mode_channels": 5, "mode_gate_width": 4}}
    config = FNOConfig(norm.in_channels, width=4, modes=MODES, depth=2, **more[kind])
    return Operator(FNO(config, torch.Generator().manual_seed(3)).to(dtype), norm)


OPERATORS = {
    (kind, dtype): operator_of(kind, dtype)
    for kind in ("paper", "dimensionless", "symbol")
    for dtype in (torch.float64, torch.float32)
}


def reference(kind, model, source, coefficients):
    """`predict`, from its description: sources (b, n, n) and coefficients (b, 3), all in float64."""
    n = source.shape[-1]
    if kind == "symbol":
        source = source - source.mean((1, 2), keepdim=True)
    rms = source.square().mean((1, 2)).sqrt()
    k11, k22, k12 = coefficients.unbind(1)

    def maps(scalars):
        return scalars[:, :, None, None].expand(-1, -1, n, n)

    if kind == "paper":
        g = (rms / 0.7)[:, None, None]
        told = coefficients / g[:, 0] / torch.tensor(MEDIANS, dtype=torch.float64)
        return textbook(model, torch.cat([(source / g)[:, None], maps(told)], 1))[:, 0]
    field = (source / rms[:, None, None])[:, None]
    if kind == "dimensionless":
        kappa, det = (k11 + k22) / 2, k11 * k22 - k12**2
        features = torch.stack([(k11 - k22) / 2 / kappa, k12 / kappa, det.sqrt() / kappa], 1)
        centre, spread = (torch.tensor(values, dtype=torch.float64) for values in (CENTRE, SPREAD))
        told = torch.asinh((features - centre) / spread)
        output, scale = textbook(model, torch.cat([field, maps(told)], 1))[:, 0], 4 * math.pi**2 * kappa
    else:
        sign = torch.where(source.amax((1, 2)) + source.amin((1, 2)) < 0, -1.0, 1.0).double()
        points = 2 * MODES + 2
        kx, ky = torch.arange(points // 2 + 1).double(), torch.fft.fftfreq(points, 1 / points).double()[:, None]
        cross = torch.where((kx == points // 2) | (ky == -points // 2), 0, kx * ky)
        k = [k[:, None, None] for k in (k11, k22, k12)]
        symbol = 4 * math.pi**2 * (k[0] * kx**2 + k[1] * ky**2 + 2 * k[2] * cross)
        length = kx**2 + ky**2
        near = (length > 0) & (length <= 16)
        weight = (torch.where((kx == 0) | (kx == points // 2), 1.0, 2.0).double() / length)[near]
        scale = ((symbol[:, near] / length[near]).log() * weight).sum(1).div(weight.sum()).exp()
        z = torch.where(length == 0, 1, symbol / scale[:, None, None])
        values = torch.stack([torch.asinh(z.log()), torch.ones_like(z), torch.zeros_like(z), 1 / (1 + z), z.log()], -1)
        output = textbook(model, field * sign[:, None, None, None], values)[:, 0] * sign[:, None, None]
    return (output - output.mean((1, 2), keepdim=True)) * (rms / scale)[:, None, None]


def forget():
    blocks.fourier_matrices.cache_clear()
    fused.Workspace._spare.clear()


# Ways to run a function of (source, coefficients), which has a module whose weights it uses ---------------------------


@contextmanager
def default(get, change, value):
    before = get()
    change(value)
    try:
        yield
    finally:
        change(before)


def under(context):
    def way(function, *inputs):
        with context():
            return function(*inputs)

    return way


def by_rows(function, source, coefficients):
    return torch.func.vmap(lambda f, c: function(f[None], c[None])[0])(source, coefficients)


def over_coefficients(function, source, coefficients):
    """All rows see the first source, which is not mapped."""
    together = function(source[:1].expand_as(source), coefficients)
    mapped = torch.func.vmap(lambda c: function(source[:1], c[None])[0])(coefficients)
    torch.testing.assert_close(mapped, together)
    return function(source, coefficients)


def in_threads(function, *inputs):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: function(*inputs), range(4)))
    assert all(torch.equal(found[0], other) for other in found)
    return found[0]


class Wrapped(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.model, self.function = function.model, function

    def forward(self, source, coefficients):
        return self.function(source, coefficients)


def exported(function, *inputs):
    return torch.export.export(Wrapped(function).eval(), inputs, strict=False).module()(*inputs)


def traced(function, *inputs):
    with warnings.catch_warnings(action="ignore"):
        return torch.jit.trace(Wrapped(function), inputs, check_trace=False)(*inputs)


def compiled(function, *inputs):
    return torch.compile(function, backend="aot_eager", fullgraph=True)(*inputs)


WAYS = {
    "plainly": under(torch.enable_grad),
    "vmap": by_rows,
    "vmap over coefficients": over_coefficients,
    "autocast": under(lambda: torch.autocast("cpu", torch.bfloat16)),
    "threads": in_threads,
    "default dtype": under(lambda: default(torch.get_default_dtype, torch.set_default_dtype, torch.float64)),
    "default device": under(lambda: default(lambda: None, torch.set_default_device, "meta")),
}
ONLY_VALUES = {"no_grad": under(torch.no_grad), "inference": under(torch.inference_mode), "trace": traced}

# What is computed -----------------------------------------------------------------------------------------------------


def loss_of(function, weights):
    return lambda f, c: (function(f, c) * weights).sum() + function(f, c).square().sum()


def gradient(function, f, c, weights):
    f, c = f.clone().requires_grad_(), c.clone().requires_grad_()
    return torch.autograd.grad(loss_of(function, weights)(f, c), (f, c))


def functional_gradient(function, f, c, weights):
    return torch.func.grad(loss_of(function, weights), argnums=(0, 1))(f, c)


def hessian_product(function, f, c, weights):
    f, c = f.clone().requires_grad_(), c.clone().requires_grad_()
    first = torch.autograd.grad(loss_of(function, weights)(f, c), (f, c), create_graph=True)
    along = (first[0] * weights[: len(f)]).sum() + (first[1] * c.detach()).sum()
    return torch.autograd.grad(along, (f, c))


def functional_hessian_product(function, f, c, weights):
    first = torch.func.grad(loss_of(function, weights), argnums=(0, 1))
    return torch.func.jvp(first, (f, c), (weights[: len(f)], c))[1]


QUANTITIES = {
    "value": lambda function, f, c, weights: (function(f, c),),
    "gradient": gradient,
    "func.grad": functional_gradient,
    "Hessian product": hessian_product,
    "forward over reverse": functional_hessian_product,
}
LIKE = {"func.grad": "gradient", "forward over reverse": "Hessian product"}
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-2}


def check(case, ways, quantity=None):
    draw = random.Random(case)
    kind, dtype = draw.choice(["paper", "dimensionless", "symbol"]), draw.choice([torch.float64, torch.float32])
    n, count = draw.choice([8, 10, 12]), draw.choice([1, 2, 3])
    name = draw.choice(list(ways))
    quantity = quantity or draw.choice(list(QUANTITIES))
    if name == "threads" and quantity == "forward over reverse":  # PyTorch has its levels for the whole process
        name = "plainly"
    generator = torch.Generator().manual_seed(case)
    source, weights = torch.randn(2, count, n, n, generator=generator, dtype=torch.float64)
    source = source - source.mean((1, 2), keepdim=True)
    low, high, angle = torch.rand(3, count, generator=generator, dtype=torch.float64)
    low, high, angle = 0.01 + 0.01 * low, 0.03 + 0.02 * high, 0.2 + angle
    cosine, sine = angle.cos(), angle.sin()
    coefficients = torch.stack(
        [low * cosine**2 + high * sine**2, low * sine**2 + high * cosine**2, (high - low) * sine * cosine], 1
    )
    operator, exact = OPERATORS[kind, dtype], OPERATORS[kind, torch.float64]

    def function(f, c):
        return operator(f.to(dtype), c.to(dtype))

    function.model = operator.model

    def expected(f, c):
        return reference(kind, exact.model, f, c)

    def found_by(f, c):
        return QUANTITIES[quantity](function, f, c, weights.to(dtype))[0]

    wanted = QUANTITIES[LIKE.get(quantity, quantity)](expected, source, coefficients, weights)
    inputs = source.to(dtype), coefficients.to(dtype)
    rounded = name == "autocast" and quantity != "value" and dtype == torch.float32  # PyTorch's own backward pass
    tolerance = 0.2 if rounded else TOLERANCE[dtype]
    if quantity == "value":
        found = (ways[name](function, *inputs),)
    elif name.startswith("vmap"):  # of the function that is differentiated
        found = QUANTITIES[quantity](lambda f, c: ways[name](function, f, c), *inputs, weights.to(dtype))
    elif name == "threads":
        found = (ways[name](found_by, *inputs),)
    else:
        found = ways[name](lambda *own: QUANTITIES[quantity](function, *own, weights.to(dtype)), *inputs)
    for value, right in zip(found, wanted, strict=False):
        off = float(((value.double() - right).norm() / right.norm()).detach())
        assert off < tolerance, (case, kind, dtype, n, count, name, quantity, off)


@pytest.mark.parametrize("part", range(10))
def test_prediction_and_derivatives_in_every_way(part):
    for case in range(part, 470, 10):
        check(case, WAYS)


def test_values_where_no_gradients_are():
    for case in range(470, 490):
        check(case, ONLY_VALUES, "value")


@pytest.mark.parametrize(("way", "count"), [(exported, 4), (compiled, 1)])  # each of the latter takes seconds
def test_as_a_graph(way, count):
    """What follows is right, too: the grids are such as nothing was computed on before."""
    forget()
    for case in range(490, 490 + count):
        check(case, {"graph": way}, "value")
        check(case + 4, WAYS)


def test_on_the_device_meta():
    """Shapes, dtypes and the device go through, and nothing of it is kept for the CPU."""
    forget()
    operator = operator_of("dimensionless", torch.float32).to("meta")
    source, coefficients = torch.empty(2, 10, 10, device="meta"), torch.empty(2, 3, device="meta")
    found = operator(source, coefficients)
    assert found.is_meta
    assert found.shape == source.shape
    check(499, WAYS)
