"""The link unit: SEND reads pieces from SRAM and gives them to the router, or with EXTERNAL to the write buffer, LB bytes a cycle.

Cycle 0: the read's address; 1: data stand and are aligned; 2: the flit stands at the router, or the bytes at the write buffer; 3: a send to
external memory is done, and its bytes stand there.
"""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import Out

from tapeout.chip.spec import ChipSpec
from tapeout.isa.opcodes import Flag, Unit
from tapeout.rtl.ports import ADDRESS_BITS, unit_signature
from tapeout.rtl.router import flit_layout

HALVES = ADDRESS_BITS - 1
"""Bits of an address in units of two bytes: all are even."""


class LinkUnit(wiring.Component):
    """Ports as in `ports.py`; `flit` goes to the router, which fills in its source; `piece_*` to the write buffer.

    `done.send` is for EXTERNAL only. When other sends are complete the routers of their targets tell (`delivered`).
    """

    def __init__(self, chip: ChipSpec):
        self.chip, self.width = chip, chip.link.bytes_per_cycle
        self.step = data.StructLayout(
            {
                "valid": 1,
                "external": 1,
                "ends": 1,
                "upper": 1,
                "bytes": range(self.width + 1),
                "targets": chip.grid.tiles,
                "to": HALVES,
            }
        )
        super().__init__(
            unit_signature(Unit.LINK, chip, reads={"source": self.width // 4 + 1}, writes={})
            | {
                "flit": Out(flit_layout(chip)),
                "piece_valid": Out(1),
                "piece_bytes": Out(range(self.width + 1)),
                "piece_data": Out(8 * self.width),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        asked, read, sent, stored = (
            self._walk(m),
            Signal(self.step, name="read"),
            Signal(self.step, name="sent"),
            Signal(),
        )
        m.d.sync += [read.eq(asked), sent.eq(read), stored.eq(sent.valid & sent.external & sent.ends)]
        content = Signal(8 * self.width, reset_less=True)
        with m.If(read.valid):
            m.d.sync += content.eq(Mux(read.upper, self.source.data[16:], self.source.data[: 8 * self.width]))
        flit = self.flit
        m.d.comb += [
            flit.valid.eq(sent.valid & ~sent.external), flit.targets.eq(sent.targets), flit.last.eq(sent.ends), flit.bytes.eq(sent.bytes),
            flit.addr.eq(sent.to << 1), flit.data.eq(content), self.piece_valid.eq(sent.valid & sent.external), self.piece_bytes.eq(sent.bytes),
            self.piece_data.eq(content), self.done.send.eq(stored),
            self.active.eq(asked.valid | read.valid | sent.valid | stored),
        ]  # fmt: skip
        return m

    def _walk(self, m: Module) -> data.View:
        """Cycle 0: which bytes are read, and where they belong."""
        step, running = Signal(self.step, name="asked"), Signal()
        names = {
            "rows": 20, "columns": 20, "left": 20, "here": HALVES, "start": HALVES, "stride": HALVES, "to": HALVES, "to_start": HALVES,
            "to_stride": HALVES, "targets": self.chip.grid.tiles, "external": 1,
        }  # fmt: skip
        r = {name: Signal(bits, name=f"send_{name}", reset_less=True) for name, bits in names.items()}
        piece_ends, ends = r["left"] <= self.width, (r["left"] <= self.width) & (r["rows"] == 1)
        m.d.comb += [
            self.source.en.eq(running), self.source.addr.eq(r["here"][1:]), step.valid.eq(running), step.external.eq(r["external"]),
            step.ends.eq(ends), step.upper.eq(r["here"][0]),
            step.bytes.eq(Mux(piece_ends, r["left"], self.width)), step.targets.eq(r["targets"]), step.to.eq(r["to"]),
        ]  # fmt: skip
        with m.If(running):
            m.d.sync += running.eq(~ends)
            with m.If(piece_ends):
                here, to = r["start"] + r["stride"], r["to_start"] + r["to_stride"]
                m.d.sync += [
                    r["rows"].eq(r["rows"] - 1), r["left"].eq(r["columns"]), r["here"].eq(here), r["start"].eq(here), r["to"].eq(to),
                    r["to_start"].eq(to),
                ]  # fmt: skip
            with m.Else():
                m.d.sync += [
                    r["left"].eq(r["left"] - self.width), r["here"].eq(r["here"] + self.width // 2), r["to"].eq(r["to"] + self.width // 2),
                ]  # fmt: skip
        with m.If(self.go):
            self._begin(m, r, running)
        return step

    def _begin(self, m: Module, r: dict[str, Signal], running: Signal) -> None:
        op = self.op
        m.d.sync += [
            running.eq(1), r["rows"].eq(op.rows), r["columns"].eq(op.columns), r["left"].eq(op.columns),
            r["here"].eq(op.a[1:]), r["start"].eq(op.a[1:]),
            r["stride"].eq(op.s0[1:]), r["to"].eq(op.dst[1:]), r["to_start"].eq(op.dst[1:]), r["to_stride"].eq(op.s1[1:]),
            r["targets"].eq(op.s2), r["external"].eq((op.flags & Flag.EXTERNAL).any()),
        ]  # fmt: skip
