"""Argmax: the first of the greatest values, lanes first, then word by word."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tapeout.rtl.binary32 import register
from tapeout.rtl.tree import cut, fold

CANDIDATE = data.StructLayout({"lane": unsigned(5), "minus_zero": 1, "key": unsigned(32)})
"""`key` orders binary32 numbers as unsigned integers, both zeros alike; 0 is below every number."""


class Greatest(wiring.Component):
    """Cycle 0: the lanes' `values`, and which of them are there. Cycle 2: `use`, `first`, `pairs` of that word, and with pairs their `ids`.
    Cycle 3: `value` and `id` of the greatest so far: with pairs its own id, else its place in the row."""

    def __init__(self, lanes: int):
        self.lanes = lanes
        super().__init__(
            {
                "values": In(data.ArrayLayout(32, lanes)), "there": In(lanes), "use": In(1), "first": In(1), "pairs": In(1),
                "ids": In(data.ArrayLayout(32, lanes)), "value": Out(32), "id": Out(32),
            }
        )  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        parts = []
        for k, part in enumerate(cut([self._candidate(m, k) for k in range(self.lanes)])):
            parts.append(kept(f"part{k}"))
            m.d.sync += parts[-1].eq(fold(part, lambda one, two: better(m, one, two)))
        winner = kept("winner")
        m.d.sync += winner.eq(fold(parts, lambda one, two: better(m, one, two)))
        self._keep_best(m, winner)
        return m

    def _candidate(self, m: Module, k: int) -> data.View:
        x, found = self.values[k], Signal(CANDIDATE, name=f"candidate{k}")
        minus_zero = x == 1 << 31
        key = Mux(x[31] & ~minus_zero, ~x, Cat(x[:31], Const(1, 1)))
        m.d.comb += found.eq(Cat(Const(k, 5), minus_zero, Mux(self.there[k], key, 0)))
        return found

    def _keep_best(self, m: Module, winner: data.View) -> None:
        """Word by word: a later one must be greater."""
        place_bits, word = (self.lanes - 1).bit_length(), Signal(20)
        key, minus_zero, identity = register("best_key", 32), register("best_minus_zero", 1), register("best_id", 32)
        place = Cat(winner.lane[:place_bits], Mux(self.first, 0, word))
        with m.If(self.use):
            m.d.sync += word.eq(Mux(self.first, 1, word + 1))
            with m.If(self.first | (winner.key > key)):
                m.d.sync += [key.eq(winner.key), minus_zero.eq(winner.minus_zero)]
                m.d.sync += identity.eq(Mux(self.pairs, Array(self.ids)[winner.lane[:place_bits]], place))
        plus = key[31] & ~minus_zero
        m.d.comb += [self.value.eq(Cat(Mux(key[31], key[:31], ~key[:31]), ~plus)), self.id.eq(identity)]


def kept(name: str) -> data.View:
    """A candidate in a register."""
    return Signal(CANDIDATE, name=name, reset_less=True)


def better(m: Module, one: data.View, two: data.View) -> data.View:
    """The greater one, the earlier of equals."""
    found = Signal(CANDIDATE, name="better")
    m.d.comb += found.eq(Mux(two.key > one.key, two.as_value(), one.as_value()))
    return found
