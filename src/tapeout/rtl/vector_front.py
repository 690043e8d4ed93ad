"""The vector unit's front end: the addresses of every word, and what it is to the lanes. All is of the cycle in which the reads are addressed."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tapeout.chip.spec import ChipSpec
from tapeout.isa.layout import row_group_bytes
from tapeout.isa.opcodes import Flag, Op
from tapeout.rtl.binary32 import register
from tapeout.rtl.collector import span_bits
from tapeout.rtl.embedding import FACTOR_BYTES, has_factor
from tapeout.rtl.ports import ADDRESS_BITS, WORD_BITS, format_bits, issue_of, tables_of
from tapeout.rtl.vector_control import PACKET, QUANTIZED, control_layout, grouped
from tapeout.rtl.vector_loops import GROUP, VectorLoops

PACKET_BYTES = 34
ROW_BITS = 17
"""Of a row's size in bytes: 65,536 columns of int8."""
TOKEN_BITS = 20
FLAGS = {"add": Flag.ADD, "twice": Flag.AUX, "pairs": Flag.PAIRS, "stream": Flag.STREAM}


class VectorFront(wiring.Component):
    """Word addresses of ports `a`, `b`, `c` and of what is written `back`; of `row` in half words. `begin`: a group that is to be a packet begins,
    and may leave `span` words later. `stream`: the micro-op has the flag."""

    def __init__(self, chip: ChipSpec):
        lanes = self.lanes = chip.tile.vector.lanes
        self.beat_bytes = chip.external.beat_bytes if chip.external else 64
        self.issue, self.forms = issue_of(chip), tables_of(chip)
        self.factors = any(form.has_factor for form in self.forms.values())
        control = control_layout(format_bits(chip), self.factors)
        super().__init__(
            {
                "go": In(1), "op": In(self.issue), "token_index": Out(7), "token_id": In(32), "running": Out(1), "control": Out(control),
                "a": Out(WORD_BITS), "b": Out(WORD_BITS), "c": Out(WORD_BITS), "row": Out(WORD_BITS + 1), "back": Out(WORD_BITS),
                "stream": Out(1), "position": Out(24), "first_id": Out(32), "eps": Out(32), "inverse_width": Out(32),
                "begin": Out(1), "span": Out(span_bits(lanes)), "packet": Out(PACKET),
            }
        )  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        m.submodules.loops = self._loops = loops = VectorLoops(self.lanes, self.issue)
        m.d.comb += [loops.go.eq(self.go), loops.op.eq(self.op), self.running.eq(loops.running)]
        self._flags = {name: register(name, 1) for name in FLAGS}
        self._strides = {name: register(name, 32) for name in ("s0", "s1", "s2", "s3")}
        with m.If(self.go):
            m.d.sync += [flag.eq((self.op.flags & FLAGS[name]).any()) for name, flag in self._flags.items()]
            m.d.sync += [value.eq(getattr(self.op, name)) for name, value in self._strides.items()]
        self._say_word(m)
        self._sources(m)
        self._rows(m)
        self._targets(m)
        self._numbers(m)
        return m

    def _say_word(self, m: Module) -> None:
        """The control word."""
        loops, control, form = self._loops, self.control, register("format", len(self.control.format))
        passes = {name: loops.kind.norm & getattr(loops.turn, name) for name in ("residual", "squares", "scaled")}
        kinds = passes | {name: getattr(loops.kind, name) for name in ("rope", "quant", "swiglu", "embed", "argmax")}
        m.d.comb += [getattr(control, name).eq(loops.step & kind) for name, kind in kinds.items()]
        by_row = control.residual | control.squares | control.argmax
        m.d.comb += control.first.eq(Mux(by_row, loops.row_first, loops.group_first))
        m.d.comb += control.ends.eq(Mux(by_row, loops.row_ends, loops.group_ends))
        m.d.comb += [control.final.eq(loops.all_ends), control.count.eq(loops.count), control.place.eq(loops.place)]
        m.d.comb += [control.add.eq(self._flags["add"]), control.pairs.eq(self._flags["pairs"])]
        m.d.comb += [control.format.eq(form), control.odd.eq(self.row[0])]
        with m.If(self.go):
            m.d.sync += form.eq(self.op.format)
        if self.factors:
            m.d.comb += self.control.leads.eq(loops.row_first & has_factor(form, self.forms))

    def _sources(self, m: Module) -> None:
        """Ports a and b, which lie apart by the same in every word, and c, which begins anew with every row."""
        loops, op = self._loops, self.op
        row, at, apart = register("a_row", WORD_BITS), register("a_at", WORD_BITS), register("apart", WORD_BITS)
        c_row, c_at = register("c_row", WORD_BITS), register("c_at", WORD_BITS)
        following, half = row + (self._strides["s0"] >> 2), self.lanes // 2
        with m.If(self.go):
            m.d.sync += [row.eq(op.a >> 2), at.eq(op.a >> 2), c_row.eq(op.c >> 2), c_at.eq(op.c >> 2)]
            m.d.sync += apart.eq(Mux(op.op == Op.ARGMAX, self.lanes, (op.b >> 2) - (op.a >> 2)))
        with m.Elif(loops.step):
            m.d.sync += c_at.eq(Mux(loops.row_ends, c_row, c_at + Mux(loops.kind.rope, half, self.lanes)))
            with m.If(loops.token_ends):
                m.d.sync += [row.eq(following), at.eq(following)]
            with m.Elif(loops.row_ends & loops.kind.norm):
                m.d.sync += at.eq(row)
            with m.Else():
                m.d.sync += at.eq(at + (loops.forward << self._flags["pairs"]))
        m.d.comb += [self.a.eq(at), self.b.eq(at + apart), self.c.eq(c_at)]

    def _rows(self, m: Module) -> None:
        """Embedding rows: by the token's number in SRAM, in the order of the tokens, whole beats each, in the stream."""
        loops, op = self._loops, self.op
        token, table, start, at = (
            register(name, bits) for name, bits in (("token", 7), ("table", 24), ("row_start", 24), ("row_at", 23))
        )
        m.d.comb += self.token_index.eq(Mux(self.go, op.slot, token + 1))
        base, size = Mux(self.go, op.b, table), Mux(self.go, op.s0, self._strides["s0"])[:ROW_BITS]
        beats = (self._strides["s0"][:ROW_BITS] + (self.beat_bytes - 1)) & -self.beat_bytes
        streamed = Mux(self.go, (op.flags & Flag.STREAM).any(), self._flags["stream"])
        found = Signal(ADDRESS_BITS)
        in_stream = Mux(self.go, op.b, start + beats)
        m.d.comb += found.eq(Mux(streamed, in_stream, base + self.token_id[:TOKEN_BITS] * size))
        with m.If(self.go):
            m.d.sync += table.eq(op.b)
        with m.If(self.go | (loops.step & loops.token_ends)):
            m.d.sync += [token.eq(self.token_index), start.eq(found), at.eq(found >> 1)]
        with m.Elif(loops.step & loops.group_ends):
            m.d.sync += at.eq(at + self._half_words(m))
        m.d.comb += [self.row.eq(self._behind_factor(at)), self.stream.eq(self._flags["stream"])]

    def _behind_factor(self, at: Value) -> Value:
        """Where a row's group lies for which there are the groups before it; the first one is read with the factor, if there is one."""
        if not self.factors:
            return at
        return at + Mux(has_factor(self.control.format, self.forms) & ~self._loops.row_first, FACTOR_BYTES // 2, 0)

    def _targets(self, m: Module) -> None:
        """Where words and packets go, and scales a second time."""
        loops, op, kind = self._loops, self.op, self._loops.kind
        row, at, each, twice = (register(name, ADDRESS_BITS) for name in ("to_row", "to_at", "each", "twice_at"))
        following = row + self._strides["s1"]
        with m.If(self.go):
            m.d.sync += [row.eq(op.dst), at.eq(op.dst), twice.eq(op.b), each.eq(self._each())]
        with m.Elif(loops.step & loops.token_ends):
            m.d.sync += [row.eq(following), at.eq(following), twice.eq(twice + self._strides["s2"])]
        with m.Elif(self.control.embed | (grouped(self.control) & loops.group_ends)):
            m.d.sync += at.eq(at + each)
        m.d.comb += self.back.eq(Mux(kind.norm, self.a, at >> 2))
        m.d.comb += self.begin.eq(grouped(self.control) & loops.group_first)
        m.d.comb += [self.packet.to.eq(at >> 1), self.packet.pairs.eq(loops.group >> 1)]
        m.d.comb += [self.packet.twice.eq(self._flags["twice"]), self.packet.twice_to.eq(twice >> 1)]
        order = {name: number for number, name in enumerate(QUANTIZED)}
        m.d.comb += self.packet.kind.eq(
            Mux(
                kind.norm,
                order["norm"],
                Mux(kind.rope, order["rope"], Mux(kind.quant, order["quant"], order["swiglu"])),
            )
        )

    def _each(self) -> Value:
        """Bytes from one packet to the next, or from one word of an embedding row."""
        op = self.op.op
        other = Mux(op == Op.EMBED, 4 * self.lanes, PACKET_BYTES)
        return Mux(op == Op.ROPE, self.op.s2, Mux(op == Op.QUANT, self.op.group + 2, other))

    def _numbers(self, m: Module) -> None:
        """What is told to the lanes and behind them: position, norm's numbers, argmax's first id, a group's delay."""
        loops, shift = self._loops, (self.lanes - 1).bit_length()
        position, fill = register("position_register", 24), GROUP // self.lanes
        with m.If(self.go):
            m.d.sync += position.eq(self.op.position)
        with m.Elif(loops.step & loops.token_ends):
            m.d.sync += position.eq(position + 1)
        words = (loops.group + (self.lanes - 1)) >> shift
        m.d.comb += self.span.eq(Mux(words > fill, words, fill))
        m.d.comb += [self.position.eq(position), self.first_id.eq(self._strides["s0"])]
        m.d.comb += [self.eps.eq(self._strides["s2"]), self.inverse_width.eq(self._strides["s3"])]

    def _half_words(self, m: Module) -> Value:
        """A group's half words, by format."""
        sizes = {number: row_group_bytes(form) // 2 for number, form in self.forms.items()}
        size = Signal(range(max(sizes.values()) + 1), name="group_half_words")
        with m.Switch(self.control.format):
            for number, half_words in sizes.items():
                with m.Case(number):
                    m.d.comb += size.eq(half_words)
        return size
