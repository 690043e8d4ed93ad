"""The vector unit: V binary32 lanes between memory and the quantizer. Runs norm, rope, quant, swiglu, embed and argmax.

    cycle 0     addresses                       vector_front, vector_loops
    cycle 1     values stand; to cycle 12       lane (and norm_scalars, embedding, greatest beside it)
    cycle 12    binary32 results are written; the others go to
                magnitude, collector, quantizer, packer

Each of these is a box of its own; here they are wired. Stages are told by the control word that goes along with the values.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tapeout.chip.spec import ChipSpec
from tapeout.isa.opcodes import Unit
from tapeout.numerics.formats import E4M3, E8M0
from tapeout.rtl.binary32 import register
from tapeout.rtl.clock_gate import own_clock, wants
from tapeout.rtl.collector import Collector
from tapeout.rtl.delay_memory import DelayMemory
from tapeout.rtl.embedding import EmbeddingGroup, has_factor, read_words
from tapeout.rtl.greatest import Greatest
from tapeout.rtl.lane import MINUS_ZERO, ONE, STEER, LanePair
from tapeout.rtl.magnitude import Magnitude
from tapeout.rtl.norm_scalars import NormScalars
from tapeout.rtl.packer import PACKET_WORDS, Packer
from tapeout.rtl.ports import WORD_BITS, tables_of, unit_signature
from tapeout.rtl.quantizer import Quantizer
from tapeout.rtl.vector_control import QUANTIZED, STEPS, along, chained, grouped
from tapeout.rtl.vector_front import VectorFront

BACK = data.StructLayout({"addr": WORD_BITS, "first_id": 32})
"""What a written word waits for its value with."""
FOUND = data.StructLayout({"value": 32, "id": 32})


CLOCKS = ("lanes", "scalars", "embedding", "argmax", "quantizer")
"""Clocks of the unit's boxes."""


