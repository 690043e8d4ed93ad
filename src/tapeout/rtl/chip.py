"""The chip: conductor, tiles, routers, streamer and host, and the clocks that they stand on.

`sync` never stops: the streamer. `compute` stands still while a micro-op waits for the stream (`waiting`): everything that the compiler counts
cycles of. Each kind of unit has a clock that ticks while one of them works: tiles run in lockstep, so theirs are busy together. `host` while no
entry runs, `load` while the host fills memories.
"""

from amaranth.hdl import (
    Cat,
    ClockDomain,
    ClockSignal,
    Const,
    DomainRenamer,
    Instance,
    Module,
    ResetSignal,
    Signal,
    Value,
)
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tapeout.chip.memory import memory_timing
from tapeout.chip.spec import ChipSpec
from tapeout.isa.opcodes import Unit
from tapeout.rtl.clock_gate import ClockGate
from tapeout.rtl.conductor import Conductor
from tapeout.rtl.host import COUNT_BITS, Host
from tapeout.rtl.ports import BUILT
from tapeout.rtl.router import Router, source_bits
from tapeout.rtl.stream_account import COUNT_BITS as BEAT_BITS
from tapeout.rtl.streamer import EXTERNAL_BITS, Streamer
from tapeout.rtl.tile import BOX_CLOCKS, UNITS, Tile
from tapeout.rtl.unit_sequencer import POINTER_BITS

STATUS = ("late", "overflow", "starved", "collision")
"""Bits of the status word of a run: a micro-op missed its cycle, a result was not finite, the streamer's queue ran dry, two packets met on a link."""


