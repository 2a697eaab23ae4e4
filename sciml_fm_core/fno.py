"""Fourier neural operator: truncated spectral convolutions on the torus, optionally gated by the coefficients.

The network works on ``hidden[y, x, batch, channel]``: with space first, the truncated Fourier transform, the product
with the weights of each mode and the pointwise convolution are all plain matrix products on contiguous memory, with no
permuted copies between them. (Li et al., arXiv:2010.08895; released weights of arXiv:2306.00258 load unchanged.)
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from .spectral import check_grid


@dataclass(frozen=True)
class FNOConfig:
    """Shape of a Fourier neural operator.

    Attributes:
        in_channels: the source and one constant map for each coefficient.
        width: channels d of the hidden fields.
        modes: modes m kept in each direction: ky in [-m, m), kx in [0, m).
        depth: number of blocks.
        projection: hidden channels of the last pointwise network; 2 d where None.
        gate_width: hidden width of the network that gates the blocks by the coefficients; 0 for the plain FNO.
    """

    in_channels: int
    width: int = 16
    modes: int = 16
    depth: int = 4
    projection: int | None = None
    gate_width: int = 0

    def __post_init__(self):
        for name in ("in_channels", "width", "modes", "depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"FNOConfig: expected {name} of at least 1, got {getattr(self, name)}")
        if self.gate_width < 0 or (self.projection is not None and self.projection < 1):
            raise ValueError("FNOConfig: expected gate_width >= 0 and projection >= 1")
        if self.gate_width and self.in_channels < 2:
            raise ValueError("FNOConfig: gates need at least one coefficient channel beside the source")

    @property
    def projection_width(self) -> int:
        """Hidden channels of the last pointwise network."""
        return self.projection or 2 * self.width

    def to_dict(self) -> dict:
        """Plain values, for a file."""
        return asdict(self)


SIZES: dict[str, dict[str, int]] = {
    "64K": {"width": 16, "modes": 4},
    "1M": {"width": 16, "modes": 16},
    "16M": {"width": 32, "modes": 32},
    "256M": {"width": 128, "modes": 32},
}
"""Widths and modes of the paper's four model sizes, named by their number of parameters."""


