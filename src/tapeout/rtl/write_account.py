"""What a tile has claimed of its write buffer, and which of it stands there whole."""

from amaranth.hdl import Array, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tapeout.rtl.stream_account import IN_FLIGHT


class WriteAccount(wiring.Component):
    """`issued` with `bytes` as a send to external memory issues, `done` in the cycle in which the oldest counts as complete. `claimed` and
    `pushed` count
    bytes up for ever.
    """

    issued: In(1)
    bytes: In(20)
    done: In(1)
    claimed: Out(32)
    pushed: Out(32)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        sizes = Array(Signal(20, name=f"size{k}", reset_less=True) for k in range(IN_FLIGHT))
        first, last, before = Signal(range(IN_FLIGHT)), Signal(range(IN_FLIGHT)), Signal(32)
        m.d.comb += self.pushed.eq(before + Mux(self.done, sizes[first], 0))
        with m.If(self.issued):
            m.d.sync += [sizes[last].eq(self.bytes), last.eq(last + 1), self.claimed.eq(self.claimed + self.bytes)]
        with m.If(self.done):
            m.d.sync += [before.eq(self.pushed), first.eq(first + 1)]
        return m
