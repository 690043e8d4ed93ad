"""The order in which the attention unit goes through a micro-op: heads, tokens, and within a query state its keys or columns."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tapeout.chip.spec import ChipSpec
from tapeout.isa.opcodes import Flag, Op
from tapeout.rtl.binary32 import register
from tapeout.rtl.ports import ADDRESS_BITS, WORD_BITS, attention_out_lanes, issue_of

COUNT = 8
"""Bits of a number of keys, tokens or columns within a micro-op: at most 128."""


def item_members(chip: ChipSpec) -> dict[str, wiring.Member]:
    """One cycle's work: `keys` keys of a state, or as many of its columns as there are dividers, counted from `index`."""
    return {
        "score": Out(1), "value": Out(1), "out": Out(1), "start": Out(1), "reset": Out(1), "last": Out(1), "stream": Out(1), "recent": Out(1),
        "state": Out(range(chip.tile.attention.queries)), "index": Out(COUNT), "columns": Out(COUNT), "rows": Out(COUNT), "upto": Out(COUNT),
        "kv": Out(ADDRESS_BITS), "row": Out(ADDRESS_BITS), "scores": Out(WORD_BITS), "position": Out(24), "inner": Out(16), "constant": Out(32),
    }  # fmt: skip


class AttentionWalk(wiring.Component):
    """From the cycle after `go` on one item a cycle; one of `score`, `value`, `out` says that there is one, and of which kind.

    Of an item: `start` the state's first, `reset` to begin the state anew there, `last` the micro-op's last; `kv` the records' byte address,
    `row` that of the query or of the output, `scores` the scores' word address; `upto` recent keys that the token may see.
    """

    def __init__(self, chip: ChipSpec):
        self.keys, self.dividers = chip.tile.attention.keys, attention_out_lanes(chip)
        super().__init__({"go": In(1), "op": In(issue_of(chip)), **item_members(chip)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self.busy, self.state_ends, self.token_ends = Signal(), Signal(), Signal()
        names = {
            "kv_base": ADDRESS_BITS, "run": 12, "row_head": ADDRESS_BITS, "row_state": ADDRESS_BITS, "scores_state": WORD_BITS,
            "row_stride": ADDRESS_BITS, "head_stride": ADDRESS_BITS, "scores_stride": WORD_BITS, "extent": COUNT, "left": COUNT, "step": COUNT,
            "token": 7, "tokens": 7, "heads": 10, "first": 1, "is_score": 1, "is_value": 1, "is_out": 1,
        }  # fmt: skip
        given = "start stream recent state index columns rows kv row scores position inner constant".split()
        self.r = {name: register(name, bits) for name, bits in names.items()}
        self.r |= {name: register(f"{name}_held", getattr(self, name).shape()) for name in given}
        m.d.comb += [getattr(self, name).eq(self.r[name]) for name in given]
        self._flags(m)
        with m.If(self.go):
            self._begin(m)
        with m.Elif(self.busy):
            m.d.sync += self.busy.eq(~self.last)
            with m.If(self.state_ends):
                self._next_state(m)
            with m.Else():
                self._next_group(m)
        return m

    def _flags(self, m: Module) -> None:
        r = self.r
        m.d.comb += [
            self.state_ends.eq(r["left"] <= r["step"]), self.token_ends.eq(r["token"] + 1 == r["tokens"]),
            self.score.eq(self.busy & r["is_score"]), self.value.eq(self.busy & r["is_value"]), self.out.eq(self.busy & r["is_out"]),
            self.last.eq(self.busy & self.state_ends & self.token_ends & (r["heads"] == 1)), self.reset.eq(r["start"] & r["first"]),
            self.upto.eq(Mux(r["token"] < r["rows"], r["token"] + 1, r["rows"])),
        ]  # fmt: skip

    def _begin(self, m: Module) -> None:
        op, r = self.op, self.r
        score, out = op.op == Op.SCORE, op.op == Op.ATTNOUT
        extent, row, scores = Mux(out, op.columns, op.rows), Mux(out, op.dst, op.a), Signal(WORD_BITS)
        m.d.comb += scores.eq((Mux(score, op.dst, op.a) >> 2) + op.slot * (op.s2 >> 2)[:WORD_BITS])
        values = {
            "is_score": score, "is_value": op.op == Op.VALUE, "is_out": out, "start": 1, "stream": op.flags[_bit(Flag.STREAM)],
            "recent": op.flags[_bit(Flag.RECENT)], "first": score & op.flags[_bit(Flag.FIRST)], "state": op.slot, "index": 0,
            "columns": op.columns, "rows": op.rows, "position": op.position, "inner": op.inner, "constant": op.s3, "extent": extent,
            "left": extent, "step": Mux(out, self.dividers, self.keys), "token": 0, "tokens": op.tokens, "heads": op.heads,
            "run": (op.columns[:COUNT] + Mux(score, 4, 2)) * self.keys, "kv_base": op.b, "kv": op.b, "row_stride": op.s1,
            "head_stride": Mux(out, op.columns << 2, op.s0), "scores_stride": op.s2 >> 2, "row": row, "row_state": row, "row_head": row,
            "scores": scores, "scores_state": scores,
        }  # fmt: skip
        m.d.sync += [self.busy.eq(1), *(r[name].eq(value) for name, value in values.items())]

    def _next_group(self, m: Module) -> None:
        r = self.r
        m.d.sync += [r["start"].eq(0), r["index"].eq(r["index"] + r["step"]), r["left"].eq(r["left"] - r["step"])]
        m.d.sync += [r["kv"].eq(r["kv"] + r["run"]), r["scores"].eq(r["scores"] + self.keys)]
        with m.If(r["is_out"]):
            m.d.sync += r["row"].eq(r["row"] + 4 * self.dividers)

    def _next_state(self, m: Module) -> None:
        r = self.r
        scores, row = Signal(WORD_BITS), Signal(ADDRESS_BITS)
        m.d.comb += scores.eq(r["scores_state"] + r["scores_stride"])
        m.d.comb += row.eq(Mux(self.token_ends, r["row_head"] + r["head_stride"], r["row_state"] + r["row_stride"]))
        m.d.sync += [r["start"].eq(1), r["index"].eq(0), r["left"].eq(r["extent"]), r["state"].eq(r["state"] + 1)]
        m.d.sync += [r["kv"].eq(r["kv_base"]), r["scores"].eq(scores), r["scores_state"].eq(scores)]
        m.d.sync += [r["row"].eq(row), r["row_state"].eq(row), r["token"].eq(r["token"] + 1)]
        with m.If(self.token_ends):
            m.d.sync += [r["row_head"].eq(row), r["token"].eq(0), r["heads"].eq(r["heads"] - 1)]


def _bit(flag: Flag) -> Value | int:
    return int(flag).bit_length() - 1
