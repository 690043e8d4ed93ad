"""Values weighed: numerators from scores, c = floor(p*n*2^(e-E)), the sum of c times code over the keys of a cycle, into the queries' sums."""

from amaranth.hdl import Module, Mux, Signal, Value, signed
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from tapeout.chip.spec import ChipSpec
from tapeout.rtl.attention_walk import COUNT
from tapeout.rtl.binary32 import register
from tapeout.rtl.delay import delayed
from tapeout.rtl.kv_records import TAIL
from tapeout.rtl.ports import attention_out_lanes
from tapeout.rtl.query_sums import LENGTH, WEIGHTED, QuerySums
from tapeout.rtl.scores import bytes_of, total
from tapeout.rtl.softmax import Numerator

WEIGHT = 19
"""Bits of c: p*n is at most 32768 * 15."""
FARTHEST = 20
"""To shift a product p*n by more than this changes nothing."""
CODES = Numerator.STAGES + 1
"""Cycles from the records to the weights c: as long the codes wait."""
SUMS = CODES + 1
"""Cycles from the records to what is added to the sums."""
WAITING = 8
"""Cycles' worth of codes that can wait; a power of two."""

assert CODES - 1 < WAITING


class Weighing(wiring.Component):
    """codes0.. and tail0.. are V records, score0.. their scores, top, E (`e`) and `turn` their state's, with `en` (one stage later: `mask`).

    In the cycle before SUMS: `state`, `weigh` for values and `out` for an output from `column` on. Two cycles later `length` and n0.. stand.
    """

    def __init__(self, chip: ChipSpec):
        self.chip, self.keys, self.lanes = chip, chip.tile.attention.keys, chip.tile.attention.lanes
        members = {
            "en": In(1), "top": In(32), "e": In(signed(8)), "turn": In(1), "mask": In(self.keys), "state": In(range(chip.tile.attention.queries)),
            "weigh": In(1), "out": In(1), "column": In(COUNT), "length": Out(LENGTH),
        }  # fmt: skip
        for k in range(self.keys):
            members |= {f"tail{k}": In(8 * TAIL), f"score{k}": In(32), f"codes{k}": In(8 * self.lanes)}
        super().__init__(members | {f"n{p}": Out(signed(WEIGHTED)) for p in range(attention_out_lanes(chip))})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.sums = sums = QuerySums(self.chip)
        e, mask = register("e_state", signed(8)), delayed(m, self.mask, Numerator.STAGES - 1, "mask")[-1]
        m.d.sync += e.eq(self.e)
        numerators = [self._numerator(m, k, mask) for k in range(self.keys)]
        weights = [self._weight(m, k, e, p) for k, p in enumerate(numerators)]
        self._add_up(m, numerators, weights, sums)
        weigh, out = Signal(), Signal()
        state, column = register("state_held", self.state.shape()), register("column_held", COUNT)
        m.d.sync += [weigh.eq(self.weigh), out.eq(self.out), state.eq(self.state), column.eq(self.column)]
        m.d.comb += [
            sums.weigh.eq(weigh), sums.out.eq(out), sums.state.eq(state), sums.column.eq(column), self.length.eq(sums.length),
            sums.turn.eq(delayed(m, self.turn, SUMS, "turn")[-1]),
            *(getattr(self, f"n{p}").eq(getattr(sums, f"n{p}")) for p in range(sums.dividers)),
        ]  # fmt: skip
        return m

    def _numerator(self, m: Module, k: int, mask: Value) -> Value:
        m.submodules[f"numerator{k}"] = numerator = Numerator()
        counted = Signal(16, name=f"counted{k}")
        m.d.comb += [numerator.m.eq(self.top), numerator.s.eq(getattr(self, f"score{k}"))]
        m.d.comb += counted.eq(Mux(mask[k], numerator.p, 0))
        return counted

    def _weight(self, m: Module, k: int, e: Value, numerator: Value) -> Value:
        tail, weight = getattr(self, f"tail{k}"), register(f"weight{k}", WEIGHT)
        n, own, shift = register(f"n{k}", 4), register(f"e{k}", signed(8)), Signal(signed(9), name=f"shift{k}")
        scale = Signal(9, name=f"scale{k}")
        m.d.sync += [n.eq(tail[16:20]), own.eq(tail[24:32])]
        m.d.comb += [shift.eq(e - own), scale.eq(Mux(shift > FARTHEST, FARTHEST, shift[:5]) << 4 | n)]
        late = delayed(m, scale, Numerator.STAGES - 1, f"scale{k}")[-1]
        m.d.sync += weight.eq((numerator * late[:4]) >> late[4:])
        return weight

    def _add_up(self, m: Module, numerators: list[Value], weights: list[Value], sums: QuerySums) -> None:
        length, offset = register("length_held", 20), register("offset_held", 32)
        m.d.sync += [length.eq(total(numerators)), offset.eq(total(weights) << 7)]
        m.d.comb += [sums.numerators.eq(delayed(m, length, 1, "length")[1]), sums.offset.eq(offset)]
        for x, codes in enumerate(zip(*self._wait(m), strict=True)):
            held = register(f"sum{x}_held", 32)
            m.d.sync += held.eq(total(c * code for c, code in zip(weights, codes, strict=True)))
            m.d.comb += getattr(sums, f"sum{x}").eq(held)

    def _wait(self, m: Module) -> list[list[Value]]:
        """The codes of each key, CODES cycles later: they wait in a ring, for a chain of registers would move them all in every cycle."""
        beat = Signal(range(WAITING))
        m.d.sync += beat.eq(beat + 1)
        waiting = []
        for k in range(self.keys):
            m.submodules[f"waiting{k}"] = ring = memory.Memory(shape=8 * self.lanes, depth=WAITING, init=[])
            write, read = ring.write_port(), ring.read_port()
            m.d.comb += [write.en.eq(self.en), write.addr.eq(beat), write.data.eq(getattr(self, f"codes{k}"))]
            # A read port has a register: it is addressed a cycle before its data are wanted.
            m.d.comb += read.addr.eq(beat - (CODES - 1))
            waiting.append(bytes_of(read.data))
        return waiting
