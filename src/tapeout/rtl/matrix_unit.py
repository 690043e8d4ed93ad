"""The matrix unit: OPERAND loads the operand buffer, MATMUL multiplies row blocks of weights with the vectors in it.

A MATMUL goes through row blocks, groups of 32 columns, vectors and slices of K columns, in this order, one slice per cycle; weights are read anew in
every cycle. What is done in which cycle after a slice's read was addressed:

    0 addresses | 1 data stand: unpack | 2 multiply, sum over K lanes | 3 scale | 4 shift, accumulate | 5, 6 to binary32 | 7 write

A row's factor, where the format has one, is multiplied in cycle 6 and rounded in cycle 7.

A read always begins where a bias of the row block would, seen from the slice: codes then stand at one place per format. Of what lies before a slice
only biases and factors (first group of a block), the scales and the minima (first slice of a group) are looked at.
"""

from collections.abc import Callable

from amaranth.hdl import Cat, Const, DomainRenamer, Module, Mux, Signal, Value
from amaranth.lib import data, memory, wiring

from tapeout.chip.spec import ChipSpec
from tapeout.isa.opcodes import Flag, Op, Unit
from tapeout.numerics.formats import Format
from tapeout.rtl.binary32 import FromInteger, IntegerTimes
from tapeout.rtl.clock_gate import wants
from tapeout.rtl.dot_product import DotProduct, halved, in_one_cycle
from tapeout.rtl.group_stage import SUM, GroupStage
from tapeout.rtl.operand_buffer import OperandBuffer
from tapeout.rtl.ports import WORD_BITS, format_bits, formats_of, unit_signature, weight_words

OPERAND_PIPE = 2
MATMUL_PIPE = 5 + FromInteger.STAGES


