"""A tile: four units, each with its sequencer and its own clock, around one SRAM, and a stream buffer where the chip has external memory.

Every tile is the same module; `number` tells it who it is. Domains: `sync` is the compute clock, `free` the one that never stops (the streamer's),
`load` is that of the host's bus; `matrix`, `vector`, `attention` and `link` are the units' own, gated by the chip: `clocking` says which must tick.
"""

from amaranth.hdl import Cat, Const, DomainRenamer, Module, Mux, Signal, Value
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from tapeout.chip.memory import memory_timing
from tapeout.chip.spec import ChipSpec
from tapeout.isa.opcodes import OPCODES, Op, Unit
from tapeout.rtl import attention_unit, matrix_unit, vector_unit
from tapeout.rtl.attention_unit import AttentionUnit
from tapeout.rtl.banked import BankedMemory, bank_shape
from tapeout.rtl.clock_gate import wants
from tapeout.rtl.link_unit import LinkUnit
from tapeout.rtl.load_bus import LOAD, Space, chosen, row_of
from tapeout.rtl.matrix_unit import MatrixUnit
from tapeout.rtl.memory import FlatMemory, Read, Write
from tapeout.rtl.ports import ADDRESS_BITS, BUILT, ReadPort, WritePort, issue_of, ops_of
from tapeout.rtl.records import BASES, SEGMENTS
from tapeout.rtl.router import deliveries, flit_layout
from tapeout.rtl.stream_account import COUNT_BITS, TAKERS, StreamAccount
from tapeout.rtl.streamer import TOKENS
from tapeout.rtl.unit_sequencer import POINTER_BITS, UnitSequencer
from tapeout.rtl.vector_unit import VectorUnit
from tapeout.rtl.write_account import WriteAccount
from tapeout.rtl.write_buffer import WriteBuffer

UNITS = {Unit.MATRIX: "matrix", Unit.VECTOR: "vector", Unit.ATTENTION: "attention", Unit.LINK: "link"}
"""Names of the units' submodules, and of their clock domains."""
BOX_CLOCKS = {"matrix": matrix_unit.CLOCKS, "vector": vector_unit.CLOCKS, "attention": attention_unit.CLOCKS}
"""Clocks of boxes inside of a unit, each gated from the unit's."""


