"""Boundaries of the unit square by reflection: u = 0, or no flux through it, on the torus of twice the side.

The square is a quarter of that torus. Where u = 0 on the boundary, the source and u are continued oddly, coefficient
fields evenly; without flux all of them evenly. A solution on the torus then fulfils the boundary condition by its
symmetry, so every periodic solver is one for these boundaries too: `reflected` makes the system.

It is exact where the continued fields are smooth. A source that is continued oddly and does not vanish at the boundary
jumps there, as f = 1 does, and the error is of second order: with Poisson's equation 0.75 % on 16 points, 0.19 % on 32.

Points are at ``j / n`` where u = 0, so that row and column 0 lie on the boundary, as does j = n, which the grid lacks;
and at ``(j + 1/2) / n`` without flux.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from sciml_fm_core.schema import check_choice

from .symmetries import ELEMENTS
from .system import VARIANTS, System

BOUNDARIES = ("dirichlet", "no-flux")
"""u = 0 on the boundary, and no flux through it; ``SYS-1-DIRICHLET(1,5)`` and ``SYS-1-NO-FLUX(1,5)`` are tasks."""


def odd(field: Tensor) -> Tensor:
    """Odd continuation of fields (..., n, n), at j / n, to the torus (..., 2 n, 2 n): ``u(-x) = -u(x)``.

    It is 0 where x or y is 0 or 1, whatever the field is there.

    >>> odd(torch.arange(16.0).view(4, 4))[1].tolist()
    [0.0, 5.0, 6.0, 7.0, 0.0, -7.0, -6.0, -5.0]
    """
    for dim in (-1, -2):
        inside = field.narrow(dim, 1, field.shape[dim] - 1)
        edge = torch.zeros_like(field.narrow(dim, 0, 1))
        field = torch.cat([edge, inside, edge, -inside.flip(dim)], dim)
    return field


def even(field: Tensor, *, edge: str = "smooth") -> Tensor:
    """Even continuation of fields (..., n, n), at j / n, to the torus (..., 2 n, 2 n): ``a(-x) = a(x)``.

    The value at j = n is missing. It is the one that leaves no wave ``cos(pi n x)``, exact for all shorter series of
    cosines (``smooth``), or that of the neighbour (``copied``), for fields that jump.

    >>> x, wide = torch.arange(4) / 4, torch.arange(8) / 4
    >>> torch.allclose(even(torch.cos(torch.pi * x).expand(4, 4)), torch.cos(torch.pi * wide).expand(8, 8), atol=1e-6)
    True
    """
    for dim in (-1, -2):
        n = field.shape[dim]
        if edge == "copied":
            last = field.narrow(dim, n - 1, 1)
        else:
            weights = 2.0 * (-1) ** torch.arange(n, device=field.device)
            weights[0] = 1
            last = (-1) ** (n + 1) * (field.movedim(dim, -1) @ weights.to(field)).unsqueeze(dim)
        field = torch.cat([field, last, field.narrow(dim, 1, n - 1).flip(dim)], dim)
    return field


def even_between(field: Tensor) -> Tensor:
    """Even continuation of fields (..., n, n), at (j + 1/2) / n, to the torus (..., 2 n, 2 n)."""
    field = torch.cat([field, field.flip(-1)], -1)
    return torch.cat([field, field.flip(-2)], -2)


class Reflected(System):
    """Another system with a boundary, see the module; `reflected` makes it.

    It is solved on the torus of twice the side, with the coefficients that `System.on_square` gives for it. The last of
    several input fields is the source.

    A constant K with k12 other than 0, or a velocity, would change its sign from one quarter to the next, so equations
    with them are refused; those of the tasks are drawn with the axes of K along x and y.
    """

    base: System
    boundary: str

    def __init__(self, base: System, boundary: str):
        said: dict[str, Any] = {
            each: getattr(base, each)
            for each in ("equation", "inputs", "outputs", "coefficient_names", "dialled", "shifts", "constants")
        }
        words = "u = 0 on the boundary" if boundary == "dirichlet" else "no flux through the boundary"
        said |= {"base": base, "boundary": boundary, "title": f"{base.title or base.name}, {words}"}
        said |= {"label": f"{base.label}-{boundary.upper()}", "name": f"{base.name}-{boundary}"}
        if boundary == "dirichlet" and len(base.inputs) == 1:  # points of other grids have no mirror image on them
            said["geometry"] = base.geometry
        self.__dict__ |= said | {"zero_mean": base.zero_mean and boundary == "no-flux"}

    def __reduce__(self):
        return reflected, (self.base, self.boundary)

    @property
    def is_odd(self) -> bool:
        """Whether source and solution are continued oddly."""
        return self.boundary == "dirichlet"

    def draw(self, dial, parameters, grid, generator):
        """As the system without a boundary; no-flux at the points between those of a grid of twice as many."""
        if self.is_odd:
            return self.base.draw(dial, parameters, grid, generator)
        ny, nx = grid
        fields = self.base.draw(dial, parameters, (2 * ny, 2 * nx), generator)[..., 1::2, 1::2]
        source = fields if len(self.inputs) == 1 else fields[..., -1:, :, :]
        if self.zero_mean:
            source = source - source.mean((-2, -1), keepdim=True)
        return source if len(self.inputs) == 1 else torch.cat([fields[..., :-1, :, :], source], dim=-3)

    def varied(self, source, dial):
        return self.base.varied(source, dial)

    def solve(self, source, coefficients):
        """Solve on the doubled torus, and give the quarter that is the square.

        Raises:
            ValueError: as the system without a boundary; or if the coefficients do not reflect.
        """
        self.check(source, coefficients)
        n = source.shape[-1]
        doubled, scaled = self.base.on_square(self.continued(source), coefficients, 2.0)
        return self.base.solve(doubled, scaled)[..., :n, :n]

    def continued(self, source: Tensor) -> Tensor:
        """Input fields (..., n, n) on the torus (..., 2 n, 2 n)."""
        if not self.is_odd:
            return even_between(source)
        if len(self.inputs) == 1:
            return odd(source)
        fields = source[..., :-1, :, :]
        # The value that is missing at j = n stays positive where all others are, by their logarithms.
        fields = even(fields.log()).exp() if (fields > 0).all() else even(fields)
        return torch.cat([fields, odd(source[..., -1:, :, :])], dim=-3)

    def coefficients(self, dial, source, parameters):
        """As without a boundary, at an angle 0 of the axes; no other parameter is drawn."""
        return self.base.coefficients(dial, source, dial.new_zeros(*dial.shape, len(self.base.parameters)))

    def dial(self, source, coefficients):
        return self.base.dial(source, coefficients)

    def check_coefficients(self, coefficients):
        self.base.check_coefficients(coefficients)
        if not self.coefficient_names:
            return
        for mirror in (2, 4):  # of `symmetries`: x to -x, y to -y
            turned = self.base.turned(coefficients, torch.full(coefficients.shape[:-1], mirror))
            if (changed := (turned != coefficients).reshape(-1, coefficients.shape[-1]).any(0)).any():
                names = [name for name, is_odd in zip(self.coefficient_names, changed.tolist(), strict=True) if is_odd]
                raise ValueError(
                    f"coefficients: {self.name} expects {', '.join(names)} 0, since beyond the boundary their sign "
                    "changes and they would no longer be constant; set them to 0, or solve on the torus"
                )


@cache
def reflected(system: System, boundary: str) -> Reflected:
    """The system on the unit square with a boundary, ``dirichlet`` (u = 0) or ``no-flux``.

    >>> from sciml_fm_core import find_system
    >>> poisson = reflected(find_system("SYS-1"), "dirichlet")
    >>> x = torch.arange(8, dtype=torch.float64) / 8
    >>> u = torch.sin(torch.pi * x) * torch.sin(2 * torch.pi * x)[:, None]
    >>> torch.allclose(poisson.solve(5 * torch.pi**2 * u, torch.tensor([1.0, 1.0, 0.0])), u)
    True

    Raises:
        ValueError: on another boundary, or a system that does not reflect.
    """
    check_choice("boundary", boundary, BOUNDARIES)
    vectors = [name for pair in (system.geometry.vectors if system.geometry else ()) for name in pair]
    if vectors:
        raise ValueError(
            f"system {system.name}: {', '.join(vectors)} go through the boundary and would change their sign there, so "
            "that they do not reflect; solve it on the torus"
        )
    if len(system.symmetries) < ELEMENTS or type(system).on_square is System.on_square:
        raise ValueError(
            f"system {system.name}: it has no boundary by reflection; its class declares a geometry and on_square"
        )
    return Reflected(system, boundary)


for each in BOUNDARIES:
    VARIANTS[each] = partial(reflected, boundary=each)
