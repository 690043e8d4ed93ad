"""The one way a binary32 number becomes an integer: its mantissa moves right and is rounded to nearest even."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

FAR = 25
"""By so much a mantissa of 24 bits moves right to become 0, whatever it is."""


def nearest(m: Module, name: str, mantissa: Value, distance: Value, least: int = 0) -> Signal:
    """rne(mantissa / 2^distance) for a signed distance of at least `least`."""
    width = len(mantissa) - least
    by, wide = Signal(range(FAR - least + 1), name=f"{name}_by"), Signal(width + FAR, name=f"{name}_wide")
    value = Signal(width + 1, name=name)
    m.d.comb += by.eq(Mux(distance >= FAR, FAR - least, (distance - least)[: len(by)]))
    m.d.comb += wide.eq(Cat(Const(0, FAR - least), mantissa) >> by)
    m.d.comb += value.eq(wide[FAR:] + (wide[FAR - 1] & (wide[: FAR - 1].any() | wide[FAR])))
    return value
