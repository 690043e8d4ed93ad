"""What a tile has taken from its stream buffer: room is given back in the order of use, once a micro-op and all before it have completed."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tapeout.isa.opcodes import Op

COUNT_BITS = 16
"""Beats are counted modulo 2^16; a buffer has fewer."""
TAKERS = (Op.MATMUL, Op.NORM, Op.EMBED, Op.SCORE, Op.VALUE)
"""Micro-ops that may take their operand from the stream."""
IN_FLIGHT = 32
"""More than there are micro-ops of one kind in flight at once: a pipe is shorter than that, and each takes a cycle."""


class StreamAccount(wiring.Component):
    """`issued.<op>` as a micro-op issues, with `streamed.<op>` if its operand is from the stream (one micro-op at a time), of `beats`; `done.<op>`
    in the
    cycle in which it counts as complete. `used` beats are taken, `freed` are free again: both count up for ever.

    A kind of micro-op completes in order, so a queue per kind remembers which were from the stream and how much had been taken before each.
    """

    def __init__(self) -> None:
        per_op = In(wiring.Signature({op.name.lower(): Out(1) for op in TAKERS}))
        super().__init__(
            {
                "issued": per_op, "streamed": per_op, "done": per_op, "beats": In(COUNT_BITS), "used": Out(COUNT_BITS), "freed": Out(COUNT_BITS),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        names = [op.name.lower() for op in TAKERS]
        with m.If(Cat(getattr(self.issued, name) & getattr(self.streamed, name) for name in names).any()):
            m.d.sync += self.used.eq(self.used + self.beats)
        held = Signal(COUNT_BITS)
        m.d.comb += [held.eq(self._oldest(m)), self.freed.eq(self.used - held)]
        return m

    def _oldest(self, m: Module) -> object:
        """Beats from the oldest micro-op in flight to the last one taken."""
        oldest: object = 0
        for op in TAKERS:
            behind = self._queue(m, op.name.lower())
            oldest = Mux(behind > oldest, behind, oldest)
        return oldest

    def _queue(self, m: Module, name: str) -> Signal:
        """Beats taken since the kind's oldest micro-op in flight, with it; 0 where none is from the stream."""
        issued, streamed, done = (getattr(part, name) for part in (self.issued, self.streamed, self.done))
        flags = Signal(IN_FLIGHT, name=f"{name}_flags")
        flag_in, flag_out, first, last = (
            Signal(range(IN_FLIGHT), name=f"{name}_{what}") for what in ("flag_in", "flag_out", "first", "last")
        )
        starts = Array(Signal(COUNT_BITS, name=f"{name}_start{k}", reset_less=True) for k in range(IN_FLIGHT))
        ends, oldest, behind = (
            Signal(name=f"{name}_ends"),
            Signal(range(IN_FLIGHT), name=f"{name}_oldest"),
            Signal(COUNT_BITS, name=f"{name}_behind"),
        )
        m.d.comb += [
            ends.eq(done & flags.bit_select(flag_out, 1)), oldest.eq(first + ends), behind.eq(Mux(oldest == last, 0, self.used - starts[oldest])),
        ]  # fmt: skip
        with m.If(issued):
            m.d.sync += [flags.bit_select(flag_in, 1).eq(streamed), flag_in.eq(flag_in + 1)]
            with m.If(streamed):
                m.d.sync += [starts[last].eq(self.used), last.eq(last + 1)]
        with m.If(done):
            m.d.sync += [flag_out.eq(flag_out + 1), first.eq(oldest)]
        return behind
