"""The matrix unit's operand buffer: vectors of packets, loaded by OPERAND, read a slice of K codes per cycle by MATMUL.

A packet is read from SRAM in one cycle and goes in slice by slice, K codes per cycle, while their sum A is made; with the last slice go A, n and e
of the group, and the vector's largest e so far. Packet g of vector t lies at t*groups + g.
"""

from amaranth.hdl import Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from tapeout.chip.spec import PACKET_BYTES, ChipSpec
from tapeout.rtl.dot_product import halved
from tapeout.rtl.ports import ADDRESS_BITS, ReadPort, formats_of, issue_of
from tapeout.rtl.tree import fold


def group_layout(chip: ChipSpec) -> data.StructLayout:
    """Of a group: the sum of its codes (`low`: of its first half, where a format needs it), and its scale n * 2^e."""
    low = {"low": signed(13)} if any(map(halved, formats_of(chip).values())) else {}
    return data.StructLayout({"sum": signed(13), "n": unsigned(4), "e": signed(8), **low})


def buffer_packets(chip: ChipSpec) -> int:
    """How many packets the buffer holds: those of `operand_kib`, up to a power of two."""
    return 1 << (chip.tile.matrix.operand_kib * 1024 // PACKET_BYTES - 1).bit_length()


class OperandBuffer(wiring.Component):
    """Loading: `go` with an OPERAND in `op`; `active` and `done` as of a unit. Columns are a multiple of 32.

    Reading: slice `at` (packet * 32/K + slice) is addressed with `en`; its `codes` and its packet's `group` stand in the cycle after.
    `e_max` is that of vector `token`, at once. Loading is in `domain`, which must be clocked while `go` or `active` is high; reading in `sync`.
    """

    def __init__(self, chip: ChipSpec, domain: str = "sync"):
        self.domain, self.group_layout = domain, group_layout(chip)
        unit = chip.tile.matrix
        self.lanes, self.slices, self.packets, self.tokens = (
            unit.lanes,
            32 // unit.lanes,
            buffer_packets(chip),
            unit.tokens,
        )
        self.step = data.StructLayout(
            {"valid": 1, "at": range(self.packets * self.slices), "token": range(self.tokens), "first": 1, "last": 1}
        )
        super().__init__(
            {
                "go": In(1), "op": In(issue_of(chip)), "active": Out(1), "done": Out(1), "x": Out(ReadPort(9)),
                "en": In(1), "at": In(range(self.packets * self.slices)), "codes": Out(8 * self.lanes), "group": Out(self.group_layout),
                "token": In(range(self.tokens)), "e_max": Out(signed(8)),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        asked = self._walk(m)
        read, stored = Signal(self.step), Signal(self.step)
        m.d[self.domain] += [read.eq(asked), stored.eq(read)]
        m.d.comb += [self.active.eq(asked.valid | read.valid | stored.valid), self.done.eq(read.last)]
        packet = self._packet(m, read)
        group = self._sum(m, stored, packet)
        self._memories(m, stored, packet, group)
        return m

    def _walk(self, m: Module) -> data.View:
        """The slice whose packet is addressed in this cycle, or was with an earlier slice."""
        step, running = Signal(self.step), Signal()
        at, token = (
            Signal(range(self.packets * self.slices), reset_less=True),
            Signal(range(self.tokens), reset_less=True),
        )
        here, start, stride = (
            Signal(ADDRESS_BITS - 1, name=name, reset_less=True) for name in ("here", "start", "stride")
        )
        groups, group, tokens = (
            Signal(bits, name=name, reset_less=True) for bits, name in ((15, "groups"), (15, "group_at"), (7, "tokens"))
        )
        self.upper = Signal(reset_less=True)
        packet_ends, token_ends, ends = Signal(), Signal(), Signal()
        m.d.comb += [
            packet_ends.eq(slot_of(at, self.slices) == self.slices - 1), token_ends.eq(packet_ends & (group + 1 == groups)),
            ends.eq(token_ends & (token + 1 == tokens)), step.valid.eq(running), step.at.eq(at), step.token.eq(token),
            step.first.eq(group == 0), step.last.eq(running & ends), self.x.addr.eq(here[1:]),
            self.x.en.eq(running & (slot_of(at, self.slices) == 0)),
        ]  # fmt: skip
        with m.If(running):
            m.d[self.domain] += [at.eq(at + 1), self.upper.eq(here[0]), running.eq(~ends)]
            with m.If(token_ends):
                m.d[self.domain] += [
                    group.eq(0),
                    token.eq(token + 1),
                    here.eq(start + stride),
                    start.eq(start + stride),
                ]
            with m.Elif(packet_ends):
                m.d[self.domain] += [group.eq(group + 1), here.eq(here + PACKET_BYTES // 2)]
        with m.If(self.go):
            op = self.op
            m.d[self.domain] += [
                running.eq(1), at.eq(0), token.eq(0), group.eq(0), groups.eq(op.columns[5:]), tokens.eq(op.tokens),
                here.eq(op.a[1:]), start.eq(op.a[1:]), stride.eq(op.s0[1:ADDRESS_BITS]),
            ]  # fmt: skip
        return step

    def _packet(self, m: Module, read: data.View) -> Signal:
        """The packet as a register, taken when its data stand."""
        packet = Signal(8 * PACKET_BYTES, reset_less=True)
        with m.If(read.valid & (slot_of(read.at, self.slices) == 0)):
            m.d[self.domain] += packet.eq(Mux(self.upper, self.x.data[16:], self.x.data[: 8 * PACKET_BYTES]))
        return packet

    def _sum(self, m: Module, stored: data.View, packet: Signal) -> data.View:
        """The group, complete in its last slice."""
        group, before = Signal(self.group_layout), Signal(signed(13), reset_less=True)
        self.slice = packet.word_select(slot_of(stored.at, self.slices), 8 * self.lanes)
        codes = [self.slice.word_select(k, 8).as_signed() for k in range(self.lanes)]
        so_far = Mux(slot_of(stored.at, self.slices) == 0, 0, before) if self.slices > 1 else 0
        m.d.comb += [
            group.sum.eq(so_far + fold(codes, lambda a, b: a + b)), group.n.eq(packet[256:260]), group.e.eq(packet[264:272].as_signed()),
        ]  # fmt: skip
        with m.If(stored.valid):
            m.d[self.domain] += before.eq(group.sum)
        if "low" in self.group_layout.members:
            m.d.comb += group.low.eq(self._low(m, stored, group, codes))
        return group

    def _low(self, m: Module, stored: data.View, group: data.View, codes: list[Value]) -> Value:
        """The sum of the group's first 16 codes, in its last slice."""
        if self.slices == 1:
            return fold(codes[:16], lambda a, b: a + b)
        low = Signal(signed(13), reset_less=True)
        with m.If(stored.valid & (slot_of(stored.at, self.slices) == self.slices // 2 - 1)):
            m.d[self.domain] += low.eq(group.sum)
        return low

    def _memories(self, m: Module, stored: data.View, packet: Signal, group: data.View) -> None:
        bits = (self.slices - 1).bit_length()
        m.submodules.codes = codes = memory.Memory(shape=8 * self.lanes, depth=self.packets * self.slices, init=[])
        m.submodules.groups = groups = memory.Memory(shape=self.group_layout, depth=self.packets, init=[])
        m.submodules.largest = largest = memory.Memory(shape=signed(8), depth=self.tokens, init=[])
        put, put_group, put_largest = (store.write_port(domain=self.domain) for store in (codes, groups, largest))
        get, get_group, get_largest = codes.read_port(), groups.read_port(), largest.read_port(domain="comb")
        e_max, greater = Signal(signed(8), reset_less=True), Signal(signed(8))
        ends = stored.valid & (slot_of(stored.at, self.slices) == self.slices - 1)
        m.d.comb += greater.eq(Mux(stored.first | (group.e > e_max), group.e, e_max))
        with m.If(ends):
            m.d[self.domain] += e_max.eq(greater)
        m.d.comb += [
            put.en.eq(stored.valid), put.addr.eq(stored.at), put.data.eq(self.slice),
            put_group.en.eq(ends), put_group.addr.eq(stored.at[bits:]), put_group.data.eq(group),
            put_largest.en.eq(ends), put_largest.addr.eq(stored.token), put_largest.data.eq(greater),
            get.en.eq(self.en), get.addr.eq(self.at), self.codes.eq(get.data),
            get_group.en.eq(self.en), get_group.addr.eq(self.at[bits:]), self.group.eq(get_group.data),
            get_largest.addr.eq(self.token), self.e_max.eq(get_largest.data),
        ]  # fmt: skip


def slot_of(at: object, slices: int) -> object:
    """Which of its packet's slices a slice is."""
    return at[: (slices - 1).bit_length()] if slices > 1 else 0