def read_words(chip: ChipSpec) -> dict[int, tuple[int, int]]:
    """By format: words from a slice to the next, and from a group to the next."""
    unit = chip.tile.matrix
    steps = {}
    for number, form in formats_of(chip).items():
        step = unit.rows * unit.lanes * form.code_bits // 32
        steps[number] = step, step * (32 // unit.lanes) + unit.rows * form.group_bytes // 4
    return steps


FACTORS_KEPT = 3
"""Bits that tell row blocks apart: six of them may be between the read of their factors and their results."""

CLOCKS = ("loading", "result")
"""Clocks of the operand buffer's inlet and of the conversion to binary32."""


class MatrixUnit(wiring.Component):
    """Ports as in `ports.py`. Columns are a multiple of 32, x is even, weight and out are multiples of four.

    With `gated` the boxes of CLOCKS are in domains of these names, to be clocked as `wants_<name>` says; without, everything is in `sync`.
    """

    def __init__(self, chip: ChipSpec, gated: bool = True):
        unit = chip.tile.matrix
        self.gated = gated
        self.chip, self.rows, self.slices = chip, unit.rows, 32 // unit.lanes
        loading, result = CLOCKS if gated else ("sync", "sync")
        self.buffer, self.dots, self.groups = OperandBuffer(chip, loading), DotProduct(chip), GroupStage(chip, result)
        forms = formats_of(chip).values()
        self.halves = any(map(halved, forms)) and not in_one_cycle(chip)
        self.factors = any(form.has_factor for form in forms)
        step = {
            "first_slice": 1, "last_slice": 1, "first_group": 1, "result": 1, "ends": 1, "format": format_bits(chip), "token": range(unit.tokens),
        }  # fmt: skip
        step |= {"opens": 1, "closes": 1, "second": 1} if self.halves else {}
        self.step = data.StructLayout(step | ({"turn": FACTORS_KEPT} if self.factors else {}))
        super().__init__(
            unit_signature(Unit.MATRIX, chip, reads={"x": 9, "w": weight_words(chip)}, writes={"y": self.rows})
            | wants(CLOCKS)
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.buffer, m.submodules.dots, m.submodules.groups = self.buffer, self.dots, self.groups
        running, step, row = self._walk(m)
        valid = Signal(MATMUL_PIPE)
        m.d.sync += valid.eq(Cat(running, valid))
        steps, rows = [step], [row]
        for k in range(1, MATMUL_PIPE + 1):
            steps.append(Signal(self.step, name=f"step_{k}", reset_less=True))
            rows.append(Signal(WORD_BITS, name=f"row_{k}", reset_less=True))
            m.d.sync += [steps[k].eq(steps[k - 1]), rows[k].eq(rows[k - 1])]
        self._operand(m)
        self._multiply(m, [running, *valid], steps)
        results = [bit & step.result for bit, step in zip(valid, steps[1:], strict=True)]
        for name, wanted in (("result", Cat(results[-4:-1]).any()), ("loading", self.buffer.go | self.buffer.active)):
            m.d.comb += getattr(self, f"wants_{name}").eq(wanted)
        self._write(m, results[-1], rows[-1], self._factors(m, valid, steps) if self.factors else None)
        m.d.comb += [
            self.active.eq(running | valid.any() | self.buffer.active), self.done.operand.eq(self.buffer.done),
            self.done.matmul.eq(valid[-2] & steps[-2].ends),
        ]  # fmt: skip
        return m

    def _walk(self, m: Module) -> tuple[Signal, data.View, Signal]:
        """Cycle 0: whether there is a slice, what it is, and the word where a result of it belongs."""
        names = {
            "slice_at": range(self.slices), "token": range(self.chip.tile.matrix.tokens), "group": 15, "block": 20,
            "tokens": 7, "groups": 15, "blocks": 20, "weight": WORD_BITS, "weight_group": WORD_BITS, "place": len(self.buffer.at),
            "row": WORD_BITS, "row_block": WORD_BITS, "stride": WORD_BITS, "stream": 1, "format": format_bits(self.chip),
        }  # fmt: skip
        r = {name: Signal(shape, name=name, reset_less=True) for name, shape in names.items()}
        running, step, ends = (
            Signal(),
            Signal(self.step),
            {name: Signal(name=f"{name}_ends") for name in ("slice", "token", "group", "block")},
        )
        m.d.comb += [
            ends["slice"].eq(r["slice_at"] == self.slices - 1), ends["token"].eq(r["token"] + 1 == r["tokens"]),
            ends["group"].eq(r["group"] + 1 == r["groups"]), ends["block"].eq(r["block"] + 1 == r["blocks"]),
            self.w.en.eq(running), self.w.addr.eq(r["weight"]), self.w.stream.eq(r["stream"]),
            self.buffer.en.eq(running), self.buffer.at.eq(r["place"]),
            step.first_slice.eq(r["slice_at"] == 0), step.last_slice.eq(ends["slice"]), step.first_group.eq(r["group"] == 0),
            step.result.eq(ends["slice"] & ends["group"]), step.ends.eq(Cat(ends.values()).all()), step.format.eq(r["format"]),
            step.token.eq(r["token"]),
        ]  # fmt: skip
        if self.halves:
            within, is_halved = r["slice_at"][:-1], self._has(r["format"], halved)
            # With one slice per half there are no bits, and Verilog has no word for "all of none".
            begins, ends_half = (~within.any(), within.all()) if len(within) else (Const(1), Const(1))
            m.d.comb += [
                step.opens.eq(step.first_slice | (is_halved & begins)), step.closes.eq(step.last_slice | (is_halved & ends_half)),
                step.second.eq(is_halved & r["slice_at"][-1]),
            ]  # fmt: skip
        if self.factors:
            turn = Signal(FACTORS_KEPT)
            m.d.comb += step.turn.eq(turn)
            with m.If(running & step.result & ends["token"]):
                m.d.sync += turn.eq(turn + 1)
        with m.If(running):
            self._advance(m, r, ends, running)
        with m.If(self.go & (self.op.op == Op.MATMUL)):
            self._begin(m, r, running)
        return running, step, r["row"]

    def _advance(self, m: Module, r: dict[str, Signal], ends: dict[str, Signal], running: Signal) -> None:
        next_slice, next_group = Signal(WORD_BITS), Signal(WORD_BITS)
        header = self.rows // 4
        if self.factors:
            header = Mux(self._has(r["format"], lambda form: form.has_factor), 5 * header, header)
        with m.Switch(r["format"]):
            for number, (slice_words, group_words) in read_words(self.chip).items():
                with m.Case(number):
                    m.d.comb += [
                        next_slice.eq(r["weight"] + slice_words),
                        next_group.eq(r["weight_group"] + group_words),
                    ]
        with m.If(~ends["slice"]):
            m.d.sync += [r["slice_at"].eq(r["slice_at"] + 1), r["weight"].eq(next_slice), r["place"].eq(r["place"] + 1)]
        with m.Elif(~ends["token"]):
            further = self.slices * (r["groups"] - 1) + 1
            m.d.sync += [
                r["slice_at"].eq(0), r["token"].eq(r["token"] + 1), r["weight"].eq(r["weight_group"]), r["place"].eq(r["place"] + further),
                r["row"].eq(r["row"] + r["stride"]),
            ]  # fmt: skip
        with m.Elif(~ends["group"]):
            m.d.sync += [
                r["slice_at"].eq(0), r["token"].eq(0), r["group"].eq(r["group"] + 1), r["weight"].eq(next_group), r["weight_group"].eq(next_group),
                r["place"].eq((r["group"] + 1) * self.slices), r["row"].eq(r["row_block"]),
            ]  # fmt: skip
        with m.Else():
            next_block, next_row = next_group + header, r["row_block"] + self.rows
            m.d.sync += [
                r["slice_at"].eq(0), r["token"].eq(0), r["group"].eq(0), r["block"].eq(r["block"] + 1), r["weight"].eq(next_block),
                r["weight_group"].eq(next_block), r["place"].eq(0), r["row"].eq(next_row), r["row_block"].eq(next_row), running.eq(~ends["block"]),
            ]  # fmt: skip

    def _begin(self, m: Module, r: dict[str, Signal], running: Signal) -> None:
        op, first_row = self.op, (self.rows - 1).bit_length()
        m.d.sync += [r[name].eq(0) for name in ("slice_at", "token", "group", "block", "place")]
        m.d.sync += [
            running.eq(1), r["tokens"].eq(op.tokens), r["groups"].eq(op.columns[5:]), r["blocks"].eq(op.rows[first_row:]), r["format"].eq(op.format),
            r["weight"].eq(op.b[2:]), r["weight_group"].eq(op.b[2:]), r["row"].eq(op.dst[2:]), r["row_block"].eq(op.dst[2:]),
            r["stride"].eq(op.s0[2:]), r["stream"].eq((op.flags & Flag.STREAM).any()),
        ]  # fmt: skip

    def _operand(self, m: Module) -> None:
        buffer = self.buffer
        m.d.comb += [
            buffer.go.eq(self.go & (self.op.op == Op.OPERAND)), buffer.op.eq(self.op), buffer.x.data.eq(self.x.data),
            self.x.en.eq(buffer.x.en), self.x.addr.eq(buffer.x.addr),
        ]  # fmt: skip

    def _multiply(self, m: Module, valid: list[Value], steps: list[data.View]) -> None:
        """Cycles 1 to 4."""
        buffer, dots, groups = self.buffer, self.dots, self.groups
        opens, closes, first, total = steps[2].first_slice, steps[2].last_slice, steps[4].first_group, buffer.group.sum
        if self.halves:
            opens, closes, first = steps[2].opens, steps[2].closes, first & ~steps[4].second
            low = Mux(self._has(steps[1].format, halved), buffer.group.low, total)
            total = Mux(steps[1].second, total - buffer.group.low, low)
            m.d.comb += groups.second.eq(steps[2].second)
        if dots.both:
            m.d.comb += [
                dots.low.eq(buffer.group.low), groups.high.eq(dots.high), groups.halves.eq(self._has(steps[2].format, halved)),
            ]  # fmt: skip
        if len(groups.headers) > 1:
            m.d.comb += groups.format.eq(steps[1].format)
        m.d.comb += [
            buffer.token.eq(steps[1].token), dots.load.eq(valid[1]), dots.next_format.eq(steps[0].format), dots.format.eq(steps[1].format),
            dots.weights.eq(self.w.data), dots.x.eq(buffer.codes), dots.sum.eq(total), groups.load.eq(valid[1] & steps[1].first_slice),
            groups.load_bias.eq(steps[1].first_group), groups.weights.eq(self.w.data), groups.group.eq(buffer.group), groups.e_max.eq(buffer.e_max),
            dots.add.eq(valid[2]), dots.first.eq(opens), groups.take.eq(valid[2] & closes),
            groups.minimum.eq(self._has(steps[2].format, lambda form: form.has_minimum)), groups.d.eq(dots.d),
            groups.first.eq(first), groups.token.eq(steps[4].token), groups.result.eq(valid[4] & steps[4].result),
        ]  # fmt: skip

    def _has(self, number: Value, what: Callable[[Format], bool]) -> Value:
        """Whether the format with this number has it."""
        numbers = [number == known for known, form in formats_of(self.chip).items() if what(form)]
        return Cat(numbers).any() if numbers else Const(0)

    def _factors(self, m: Module, valid: list[Value], steps: list[data.View]) -> tuple[Value, Value]:
        """Cycle 6: whether the rows have factors, and these. A few row blocks are on their way at once."""
        m.submodules.factors = kept = memory.Memory(shape=32 * self.rows, depth=1 << FACTORS_KEPT, init=[])
        put, get = kept.write_port(), kept.read_port(domain="comb")
        m.d.comb += [
            put.en.eq(valid[0] & steps[1].first_slice & steps[1].first_group), put.addr.eq(steps[1].turn), get.addr.eq(steps[6].turn),
            put.data.eq(self.w.data[8 * self.rows : 40 * self.rows]),
        ]  # fmt: skip
        return self._has(steps[6].format, lambda form: form.has_factor), get.data

    def _write(self, m: Module, result: Value, row: Signal, factors: tuple[Value, Value] | None) -> None:
        """Cycles 5 to 7: R sums to binary32, times the rows' factors if there are any, and into SRAM."""
        infinite = []
        for r in range(self.rows):
            if factors is None:
                rounded = FromInteger(SUM)
            else:
                rounded = IntegerTimes(SUM)
                m.d.comb += [rounded.times.eq(factors[0]), rounded.f.eq(factors[1].word_select(r, 32))]
            m.submodules[f"result{r}"] = DomainRenamer("result")(rounded) if self.gated else rounded
            m.d.comb += [
                rounded.i.eq(getattr(self.groups, f"total{r}")), rounded.k.eq(getattr(self.groups, f"exponent{r}")),
                self.y.data.word_select(r, 32).eq(rounded.y),
            ]  # fmt: skip
            infinite.append(rounded.infinite)
        m.d.comb += [
            self.y.en.eq(Mux(result, Const(-1, 4 * self.rows), 0)), self.y.addr.eq(row), self.overflow.eq(result & Cat(infinite).any()),
        ]  # fmt: skip
