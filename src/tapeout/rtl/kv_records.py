"""K and V records cut out of a run of bytes: a record is as long as the model's heads are wide, and that is a number of the micro-op.

Codes leave in offset binary (code + 128): multipliers then know no signs, which is smaller and simulates several times faster; what uses the
sums takes the offset off again.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tapeout.chip.spec import ChipSpec
from tapeout.rtl.attention_walk import COUNT

TAIL = 4
"""Bytes of a record behind the codes: K has n, e of K and n, e of V; V has n, e."""
FINE = 8
"""Halfwords that the first of two multiplexers shifts by at most; the second one shifts by multiples of them."""


def kv_words(chip: ChipSpec) -> int:
    """Words that hold `keys` K records wherever they begin."""
    unit = chip.tile.attention
    return unit.keys * (unit.lanes + TAIL) // 4 + 1


def query_words(chip: ChipSpec) -> int:
    """Words that hold a head packet wherever it begins."""
    return (chip.tile.attention.lanes + 4) // 4


def sign_flip(m: Module, en: Value) -> Value:
    """A word that adds 128 to four signed bytes, by `^`, while `en` is high: by a constant the tools would take the bytes apart."""
    flip = Signal(32)
    m.d.comb += flip.eq(Mux(en, 0x80808080, 0))
    return flip


class RecordCut(wiring.Component):
    """Combinational. `data` holds records of `columns` codes from its first or (with `odd`) second halfword on; `key` says that they are K.

    Nothing moves without `en`. codes0.. are `lanes` codes in offset binary, those beyond `columns` anything; tail0.. the record's last four bytes:
    n, e of V come last.
    """

    def __init__(self, chip: ChipSpec):
        self.keys, self.lanes = chip.tile.attention.keys, chip.tile.attention.lanes
        members = {"en": In(1), "data": In(32 * kv_words(chip)), "odd": In(1), "columns": In(COUNT), "key": In(1)}
        members |= {f"codes{k}": Out(8 * self.lanes) for k in range(self.keys)}
        super().__init__(members | {f"tail{k}": Out(8 * TAIL) for k in range(self.keys)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        full, half = Signal(), Signal(COUNT)
        m.d.comb += [full.eq(self.columns == self.lanes), half.eq(self.columns[1:] + Mux(self.key, 2, 1))]
        flip = sign_flip(m, self.en)
        for k in range(self.keys):
            record = Signal(8 * (self.lanes + TAIL), name=f"record{k}")
            tail = getattr(self, f"tail{k}")
            with m.If(self.en):
                # Most models' heads are as wide as the chip's lanes: a simulator then never enters the shifters.
                with m.If(full):
                    self._fixed(m, k, record, tail)
                with m.Else():
                    self._shifted(m, k, half, record, tail)
                m.d.comb += getattr(self, f"codes{k}").eq(record[: 8 * self.lanes] ^ flip.replicate(self.lanes // 4))
        return m

    def _fixed(self, m: Module, k: int, record: Signal, tail: Value) -> None:
        with m.Switch(Cat(self.odd, self.key)):
            for odd in range(2):
                for key in range(2):
                    size = self.lanes + (4 if key else 2)
                    with m.Case(odd + 2 * key):
                        at = 8 * (k * size + 2 * odd)
                        m.d.comb += record.eq(self.data[at:])
                        m.d.comb += tail.eq(self.data[at + 8 * (size - TAIL) :][: 8 * TAIL])

    def _shifted(self, m: Module, k: int, half: Value, record: Signal, tail: Value) -> None:
        greatest = k * (self.lanes // 2 + 2) + 1
        at = Signal(range(greatest + 1), name=f"at{k}")
        near = Signal(8 * (self.lanes + TAIL) + 16 * (greatest // FINE) * FINE, name=f"near{k}")
        m.d.comb += at.eq(half * k + self.odd)
        with m.Switch(at[:3]):
            for fine in range(min(FINE, greatest + 1)):
                with m.Case(fine):
                    m.d.comb += near.eq(self.data[16 * fine :])
        with m.Switch(at[3:]):
            for coarse in range(greatest // FINE + 1):
                with m.Case(coarse):
                    m.d.comb += record.eq(near[16 * FINE * coarse :])
        with m.Switch(half):
            for end in range(2, self.lanes // 2 + 2):
                with m.Case(end):
                    m.d.comb += tail.eq(record[16 * (end - 2) : 16 * end])
