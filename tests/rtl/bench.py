"""A bench for one unit in Amaranth's simulator: gives it micro-ops at their cycles, serves its ports, and notes when what is done."""

from dataclasses import dataclass, field

from amaranth.sim import Simulator

from tapeout.isa.opcodes import OPCODES, MicroOp, Unit
from tapeout.rtl.ports import ReadPort, WritePort, ops_of


@dataclass
class Bench:
    """`memory` and `stream` are the unit's SRAM and stream buffer; `schedule` holds (cycle, micro-op with addresses resolved)."""

    unit: object
    kind: Unit
    memory: bytearray
    stream: bytearray = field(default_factory=lambda: bytearray(1 << 16))
    position: int = 0
    inner: int = 0
    extra: object = None
    """Called every cycle as extra(ctx, unit), to serve ports that are not memory."""
    done: list[tuple[str, int]] = field(default_factory=list)
    """(opcode, cycle in which the result exists), counted like the schedule: issue + latency."""
    reads: list[tuple[str, int, int, int]] = field(default_factory=list)
    """(port, cycle after issue count, first byte, bytes)."""
    writes: list[tuple[str, int, int, int]] = field(default_factory=list)
    overflow: bool = False

    def run(self, schedule: list[tuple[int, MicroOp]], cycles: int) -> None:
        """Run; issue cycle c is the unit's cycle g = c, so that its first read address comes in g+1."""
        simulator = Simulator(self.unit)
        simulator.add_clock(1e-6)
        at = dict(schedule)

        async def drive(ctx):
            ports = self._ports(ReadPort), self._ports(WritePort)
            for cycle in range(cycles):
                op = at.get(cycle)
                ctx.set(self.unit.go, op is not None)
                if op is not None:
                    self._issue(ctx, op)
                if self.extra is not None:
                    self.extra(ctx, self.unit)
                self._note(ctx, cycle)
                answers = [(port, self._read(ctx, cycle, name, port)) for name, port in ports[0]]
                for name, port in ports[1]:
                    self._write(ctx, cycle, name, port)
                await ctx.tick()
                for port, answer in answers:
                    if answer is not None:
                        ctx.set(port.data, answer)

        simulator.add_testbench(drive)
        simulator.run()

    def _ports(self, kind):
        members = self.unit.signature.members
        return [
            (name, getattr(self.unit, name))
            for name, m in members.items()
            if m.is_signature and isinstance(m.signature, kind)
        ]

    def _issue(self, ctx, op: MicroOp) -> None:
        fields = (
            "op",
            "format",
            "flags",
            "rows",
            "columns",
            "tokens",
            "heads",
            "group",
            "slot",
            "dst",
            "a",
            "b",
            "c",
            *(f"s{k}" for k in range(5)),
        )
        ctx.set(
            self.unit.op,
            {**{name: int(getattr(op, name)) for name in fields}, "position": self.position, "inner": self.inner},
        )

    def _note(self, ctx, cycle: int) -> None:
        for op in ops_of(self.kind):
            if ctx.get(getattr(self.unit.done, op.name.lower())):
                self.done.append((op.name.lower(), cycle + 1))
        self.overflow |= bool(ctx.get(self.unit.overflow))

    def _read(self, ctx, cycle, name, port):
        if not ctx.get(port.en):
            return None
        source = self.stream if ctx.get(port.stream) else self.memory
        first, size = 4 * ctx.get(port.addr), 4 * port.signature.words
        self.reads.append((name, cycle - 1, first, size))
        return int.from_bytes(bytes(source[first : first + size]).ljust(size, b"\0"), "little")

    def _write(self, ctx, cycle, name, port):
        enable = ctx.get(port.en)
        if not enable:
            return
        first, size = 4 * ctx.get(port.addr), 4 * port.signature.words
        bits = ctx.get(port.data).to_bytes(size, "little")
        touched = [k for k in range(size) if enable >> k & 1]
        self.writes.append((name, cycle - 1, first + touched[0], touched[-1] - touched[0] + 1))
        for k in touched:
            self.memory[first + k] = bits[k]


assert set(OPCODES), "there are opcodes"
