"""Values that travel down a pipeline beside the data."""

from amaranth.hdl import Cat, Module, Signal, Value, ValueLike

WORD = 64
"""A line of so many bits is one register that shifts: one assignment in a simulator of machine words."""


def delayed(m: Module, x: ValueLike, stages: int, name: str, reset_less: bool = True) -> list[Value]:
    """`x` and what it was 1 to `stages` cycles before, in this order. Valid bits are given `reset_less=False`."""
    x = Value.cast(x)
    width = len(x)
    if width * stages <= WORD:
        line = Signal(width * stages, name=f"{name}_line", reset_less=reset_less)
        m.d.sync += line.eq(Cat(x, line))
        return [x, *(_like(line[width * k : width * (k + 1)], x) for k in range(stages))]
    values = [x]
    for k in range(1, stages + 1):
        values.append(Signal(x.shape(), name=f"{name}_{k}", reset_less=reset_less))
        m.d.sync += values[k].eq(values[k - 1])
    return values


def _like(bits: Value, x: Value) -> Value:
    return bits.as_signed() if x.shape().signed else bits