@lru_cache(maxsize=32)
def _fourier_matrices(n: int, modes: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """Real matrices of the truncated transform and its inverse.

    Returns ``along_x`` (2 m, n) with rows (re/im, kx); ``along_y`` (4 m, 2 n) with rows (re/im, ky) and columns (y,
    re/im); and the inverses ``back_y`` (2 n, 4 m), ``back_x`` (n, 2 m), which carry the factor 1 / n each. A mode with
    kx > 0 stands for itself and its conjugate, hence the factor 2.
    """
    points = torch.arange(n, dtype=torch.float64) / n
    kx = torch.arange(modes, dtype=torch.float64)
    ky = torch.cat([torch.arange(modes), torch.arange(-modes, 0)]).double()
    phase_x, phase_y = 2 * torch.pi * torch.outer(kx, points), 2 * torch.pi * torch.outer(ky, points)
    along_x = torch.cat([phase_x.cos(), -phase_x.sin()])
    cosine, sine = phase_y.cos(), phase_y.sin()
    along_y = torch.stack([torch.stack([cosine, sine], -1), torch.stack([-sine, cosine], -1)]).reshape(4 * modes, 2 * n)
    multiplicity = torch.full((modes, 1), 2.0, dtype=torch.float64)
    multiplicity[0] = 1
    back_x = torch.cat([phase_x.cos() * multiplicity, -phase_x.sin() * multiplicity]).T / n
    return tuple(t.to(device, dtype).contiguous() for t in (along_x, along_y, along_y.T / n, back_x))


class SpectralConvolution(nn.Module):
    """Linear map of the channels of each kept mode: ``v_hat(k) = u_hat(k) W(k)``, other modes removed.

    The weight has shape (2, 2 m * m, d, d): real and imaginary part, mode (ky, kx) with ky = 0 .. m-1, -m .. -1, input
    channel, output channel.
    """

    def __init__(self, width: int, modes: int, generator: torch.Generator | None = None):
        super().__init__()
        self.modes = modes
        weight = torch.randn(2, 2 * modes * modes, width, width, generator=generator)
        self.weight = nn.Parameter(weight / math.sqrt(2 * width))

    def forward(self, hidden: Tensor, gate: Tensor | None = None) -> Tensor:
        """Apply to hidden (n, n, batch, d); a gate (batch, d) scales the output where it is smallest, in its modes."""
        n, _, batch, width = hidden.shape
        m = self.modes
        with torch.no_grad():
            along_x, along_y, back_y, back_x = _fourier_matrices(n, m, hidden.dtype, hidden.device)
        rows = torch.matmul(along_x, hidden.reshape(n, n, batch * width))  # (y, (re/im, kx), channels)
        spectrum = (along_y @ rows.view(2 * n, m * batch * width)).view(2, 2 * m * m, batch, width)
        (real, imag), (w_real, w_imag) = spectrum.unbind(0), self.weight.unbind(0)
        out_real = torch.baddbmm(torch.bmm(real, w_real), imag, w_imag, alpha=-1)
        out_imag = torch.baddbmm(torch.bmm(real, w_imag), imag, w_real)
        spectrum = torch.stack([out_real, out_imag])
        if gate is not None:
            spectrum = spectrum * gate
        spectrum = spectrum.view(4 * m, m * batch * width)
        rows = (back_y @ spectrum).view(n, 2 * m, batch * width)
        return torch.matmul(back_x, rows).view(n, n, batch, width)


class Gates(nn.Module):
    """Bounded gates: for each block a scale of both branches in (0, 2) and a shift, from the coefficients alone.

    A plain FNO must build every product of a coefficient and a field out of GELUs; a gate gives it the product. The
    scales go through 1 + tanh(g / 2), so that a coefficient outside the training range cannot make them explode.
    """

    def __init__(self, constants: int, width: int, depth: int, hidden: int):
        super().__init__()
        self.depth, self.width = depth, width
        last = nn.Linear(hidden, depth * 3 * width)
        self.layers = nn.Sequential(nn.Linear(constants, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), last)
        nn.init.zeros_(last.bias)

    def forward(self, constants: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gates = self.layers(constants).view(-1, self.depth, 3, self.width).permute(1, 2, 0, 3)
        spectral, pointwise, shift = gates.unbind(1)
        return 1 + torch.tanh(spectral / 2), 1 + torch.tanh(pointwise / 2), torch.tanh(shift / 2)


class FNO(nn.Module):
    """Fourier neural operator ``(source, coefficient maps) -> solution`` on n x n periodic grids.

    A 1 x 1 lift to d channels; blocks of a spectral convolution plus a 1 x 1 convolution, with GELU after all but the
    last; 1 x 1 to 2 d channels, GELU, 1 x 1 to one. No positional channels: they would break translation equivariance.

    Args:
        config: shape of the network.
        generator: randomness of the initial weights; the global one where None.
    """

    def __init__(self, config: FNOConfig, generator: torch.Generator | None = None):
        super().__init__()
        self.config = config
        d, projection = config.width, config.projection_width
        self.lift = nn.Linear(config.in_channels, d)
        self.spectral = nn.ModuleList(SpectralConvolution(d, config.modes, generator) for _ in range(config.depth))
        self.pointwise = nn.ModuleList(nn.Linear(d, d) for _ in range(config.depth))
        self.project = nn.Linear(d, projection)
        self.output = nn.Linear(projection, 1)
        self.gates = Gates(config.in_channels - 1, d, config.depth, config.gate_width) if config.gate_width else None
        if generator is not None:
            for layer in self.modules():
                if isinstance(layer, nn.Linear):
                    bound = 1 / math.sqrt(layer.in_features)
                    nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
                    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)

    @property
    def parameter_count(self) -> int:
        """Number of real parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, inputs: Tensor, constants: Tensor | None = None) -> Tensor:
        """Apply the operator.

        Args:
            inputs: (batch, channels, n, n), n even and at least 2 m: the source first, then coefficient maps.
            constants: further channels that are constant in space, as numbers (batch, k); channels + k = in_channels.
                Saves building their maps.

        Returns:
            Solution, (batch, 1, n, n).

        Raises:
            ValueError: on another number of channels, or a grid too coarse for the modes.
        """
        known = inputs.shape[1] if inputs.ndim == 4 else -1
        extra = 0 if constants is None else constants.shape[-1]
        if known + extra != self.config.in_channels:
            raise ValueError(
                f"inputs: expected (batch, {self.config.in_channels}, n, n) counting constants, "
                f"got {tuple(inputs.shape)} and {extra} constants"
            )
        n = check_grid(inputs, "inputs")
        if n < 2 * self.config.modes:
            raise ValueError(
                f"inputs: expected at least {2 * self.config.modes} points for {self.config.modes} modes, got {n}; "
                "use a finer grid or a model with fewer modes"
            )
        fields = inputs.permute(2, 3, 0, 1)
        weight = self.lift.weight
        hidden = functional.linear(fields, weight[:, :known])
        shift = self.lift.bias if constants is None else functional.linear(constants, weight[:, known:], self.lift.bias)
        hidden = hidden + shift
        if self.gates is not None:
            means = inputs[:, 1:].mean(dim=(-2, -1))  # a coefficient map is constant; its mean is its value
            gates = self.gates(means if constants is None else torch.cat([means, constants], dim=1))
        last = self.config.depth - 1
        for block, (spectral, pointwise) in enumerate(zip(self.spectral, self.pointwise, strict=True)):
            if self.gates is None:
                hidden = spectral(hidden) + pointwise(hidden)
            else:
                spectral_gate, pointwise_gate, shift = (gate[block] for gate in gates)
                hidden = torch.addcmul(spectral(hidden, spectral_gate) + shift, pointwise(hidden), pointwise_gate)
            if block < last:
                hidden = functional.gelu(hidden)
        solution = self.output(functional.gelu(self.project(hidden)))
        return solution.permute(2, 3, 0, 1)

    @classmethod
    def from_released(cls, weights: dict[str, Tensor] | str | Path) -> FNO:
        """Model from weights of the paper's released code.

        Args:
            weights: its state dict, or the path of one of its checkpoints (read as tensors only, never unpickled).

        Raises:
            ValueError: if the keys or shapes are not those of that code.
        """
        if isinstance(weights, str | Path):
            weights = _read_released(Path(weights))
        state = {key.removeprefix("module."): torch.as_tensor(value) for key, value in weights.items()}
        try:
            depth = sum(key.endswith(".weights1") for key in state)
            first = state["sp_convs.0.weights1"]
            config = FNOConfig(
                in_channels=state["fc0.weight"].shape[1],
                width=state["fc0.weight"].shape[0],
                modes=first.shape[2],
                depth=depth,
                projection=state["fc1.weight"].shape[0],
            )
            converted = {"lift.weight": state["fc0.weight"], "lift.bias": state["fc0.bias"]}
            for i in range(depth):
                positive, negative = state[f"sp_convs.{i}.weights1"], state[f"sp_convs.{i}.weights2"]
                if positive.is_complex():
                    positive, negative = torch.view_as_real(positive), torch.view_as_real(negative)
                both = torch.cat([positive, negative], dim=2)  # (in, out, ky, kx, re/im)
                converted[f"spectral.{i}.weight"] = both.permute(4, 2, 3, 0, 1).flatten(1, 2).contiguous()
                converted[f"pointwise.{i}.weight"] = state[f"ws.{i}.weight"].squeeze(-1)
                converted[f"pointwise.{i}.bias"] = state[f"ws.{i}.bias"]
            for ours, theirs in (("project", "fc1"), ("output", "fc2")):
                converted[f"{ours}.weight"], converted[f"{ours}.bias"] = (
                    state[f"{theirs}.weight"],
                    state[f"{theirs}.bias"],
                )
            model = cls(config)
            model.load_state_dict(converted)
        except (KeyError, IndexError, RuntimeError) as error:
            raise ValueError(
                f"released weights: expected fc0, sp_convs.i.weights1/2, ws.i, fc1, fc2 of one width; {error}"
            ) from error
        return model


def _read_released(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"released checkpoint: no file {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"released checkpoint {path}: not a file of tensors only ({type(error).__name__})") from error
    state = checkpoint.get("model_state", checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict):
        raise ValueError(f"released checkpoint {path}: expected a state dict or one under 'model_state'")
    return state
