"""Codes to packets: 32 at a time, a group's last ones with its scale behind them, written at any half word."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tapeout.rtl.binary32 import register
from tapeout.rtl.collector import Fifo, groups_held
from tapeout.rtl.ports import WritePort
from tapeout.rtl.quantizer import SCALE, WORD, Quantizer
from tapeout.rtl.vector_control import PACKET, QUANTIZED

CHUNK = 32
PAIRS = CHUNK // 2
PACKET_WORDS = 9
"""34 bytes, from the first or the second half of a word on."""


class Packer(wiring.Component):
    """`begin` with a group's `packet` in the cycle of its first address. `starts` a cycle before a group's first `codes`; with the codes `word`
    and `scale`. Writes stand a cycle later; `done` (one bit per micro-op of QUANTIZED) comes with a micro-op's last codes."""

    def __init__(self, lanes: int):
        self.lanes = lanes
        super().__init__(
            {
                "begin": In(1), "packet": In(PACKET), "starts": In(1), "codes": In(data.ArrayLayout(8, lanes)), "word": In(WORD),
                "scale": In(SCALE), "write": Out(WritePort(PACKET_WORDS)), "twice": Out(WritePort(1)), "done": Out(len(QUANTIZED)),
                "pending": Out(1),
            }
        )  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        m.submodules.packets = packets = Fifo(PACKET.size, groups_held(self.lanes, Quantizer.STAGES - 1))
        m.d.comb += [packets.put.eq(self.begin), packets.write.eq(self.packet), packets.get.eq(self.starts)]
        packet = Signal(PACKET, reset_less=True)
        chunk, whole = self._chunk(m)
        flush = Signal()
        m.d.comb += flush.eq(self.word.valid & (self.word.last | whole))
        with m.If(self.starts):
            m.d.sync += packet.eq(packets.read)
        with m.Elif(flush):
            m.d.sync += [packet.to.eq(packet.to + PAIRS), packet.pairs.eq(packet.pairs - PAIRS)]
        self._write(m, flush, chunk, packet)
        self._write_twice(m, packet)
        m.d.comb += self.done.eq(Mux(self.word.final, 1 << packet.kind, 0))
        m.d.comb += self.pending.eq(self.write.en.any())
        return m

    def _chunk(self, m: Module) -> tuple[Value, Value]:
        """The codes gathered so far, zeros where none are yet, and whether they are CHUNK."""
        words = CHUNK // self.lanes
        place, codes = Signal(range(words)), self.codes.as_value()
        with m.If(self.starts):
            m.d.sync += place.eq(0)
        with m.Elif(self.word.valid):
            m.d.sync += place.eq(place + 1)
        gathered = []
        for k in range(words - 1):
            held = register(f"held{k}", len(codes))
            gathered.append(Mux(place == k, codes, Mux(place > k, held, 0)))
            with m.If(place == k):
                m.d.sync += held.eq(codes)
        whole = place == words - 1
        return Cat(*gathered, Mux(whole, codes, 0)), whole

    def _write(self, m: Module, flush: Value, chunk: Value, packet: data.View) -> None:
        """Pair by pair; the scale stands behind the last one."""
        scale, last = scale_bytes(self.scale), self.word.last
        ends = [last & (packet.pairs == k) for k in range(PAIRS + 1)]
        pairs = [Mux(end, scale, chunk[16 * k : 16 * k + 16]) for k, end in enumerate(ends[:-1])] + [scale]
        used = [Const(1), *(~last | (packet.pairs >= k) for k in range(1, PAIRS)), ends[-1]]
        odd, data_register, enable = packet.to[0], register("data", 32 * PACKET_WORDS), Signal(2 * PACKET_WORDS)
        address = register("address", len(self.write.addr))
        moved = Cat(Mux(odd, one, two) for one, two in zip([0, *used], [*used, 0], strict=True))
        m.d.sync += enable.eq(Mux(flush, moved, 0))
        with m.If(flush):
            m.d.sync += [
                address.eq(packet.to >> 1),
                data_register.eq(
                    Cat(Mux(odd, one, two) for one, two in zip([scale, *pairs], [*pairs, scale], strict=True))
                ),
            ]
        m.d.comb += [self.write.en.eq(twofold(enable)), self.write.addr.eq(address), self.write.data.eq(data_register)]

    def _write_twice(self, m: Module, packet: data.View) -> None:
        """The scale alone, where it is wanted a second time."""
        enable, value, address = Signal(2), register("scale", 16), register("twice_address", len(self.twice.addr))
        odd, wanted = packet.twice_to[0], self.word.last & packet.twice
        m.d.sync += [
            enable.eq(Mux(wanted, Cat(~odd, odd), 0)),
            value.eq(scale_bytes(self.scale)),
            address.eq(packet.twice_to >> 1),
        ]
        m.d.comb += [
            self.twice.en.eq(twofold(enable)),
            self.twice.addr.eq(address),
            self.twice.data.eq(value.replicate(2)),
        ]


def scale_bytes(scale: data.View) -> Value:
    """n, e as they stand in a packet."""
    return Cat(scale.n, Const(0, 4), scale.e)


def twofold(bits: Value) -> Value:
    """Every bit twice: from pairs to bytes."""
    return Cat(bit.replicate(2) for bit in bits)
