"""Scales of every kind, taken apart: a magnitude times 2^(exponent - EXPONENT_BIAS) and a sign, as `numerics.scales.split_scale` has them."""

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from tapeout.numerics.formats import BINARY16, E4M3, E8M0, WIDE, Scale
from tapeout.rtl.binary32 import BIAS, normalise

EXPONENT_BIAS = 25
"""Of binary16: its exponent field, 1 at least, is es + 25."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A scale as (ms, es): (-1)^negative * magnitude, and `exponent` = es + EXPONENT_BIAS."""

    magnitude: Value
    exponent: Value
    negative: Value


def parts_of(kind: Scale, stored: Value) -> Parts:
    """A stored scale's parts; `stored` may have more bits than the kind."""
    if kind == E8M0:
        return Parts(Const(1, 1), stored[:8] - (128 - EXPONENT_BIAS), Const(0))
    if kind == E4M3:
        field = stored[3:7]
        return Parts(Cat(stored[:3], field.any()), Mux(field.any(), field, 1) + (EXPONENT_BIAS - 11), Const(0))
    if kind == WIDE:
        field = stored[18:23]
        return Parts(stored[:18], Mux(field.any(), field, 1), stored[23])
    assert kind == BINARY16, f"no rule for scales of kind {kind.name}"
    field = stored[10:15]
    return Parts(Cat(stored[:10], field.any()), Mux(field.any(), field, 1), stored[15])


def chosen_parts(kinds: dict[int, Scale], which: Value, stored: Value) -> Parts:
    """Parts of a scale of the kind whose number is `which`."""
    (_, first), *others = kinds.items()
    found = parts_of(first, stored)
    for number, kind in others:
        other, chosen = parts_of(kind, stored), which == number
        found = Parts(
            Mux(chosen, other.magnitude, found.magnitude),
            Mux(chosen, other.exponent, found.exponent),
            Mux(chosen, other.negative, found.negative),
        )
    return found


def as_binary32(m: Module, parts: Parts, name: str) -> Value:
    """The number, exactly; a zero is +0. Its exponent must be one of binary32."""
    magnitude = Signal(len(parts.magnitude), name=f"{name}_magnitude")
    m.d.comb += magnitude.eq(parts.magnitude)
    normal, zeros = normalise(m, magnitude, name)
    top = len(magnitude) - 1
    exponent = parts.exponent + (BIAS + top - EXPONENT_BIAS) - zeros
    return Mux(normal[top], Cat(Const(0, 23 - top), normal[:top], exponent[:8], parts.negative), 0)