class VectorUnit(wiring.Component):
    """`token_index` asks for the id of a token of this step, which `token_id` tells in the same cycle. Other ports: rtl/ports.py.

    Lanes, scalars, embedding, argmax and quantizer have clocks of their own, open while something is in them. Without `gated` they have the unit's
    clock and an enable instead, for Amaranth's simulator.
    """

    def __init__(self, chip: ChipSpec, gated: bool = True):
        self.gated, self.lanes = gated, chip.tile.vector.lanes
        lanes = self.lanes
        assert 2 <= lanes <= 32, f"{lanes} lanes"
        self._chip, self._tables = chip, tables_of(chip)
        reads = {"a": lanes, "b": lanes, "c": lanes, "row": read_words(self._tables)}
        writes = {"words": lanes, "packet": PACKET_WORDS, "aux": 1}
        token = {"token_index": Out(7), "token_id": In(32)}
        super().__init__({**unit_signature(Unit.VECTOR, chip, reads, writes), **token, **wants(CLOCKS)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.front = self._front = front = VectorFront(self._chip)
        m.d.comb += [
            front.go.eq(self.go),
            front.op.eq(self.op),
            self.token_index.eq(front.token_index),
            front.token_id.eq(self.token_id),
        ]
        self._control = along(m, front.control, STEPS + 1)
        self._read(m)
        x, y, there = self._values(m)
        magnitude, scalars, embedding = self._boxes(m)
        lanes = self._lanes(m, x, y, magnitude, scalars, embedding)
        results = Cat(result for lane in lanes for result in lane.result)
        self._write_words(m, self._argmax(m, lanes, there), results)
        pending = self._quantize(m, results, magnitude)
        moving = Cat(control.as_value()[:8].any() for control in self._control[1 : STEPS + 1])
        m.d.comb += self.active.eq(front.running | moving.any() | pending)
        self._watch(m, lanes, scalars)
        return m

    def _read(self, m: Module) -> None:
        """Addresses, in cycle 0."""
        front, control = self._front, self._control[0]
        m.d.comb += [
            self.a.addr.eq(front.a),
            self.b.addr.eq(front.b),
            self.c.addr.eq(front.c),
            self.row.addr.eq(front.row >> 1),
        ]
        takes_a = control.residual | control.squares | control.argmax | grouped(control)
        m.d.comb += [self.a.en.eq(takes_a & control.count.any()), self.row.en.eq(control.embed & control.first)]
        pairs = control.argmax & control.pairs & (control.count > self.lanes // 2)
        m.d.comb += self.b.en.eq((control.residual & control.add) | control.swiglu | pairs)
        m.d.comb += self.c.en.eq(control.scaled | control.rope)
        m.d.comb += [self.c.stream.eq(front.stream), self.row.stream.eq(front.stream)]

    def _values(self, m: Module) -> tuple[list[Value], list[Value], Value]:
        """x and y of every lane in cycle 1, 0 where none is; and where one is."""
        control, there = self._control[1], Signal(self.lanes)
        a, b, c = ([port.data.word_select(k, 32) for k in range(self.lanes)] for port in (self.a, self.b, self.c))
        both, xs, ys = [*a, *b], [], []
        for k in range(self.lanes):
            m.d.comb += there[k].eq(control.count > k)
            x, y = Signal(32, name=f"x{k}"), Signal(32, name=f"y{k}")
            other = Mux(control.residual & ~control.add | control.quant, MINUS_ZERO, b[k])
            other = Mux(control.scaled, c[k], Mux(control.rope, a[k ^ 1], other))
            m.d.comb += x.eq(Mux(there[k], Mux(control.pairs, both[2 * k], a[k]), 0))
            m.d.comb += y.eq(Mux(there[k], Mux(control.pairs, both[2 * k + 1], other), 0))
            xs, ys = [*xs, x], [*ys, y]
        return xs, ys, there

    def _boxes(self, m: Module) -> tuple[Magnitude, NormScalars, EmbeddingGroup]:
        """What all lanes share."""
        front, control = self._front, self._control
        m.submodules.magnitude = magnitude = Magnitude(self.lanes)
        scalars, embedding = NormScalars(self.lanes), EmbeddingGroup(self.lanes, self._tables)
        squares = Cat(step.squares for step in control[1 : STEPS + 1]).any()
        m.submodules.scalars = own_clock(m, self, "scalars", squares | scalars.busy, self.gated)(scalars)
        embeds = Cat(step.embed for step in control[1 : STEPS + 1]).any()
        m.submodules.embedding = own_clock(m, self, "embedding", embeds, self.gated)(embedding)
        late = control[STEPS + 1]
        m.d.comb += [magnitude.use.eq(late.residual | grouped(late)), magnitude.first.eq(late.first)]
        m.d.comb += [scalars.use.eq(control[4].squares), scalars.first.eq(control[4].first)]
        m.d.comb += [
            scalars.start.eq(control[STEPS].squares & control[STEPS].ends),
            scalars.field.eq(magnitude.held[23:]),
        ]
        m.d.comb += [scalars.eps.eq(front.eps), scalars.inverse_width.eq(front.inverse_width)]
        m.d.comb += [embedding.take.eq(control[1].embed & control[1].first), embedding.odd.eq(control[1].odd)]
        m.d.comb += [
            embedding.words.eq(self.row.data),
            embedding.format.eq(control[2].format),
            embedding.place.eq(control[2].place),
        ]
        if embedding.factors:
            m.d.comb += embedding.leads.eq(control[1].leads)
        return magnitude, scalars, embedding

    def _lanes(
        self,
        m: Module,
        x: list[Value],
        y: list[Value],
        magnitude: Magnitude,
        scalars: NormScalars,
        embedding: EmbeddingGroup,
    ) -> list[LanePair]:
        """The lanes, two in a box."""
        steer, position = self._steer(m), register("position1", 24)
        factors = [self._factor(m, scalars, scale, name) for name, scale in self._scales(embedding).items()]
        m.d.sync += position.eq(self._front.position)
        lanes = []
        moving = Cat(step.as_value()[:8] for step in self._control[1 : STEPS + 1]).any()
        clocked = own_clock(m, self, "lanes", moving, self.gated)
        for k in range(self.lanes // 2):
            lane = LanePair()
            m.submodules[f"lanes{k}"] = clocked(lane)
            two = slice(2 * k, 2 * k + 2)
            m.d.comb += [lane.x.eq(Cat(x[two])), lane.y.eq(Cat(y[two])), lane.steer.eq(steer)]
            m.d.comb += lane.factor.eq(factors[-1] if k >= self.lanes // 4 else factors[0])
            m.d.comb += [lane.position.eq(position), lane.increment.eq(self.c.data.word_select(k, 32))]
            m.d.comb += [lane.field.eq(magnitude.held[23:]), lane.minimum.eq(embedding.minimum)]
            m.d.comb += lane.code.eq(Cat(embedding.codes[2 * k], embedding.codes[2 * k + 1]))
            m.d.comb += [scalars.roots[2 * k + i].eq(lane.root[i]) for i in range(2)]
            m.d.comb += [magnitude.values[2 * k + i].eq(lane.result[i]) for i in range(2)]
            lanes.append(lane)
        return lanes

    def _steer(self, m: Module) -> data.View:
        """What the lanes are told, each bit in its cycle."""
        control, steer = self._control, Signal(STEER)
        m.d.comb += [
            steer.swiglu1.eq(control[1].swiglu),
            steer.embed2.eq(control[2].embed),
            steer.rope3.eq(control[3].rope),
        ]
        m.d.comb += [
            steer.swiglu4.eq(control[4].swiglu),
            steer.rope4.eq(control[4].rope),
            steer.rope9.eq(control[9].rope),
        ]
        m.d.comb += [steer.chain7.eq(self._chained(7)), steer.chain9.eq(self._chained(9))]
        return steer

    def _chained(self, cycle: int) -> Value:
        """Whether a word's second product takes the first one; an embedding's does where its format has a factor."""
        control = self._control[cycle]
        if not any(form.has_factor for form in self._tables.values()):
            return chained(control)
        return chained(control) | (control.embed & has_factor(control.format, self._tables))

    def _scales(self, embedding: EmbeddingGroup) -> dict[str, Value]:
        """Of all lanes, or of the lower and of the upper ones."""
        high = {"high_scale": embedding.high_scale} if embedding.halves and self.lanes == 32 else {}
        return {"scale": embedding.scale, **high}

    def _factor(self, m: Module, scalars: NormScalars, scale: Value, name: str) -> Value:
        """p of cycle 4 where it is no function."""
        control = self._control[4]
        for cycle in (3, 4):
            kept = register(f"{name}{cycle}", 32)
            m.d.sync += kept.eq(scale)
            scale = kept
        return Mux(control.scaled, scalars.r, Mux(control.embed, scale, ONE))

    def _argmax(self, m: Module, lanes: list[LanePair], there: Value) -> data.View:
        """The greatest value and its id, in cycle 12."""
        control, there2 = self._control[4], register("there2", self.lanes)
        greatest, found = Greatest(self.lanes), DelayMemory(FOUND.size, STEPS - 5)
        clocked = own_clock(
            m, self, "argmax", Cat(step.argmax for step in self._control[1 : STEPS + 1]).any(), self.gated
        )
        m.submodules.greatest, m.submodules.found = clocked(greatest), clocked(found)
        m.d.sync += there2.eq(there)
        m.d.comb += [greatest.there.eq(there2), greatest.use.eq(control.argmax), greatest.first.eq(control.first)]
        m.d.comb += [greatest.pairs.eq(control.pairs), found.early.eq(Cat(greatest.value, greatest.id))]
        for k, lane in enumerate(lanes):
            m.d.comb += [greatest.values[2 * k + i].eq(lane.early_x[i]) for i in range(2)]
            m.d.comb += [greatest.ids[2 * k + i].eq(lane.late_y[i]) for i in range(2)]
        return data.View(FOUND, found.late)

    def _write_words(self, m: Module, found: data.View, results: Value) -> None:
        """Cycle 12: norm's sums, embeddings, argmax's pair."""
        front, control = self._front, self._control[STEPS]
        m.submodules.back = back = DelayMemory(BACK.size, STEPS)
        place = data.View(BACK, back.late)
        m.d.comb += back.early.eq(Cat(front.back, front.first_id))
        wide = (control.residual & control.add) | control.embed
        enable = Cat(
            (wide & (control.count > k) | (control.argmax & control.ends if k < 2 else 0)).replicate(4)
            for k in range(self.lanes)
        )
        pair = Cat(found.value, (found.id + Mux(control.pairs, 0, place.first_id))[:32])
        m.d.comb += [
            self.words.addr.eq(place.addr),
            self.words.en.eq(enable),
            self.words.data.eq(Mux(control.argmax, pair, results)),
        ]
        last = self._control[STEPS - 1]
        m.d.comb += [self.done.embed.eq(last.embed & last.final), self.done.argmax.eq(last.argmax & last.final)]

    def _quantize(self, m: Module, results: Value, magnitude: Magnitude) -> Value:
        """From cycle 12 on: whether anything is under way there."""
        front, control, late = self._front, self._control[STEPS], self._control[STEPS + 1]
        collector, quantizer, packer = Collector(self.lanes), Quantizer(self.lanes), Packer(self.lanes)
        pending = collector.pending | quantizer.pending | packer.pending
        coming = Cat(grouped(step) for step in self._control).any()
        clocked = own_clock(m, self, "quantizer", front.begin | coming | pending, self.gated)
        m.submodules.collector, m.submodules.quantizer, m.submodules.packer = (
            clocked(collector),
            clocked(quantizer),
            clocked(packer),
        )
        m.d.comb += [collector.begin.eq(front.begin), collector.span.eq(front.span), collector.values.eq(results)]
        m.d.comb += [
            collector.take.eq(grouped(control)),
            collector.ends.eq(control.ends),
            collector.final.eq(control.final),
        ]
        m.d.comb += [collector.known.eq(grouped(late) & late.ends), collector.magnitude.eq(magnitude.greatest)]
        m.d.comb += [
            quantizer.start.eq(collector.start),
            quantizer.magnitude.eq(collector.scale_of),
            quantizer.values.eq(collector.word),
        ]
        m.d.comb += [
            quantizer.valid.eq(collector.valid),
            quantizer.last.eq(collector.last),
            quantizer.final.eq(collector.last_of_all),
        ]
        m.d.comb += [packer.begin.eq(front.begin), packer.packet.eq(front.packet), packer.starts.eq(quantizer.starts)]
        m.d.comb += [packer.codes.eq(quantizer.codes), packer.word.eq(quantizer.word), packer.scale.eq(quantizer.scale)]
        for port, inner in ((self.packet, packer.write), (self.aux, packer.twice)):
            m.d.comb += [port.en.eq(inner.en), port.addr.eq(inner.addr), port.data.eq(inner.data)]
        m.d.comb += [getattr(self.done, name).eq(packer.done[k]) for k, name in enumerate(QUANTIZED)]
        return pending

    def _watch(self, m: Module, lanes: list[LanePair], scalars: NormScalars) -> None:
        """A result that is infinite; what nobody uses may be."""
        overflow, found = Signal(), scalars.infinite
        may_overflow = any(form.scale in (E8M0, E4M3) for form in self._tables.values())
        for cycle in (7, 9, STEPS):
            control = self._control[cycle]
            counts = control.residual | control.scaled | control.rope | control.swiglu
            if may_overflow:
                counts |= control.embed
            found |= counts & Cat(getattr(lane, f"infinite{cycle}") for lane in lanes).any()
        m.d.sync += overflow.eq(found)
        m.d.comb += self.overflow.eq(overflow)