class Tile(wiring.Component):
    """See the module. `waiting`: a micro-op whose cycle it is must wait for the stream, or for room in the write buffer: compute is to be held."""

    def __init__(self, chip: ChipSpec, banked: bool = False):
        self.chip, self.timing = chip, memory_timing(chip)
        self.units = {
            Unit.MATRIX: MatrixUnit(chip), Unit.VECTOR: VectorUnit(chip), Unit.ATTENTION: AttentionUnit(chip), Unit.LINK: LinkUnit(chip),
        }  # fmt: skip
        self.ports = deliveries(chip)
        beat = self.timing.beat_bytes if chip.external else 0
        self.sequencers = {
            unit: UnitSequencer(unit, chip.tile.micro_ops // len(Unit), beat, issue_of(chip)) for unit in Unit
        }
        words, ports = chip.tile.sram.kib * 256, self._sram_ports()
        self.sram = BankedMemory("sram", bank_shape(chip), *ports) if banked else FlatMemory("sram", words, *ports)
        self.stream = (
            FlatMemory("stream_buffer", chip.tile.stream_kib * 256, *self._stream_ports()) if chip.external else None
        )
        self.write_buffer = WriteBuffer(chip) if chip.external else None
        super().__init__(self._members())

    def _sram_ports(self) -> tuple[dict[str, Read], dict[str, Write]]:
        reads, writes = {"host_read": Read(1, "load")}, {"host_write": Write(1, "load", bytewise=False)}
        for unit, name in UNITS.items():
            for port, face in _ports(self.units[unit], ReadPort):
                reads[f"{name}_{port}"] = Read(face.words, name)
            for port, face in _ports(self.units[unit], WritePort):
                writes[f"{name}_{port}"] = Write(face.words, name)
        for k in range(self.ports):
            writes[f"deliver{k}"] = Write(self.chip.link.bytes_per_cycle // 4 + 1, "link")
        return reads, writes

    def _stream_ports(self) -> tuple[dict[str, Read], dict[str, Write]]:
        reads = {
            f"{UNITS[unit]}_{port}": Read(face.words, "free" if unit is Unit.ATTENTION else UNITS[unit])
            for unit, port, face in self._streamed()
        }
        return reads, {"beat": Write(self.timing.beat_bytes // 4, "free", bytewise=False)}

    def _streamed(self) -> list[tuple[Unit, str, ReadPort]]:
        """Read ports whose data may come from the stream."""
        names = {Unit.MATRIX: ("w",), Unit.VECTOR: ("c", "row"), Unit.ATTENTION: ("kv",)}
        return [
            (unit, port, face)
            for unit in names
            for port, face in _ports(self.units[unit], ReadPort)
            if port in names[unit]
        ]

    def _members(self) -> dict[str, wiring.Member]:
        units, beat = len(Unit), self.timing.beat_bytes
        members = {
            "number": In(5), "load": In(LOAD), "host_read": In(1), "host_data": Out(32), "now": In(24), "parity": In(1),
            "publish": In(1), "next_segment": In(range(SEGMENTS)), "values": In(ADDRESS_BITS * BASES), "position": In(24), "block": In(16),
            "issues": Out(units), "pointers": Out(units * POINTER_BITS), "dones": Out(len(BUILT)), "overflow": Out(units), "late": Out(1),
            "waiting": Out(1), "clocking": Out(units), "flit": Out(flit_layout(self.chip)),
        }  # fmt: skip
        members |= wants(tuple(name for names in BOX_CLOCKS.values() for name in names))
        for k in range(self.ports):
            members[f"deliver{k}"] = In(WritePort(self.chip.link.bytes_per_cycle // 4 + 1))
        if self.chip.external:
            members |= {
                "hold": In(1),
                "arrived": In(COUNT_BITS), "arrival": In(1), "beat": In(8 * beat), "freed": Out(COUNT_BITS), "taken": In(32), "pushed": Out(32),
                "write_take": In(1), "write_last": In(1), "write_size": In(16), "write_data": Out(8 * beat),
            }  # fmt: skip
        return members

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.sram = self.sram
        self.standing = Signal()
        if self.chip.external:
            m.d.free += self.standing.eq(self.hold)
        self._host(m)
        for unit in Unit:
            self._unit(m, unit)
        self._tokens(m)
        self._link(m)
        stream_wait = self._stream(m) if self.chip.external else 0
        write_wait = self._writes(m) if self.chip.external else 0
        m.d.comb += [
            self.waiting.eq(stream_wait | write_wait),
            self.late.eq(Cat(self.sequencers[unit].late for unit in Unit).any()),
        ]
        return m

    def _host(self, m: Module) -> None:
        here = chosen(m, self.load, Space.SRAM, "load_sram") & (self.load.tile == self.number)
        m.d.comb += [
            self.sram.host_read.addr.eq(self.load.address), self.sram.host_read.en.eq(self.host_read & (self.load.tile == self.number)),
            self.host_data.eq(self.sram.host_read.data), self.sram.host_write.addr.eq(self.load.address),
            self.sram.host_write.en.eq(here), self.sram.host_write.data.eq(row_of(self.load, Space.SRAM)),
        ]  # fmt: skip

    def _unit(self, m: Module, unit: Unit) -> None:
        """A unit, its sequencer and its clock."""
        name, body, sequencer = UNITS[unit], self.units[unit], self.sequencers[unit]
        m.submodules[name] = DomainRenamer(name)(body)
        m.submodules[f"{name}_sequencer"] = DomainRenamer(name)(sequencer)
        m.d.comb += [
            self.clocking[int(unit)].eq(sequencer.clocking | body.active),
            sequencer.load.eq(self.load), sequencer.tile.eq(self.number), sequencer.now.eq(self.now), sequencer.parity.eq(self.parity),
            sequencer.publish.eq(self.publish), sequencer.next_segment.eq(self.next_segment),
            sequencer.values.eq(self.values), sequencer.position.eq(self.position), sequencer.block.eq(self.block),
            body.go.eq(sequencer.go), body.op.eq(sequencer.op), self.issues[int(unit)].eq(sequencer.match),
            self.pointers.word_select(int(unit), POINTER_BITS).eq(sequencer.pointer), self.overflow[int(unit)].eq(body.overflow),
        ]  # fmt: skip
        for clock in BOX_CLOCKS.get(name, ()):
            m.d.comb += getattr(self, f"wants_{clock}").eq(getattr(body, f"wants_{clock}"))
        for op in ops_of(unit):
            m.d.comb += self.dones[int(op)].eq(getattr(body.done, op.name.lower()))
        streamed = [port for owner, port, _ in self._streamed() if owner is unit]
        for port, _ in _ports(body, ReadPort):
            self._read(m, name, port, getattr(body, port), port in streamed)
        for port, _ in _ports(body, WritePort):
            face, cell = getattr(body, port), getattr(self.sram, f"{name}_{port}")
            m.d.comb += [cell.en.eq(face.en), cell.addr.eq(face.addr), cell.data.eq(face.data)]

    def _read(self, m: Module, name: str, port: str, face: object, streamed: bool) -> None:
        """A unit's read port at the SRAM, and at the stream buffer too where its operand may come from there."""
        cell = getattr(self.sram, f"{name}_{port}")
        m.d.comb += [cell.addr.eq(face.addr), cell.en.eq(face.en), face.data.eq(cell.data)]
        if streamed and self.stream is not None:
            other, picked = getattr(self.stream, f"{name}_{port}"), Signal(name=f"{name}_{port}_streamed")
            with m.If(face.en):
                m.d[name] += picked.eq(face.stream)
            early = name == UNITS[Unit.ATTENTION]
            m.d.comb += [
                cell.en.eq(face.en & ~face.stream), other.addr.eq(face.addr), other.en.eq(face.en & face.stream & ~(self.standing & early)),
                face.data.eq(Mux(picked, self._early(m, other) if early else other.data, cell.data)),
            ]  # fmt: skip

    def _early(self, m: Module, port: object) -> Value:
        """A value micro-op completes in the cycle that still reads its last records: where compute is held in it, beats may arrive over them.
        So this port reads in the first wall cycle of every compute cycle; what it had read before is shown until compute goes on.
        """
        before = Signal(port.data.shape(), reset_less=True)
        with m.If(self.hold & ~self.standing):
            m.d.free += before.eq(port.data)
        return Mux(self.standing, before, port.data)

    def _tokens(self, m: Module) -> None:
        """TOKEN[t], for embeddings."""
        m.submodules.tokens = tokens = memory.Memory(shape=20, depth=TOKENS, init=[])
        write, read, vector = tokens.write_port(domain="load"), tokens.read_port(domain="comb"), self.units[Unit.VECTOR]
        m.d.comb += [
            write.en.eq(chosen(m, self.load, Space.TOKENS, "load_token")), write.addr.eq(self.load.address), write.data.eq(row_of(self.load,
            Space.TOKENS)),
            read.addr.eq(vector.token_index), vector.token_id.eq(read.data),
        ]  # fmt: skip

    def _link(self, m: Module) -> None:
        unit = self.units[Unit.LINK]
        m.d.comb += self.flit.eq(unit.flit)
        for k in range(self.ports):
            face, cell = getattr(self, f"deliver{k}"), getattr(self.sram, f"deliver{k}")
            m.d.comb += [cell.en.eq(face.en), cell.addr.eq(face.addr), cell.data.eq(face.data)]

    def _stream(self, m: Module) -> object:
        """The stream buffer and what has been taken from it. Returns whether a micro-op must wait for beats."""
        assert self.stream is not None, "only with external memory"
        m.submodules.stream = stream = self.stream
        m.submodules.stream_account = account = StreamAccount()
        takers = [self.sequencers[unit] for unit in (Unit.MATRIX, Unit.VECTOR, Unit.ATTENTION)]
        wants = Cat(sequencer.match & sequencer.stream for sequencer in takers)
        beats = Mux(wants[0], takers[0].beats, Mux(wants[1], takers[1].beats, takers[2].beats))
        beat_bits = (self.timing.beat_bytes - 1).bit_length()
        m.d.comb += [
            account.beats.eq(beats), self.freed.eq(account.freed),
            stream.beat.en.eq(Mux(self.arrival, Const(-1, 4 * stream.beat.signature.words), 0)),
            stream.beat.addr.eq(self.arrived << (beat_bits - 2)), stream.beat.data.eq(self.beat),
        ]  # fmt: skip
        for sequencer in takers:
            m.d.comb += sequencer.stream_address.eq(account.used << beat_bits)
        for op in TAKERS:
            sequencer, name = self.sequencers[OPCODES[op].unit], op.name.lower()
            m.d.comb += [
                getattr(account.issued, name).eq(sequencer.match & (sequencer.kind == int(op))),
                getattr(account.streamed, name).eq(sequencer.stream),
                getattr(account.done, name).eq(self.dones[int(op)]),
            ]
        ready = (self.arrived - account.used)[:COUNT_BITS]
        return wants.any() & (ready < beats)

    def _writes(self, m: Module) -> object:
        """The write buffer. Returns whether a send must wait for room in it."""
        assert self.write_buffer is not None, "only with external memory"
        m.submodules.write_buffer = DomainRenamer("free")(self.write_buffer)
        m.submodules.write_account = account = WriteAccount()
        unit, sequencer, buffer = self.units[Unit.LINK], self.sequencers[Unit.LINK], self.write_buffer
        outside = sequencer.match & sequencer.external
        m.d.comb += [
            account.issued.eq(outside), account.bytes.eq(sequencer.bytes), account.done.eq(self.dones[int(Op.SEND)]), self.pushed.eq(account.pushed),
            buffer.valid.eq(unit.piece_valid), buffer.bytes.eq(unit.piece_bytes), buffer.piece.eq(unit.piece_data), buffer.take.eq(self.write_take),
            buffer.last_beat.eq(self.write_last), buffer.size.eq(self.write_size), self.write_data.eq(buffer.data),
        ]  # fmt: skip
        return outside & ((account.claimed - self.taken)[:32] + sequencer.bytes > self.timing.write_bytes)


def _ports(unit: wiring.Component, kind: type) -> list[tuple[str, object]]:
    """Names and signatures of a unit's memory ports of one kind."""
    members = unit.signature.members
    return [
        (name, member.signature)
        for name, member in members.items()
        if member.is_signature and isinstance(member.signature, kind)
    ]


__all__ = ["UNITS", "Tile"]