class Chip(wiring.Component):
    """Ports: the host's stream, the external memory's, and what the harness writes down. `tile` is the (one) tile module, emitted on its own."""

    def __init__(self, chip: ChipSpec, banked: bool = False):
        self.chip, self.banked, self.tile = chip, banked, Tile(chip, banked)
        tiles, ports = chip.grid.tiles, self.tile.ports
        members = {
            "clk": In(1), "rst": In(1), "in_valid": In(1), "in_ready": Out(1), "in_data": In(32), "out_valid": Out(1), "out_ready": In(1),
            "out_data": Out(32),
            "issues": Out(tiles * len(Unit)), "any_issue": Out(1), "pointers": Out(tiles * len(Unit) * POINTER_BITS),
            "dones": Out(tiles * len(BUILT)), "any_done": Out(1), "outer": Out(16), "inner": Out(16), "waiting": Out(1), "computing": Out(1),
            "streaming": Out(1), "status": Out(len(STATUS)), "overflow": Out(tiles * len(Unit)),
        }  # fmt: skip
        if ports:
            members |= {
                "any_delivered": Out(1),
                "delivered": Out(tiles * ports),
                "delivered_from": Out(tiles * ports * source_bits(chip.grid)),
            }
        if chip.external:
            beat = 8 * memory_timing(chip).beat_bytes
            members |= {
                "request": Out(1), "write": Out(1), "mask": Out(tiles), "address": Out(EXTERNAL_BITS), "size": Out(16), "grant": In(1),
                "arrival": In(1), "arrival_mask": In(tiles), "arrival_data": In(beat),
                **{f"write_data{t}": Out(beat) for t in range(tiles)},
            }  # fmt: skip
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.host = host = DomainRenamer("host")(Host())
        m.submodules.conductor = conductor = DomainRenamer("compute")(Conductor(self.chip.tile.attention.block_keys))
        tiles = [self._tile(m, number, host, conductor) for number in range(self.chip.grid.tiles)]
        self._host(m, host, conductor, tiles)
        self._clocks(m, host, tiles)
        collision = self._network(m, tiles)
        starved = self._streamer(m, host, conductor, tiles) if self.chip.external else 0
        m.d.comb += [
            self.waiting.eq(Cat(tile["waiting"] for tile in tiles).any()),
            self.overflow.eq(Cat(tile["overflow"] for tile in tiles)),
            conductor.late_unit.eq(Cat(tile["late"] for tile in tiles).any()),
        ]
        if not self.chip.external:
            m.d.comb += conductor.stream_idle.eq(1)
        self._status(m, host, conductor, starved, collision)
        self._notes(m, conductor, tiles)
        return m

    def _tile(self, m: Module, number: int, host: Host, conductor: Conductor) -> dict[str, Signal]:
        """An instance of the tile. Returns a signal per port that is not driven here."""
        driven = {
            **self._unit_clocks(), "number": Const(number, 5), "load": host.load,
            "host_read": host.read, **{name: getattr(conductor, name) for name in (
                "now", "parity", "publish", "next_segment", "values", "position", "block",
            )},
        }  # fmt: skip
        if self.chip.external:
            driven |= {"free_clk": ClockSignal(), "free_rst": ResetSignal()}
        if self.chip.external or self.banked:
            driven |= {"clk": ClockSignal("compute"), "rst": ResetSignal("compute")}
        wires: dict[str, Signal] = {}
        for path, _member, value in self.tile.signature.flatten(self.tile):
            name = "__".join(str(part) for part in path)
            if name not in driven:
                wires[name] = Signal(value.shape(), name=f"tile{number}_{name}")
                driven[name] = wires[name]
        directions = {
            "__".join(map(str, path)): member.flow for path, member, _ in self.tile.signature.flatten(self.tile)
        }
        ports = {f"{'o' if directions.get(name) == Out else 'i'}_{name}": value for name, value in driven.items()}
        m.submodules[f"tile{number}"] = Instance("tile", **ports)
        return wires

    def _unit_clocks(self) -> dict[str, Value]:
        domains = ("issue", *UNITS.values(), *(name for names in BOX_CLOCKS.values() for name in names), "load")
        return {f"{name}_clk": ClockSignal(name) for name in domains} | {
            f"{name}_rst": ResetSignal(name) for name in domains
        }

    def _host(self, m: Module, host: Host, conductor: Conductor, tiles: list[dict[str, Signal]]) -> None:
        data = Signal(32)
        with m.Switch(host.load.tile):
            for number, tile in enumerate(tiles):
                with m.Case(number):
                    m.d.comb += data.eq(tile["host_data"])
        m.d.comb += [
            host.in_valid.eq(self.in_valid), host.in_data.eq(self.in_data), self.in_ready.eq(host.in_ready), self.out_valid.eq(host.out_valid),
            host.out_ready.eq(self.out_ready), self.out_data.eq(host.out_data), host.read_data.eq(data), conductor.load.eq(host.load),
            conductor.start.eq(host.start), conductor.start_row.eq(host.start_row), host.done.eq(conductor.done),
            host.cycles.eq(conductor.cycles),
        ]  # fmt: skip

    def _clocks(self, m: Module, host: Host, tiles: list[dict[str, Signal]]) -> None:
        source = {
            "compute": "sync",
            "host": "sync",
            "load": "sync",
            "issue": "compute",
            **{name: "compute" for name in UNITS.values()},
        }
        source |= {clock: unit for unit, names in BOX_CLOCKS.items() for clock in names}
        m.domains += [ClockDomain(name) for name in source]
        m.domains.sync, m.domains.bare = free, bare = ClockDomain("sync"), ClockDomain("bare", reset_less=True)
        # Reset comes in through a register: nothing inside depends on a pin.
        m.d.bare += free.rst.eq(self.rst)
        m.d.comb += [free.clk.eq(self.clk), bare.clk.eq(self.clk)]
        self.link_wanted = Signal()
        wanted = {"compute": ~self.waiting, "host": host.awake, "load": host.open, "issue": self.any_issue}
        for unit, name in UNITS.items():
            wanted[name] = Cat(tile["clocking"][int(unit)] for tile in tiles).any() | (
                self.link_wanted if unit is Unit.LINK else 0
            )
        for clock in (name for names in BOX_CLOCKS.values() for name in names):
            wanted[clock] = Cat(tile[f"wants_{clock}"] for tile in tiles).any()
        for name, domain in source.items():
            m.submodules[f"{name}_gate"] = gate = ClockGate(domain)
            m.d.comb += [ClockSignal(name).eq(gate.clk), ResetSignal(name).eq(gate.rst), gate.en.eq(wanted[name])]

    def _network(self, m: Module, tiles: list[dict[str, Signal]]) -> Value:
        """Routers and the links between them. Returns whether two packets met."""
        grid, ports, bits = self.chip.grid, self.tile.ports, source_bits(self.chip.grid)
        if not ports:
            return Const(0)
        routers = [Router(self.chip, number) for number in range(grid.tiles)]
        for number, router in enumerate(routers):
            m.submodules[f"router{number}"] = DomainRenamer("link")(router)
            m.d.comb += router.local.eq(tiles[number]["flit"])
            for at, source in enumerate(router.sources):
                m.d.comb += [
                    getattr(router, f"from{source}").eq(getattr(routers[source], f"to{number}")),
                    self.delivered[number * ports + at].eq(getattr(router, f"delivered{at}")),
                    self.delivered_from.word_select(number * ports + at, bits).eq(getattr(router, f"delivered_source{at}")),
                ]  # fmt: skip
                for field in ("en", "addr", "data"):
                    m.d.comb += tiles[number][f"deliver{at}__{field}"].eq(
                        getattr(getattr(router, f"deliver{at}"), field)
                    )
        m.d.comb += [
            self.any_delivered.eq(self.delivered.any()),
            self.link_wanted.eq(Cat(router.active for router in routers).any()),
        ]
        return Cat(router.collision for router in routers).any()

    def _streamer(self, m: Module, host: Host, conductor: Conductor, tiles: list[dict[str, Signal]]) -> Value:
        m.submodules.streamer = streamer = Streamer(self.chip)
        m.d.comb += [
            streamer.load.eq(host.load), streamer.start.eq(host.start), streamer.start_row.eq(host.start_row), streamer.blocks.eq(conductor.blocks),
            streamer.position.eq(conductor.position), streamer.last.eq(conductor.last), streamer.setup.eq(conductor.setting_up),
            streamer.number.eq(conductor.number), streamer.streaming.eq(conductor.streaming), conductor.stream_idle.eq(streamer.idle),
            self.request.eq(streamer.request), self.write.eq(streamer.write), self.mask.eq(streamer.mask), self.address.eq(streamer.address),
            self.size.eq(streamer.size), streamer.grant.eq(self.grant), streamer.arrival.eq(self.arrival),
            streamer.arrival_mask.eq(self.arrival_mask),
        ]  # fmt: skip
        for number, tile in enumerate(tiles):
            m.d.comb += [
                tile["hold"].eq(self.waiting), tile["arrival"].eq(self.arrival & self.arrival_mask[number]), tile["beat"].eq(self.arrival_data),
                tile["arrived"].eq(streamer.arrived.word_select(number, BEAT_BITS)), tile["taken"].eq(streamer.taken.word_select(number, 32)),
                streamer.freed.word_select(number, BEAT_BITS).eq(tile["freed"]), streamer.pushed.word_select(number, 32).eq(tile["pushed"]),
                tile["write_take"].eq(self.grant & streamer.write & streamer.mask[number]), tile["write_last"].eq(streamer.last_beat),
                tile["write_size"].eq(streamer.size), getattr(self, f"write_data{number}").eq(tile["write_data"]),
            ]  # fmt: skip
        return streamer.starved

    def _status(self, m: Module, host: Host, conductor: Conductor, starved: Value, collision: Value) -> None:
        """Faults are remembered until power off; held cycles are counted from the start of a run."""
        overflow, met, held = Signal(), Signal(), Signal(COUNT_BITS)
        with m.If(self.overflow.any() & ~self.waiting):
            m.d.sync += overflow.eq(1)
        with m.If(collision):
            m.d.sync += met.eq(1)
        with m.If(host.start):
            m.d.sync += held.eq(0)
        with m.Elif(self.waiting):
            m.d.sync += held.eq(held + 1)
        m.d.comb += [
            self.status.eq(Cat(conductor.late, overflow, starved, met)),
            host.status.eq(self.status),
            host.held.eq(held + conductor.waited),
        ]

    def _notes(self, m: Module, conductor: Conductor, tiles: list[dict[str, Signal]]) -> None:
        """What the harness looks at."""
        m.d.comb += [
            self.issues.eq(Cat(tile["issues"] for tile in tiles)), self.any_issue.eq(self.issues.any()),
            self.pointers.eq(Cat(tile["pointers"] for tile in tiles)), self.dones.eq(Cat(tile["dones"] for tile in tiles)),
            self.any_done.eq(self.dones.any()), self.outer.eq(conductor.outer), self.inner.eq(conductor.inner),
            self.computing.eq(conductor.computing), self.streaming.eq(conductor.streaming),
        ]  # fmt: skip
