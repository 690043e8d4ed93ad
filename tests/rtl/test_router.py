"""Link units and routers of small grids: bytes, cycles and links as isa.footprint and isa.timing have them."""

from dataclasses import dataclass, field

import numpy as np
import pytest

pytest.importorskip("amaranth")

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.sim import Simulator

from chips import make_chip
from tapeout.chip.routes import route
from tapeout.chip.spec import ChipSpec
from tapeout.isa.footprint import footprints, link_uses
from tapeout.isa.opcodes import Flag, MicroOp, Op
from tapeout.isa.timing import latency, occupancy
from tapeout.rtl.link_unit import LinkUnit
from tapeout.rtl.router import Router, beyond, deliveries, neighbours

SHAPES = {
    "1x1": (1, 1, "mesh"),
    "1x3": (3, 1, "ring"),
    "1x4": (4, 1, "ring"),
    "2x2": (2, 2, "mesh"),
    "3x2": (2, 3, "mesh"),
}
"""Rows x columns of the grids tried: columns, rows, topology."""
SIZE = 1 << 13


def chip_of(grid: str, width: int = 16, hop_cycles: int = 1, streamed: bool = False) -> ChipSpec:
    columns, rows, topology = SHAPES[grid]
    where = {"grid__columns": str(columns), "grid__rows": str(rows), "grid__topology": topology}
    link = {"link__bytes_per_cycle": str(width), "link__hop_cycles": str(hop_cycles)}
    return make_chip("1x1", streamed, **where, **link)


class Network(wiring.Elaboratable):
    """A link unit and a router per tile, wired as the chip wires them."""

    def __init__(self, chip: ChipSpec):
        tiles = range(chip.grid.tiles)
        self.units, self.routers = [LinkUnit(chip) for _ in tiles], [Router(chip, tile) for tile in tiles]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for tile, (unit, router) in enumerate(zip(self.units, self.routers, strict=True)):
            m.submodules += [unit, router]
            m.d.comb += router.local.eq(unit.flit)
            m.d.comb += [getattr(router, f"from{s}").eq(getattr(self.routers[s], f"to{tile}")) for s in router.sources]
        return m


@dataclass
class Traffic:
    """Runs sends and notes what comes of them; cycles are those of the schedule, as in bench.py."""

    chip: ChipSpec
    schedule: list[tuple[int, MicroOp]]
    memories: list[bytearray]
    writes: list[tuple[int, int, int, int]] = field(default_factory=list)
    """(cycle, tile, first byte, bytes)."""
    delivered: list[tuple[int, int, int]] = field(default_factory=list)
    """(cycle in which the bytes exist, tile, source)."""
    links: list[tuple[int, int, int]] = field(default_factory=list)
    """(cycle, from, to): a flit is given to a link."""
    done: list[tuple[int, int]] = field(default_factory=list)
    pieces: dict[int, bytes] = field(default_factory=dict)
    collisions: int = 0
    active: bool = True

    def run(self, cycles: int) -> None:
        network = Network(self.chip)
        simulator = Simulator(network)
        simulator.add_clock(1e-6)

        async def drive(ctx):
            for cycle in range(cycles):
                answers = []
                for tile, (unit, router) in enumerate(zip(network.units, network.routers, strict=True)):
                    self._issue(ctx, cycle, tile, unit)
                    self._note(ctx, cycle, tile, unit, router)
                    answers.append(self._read(ctx, tile, unit))
                await ctx.tick()
                for unit, answer in zip(network.units, answers, strict=True):
                    ctx.set(unit.source.data, answer)
            self.active = any(ctx.get(part.active) for part in (*network.units, *network.routers))

        simulator.add_testbench(drive)
        simulator.run()

    def _issue(self, ctx, cycle: int, tile: int, unit: LinkUnit) -> None:
        due = [op for at, op in self.schedule if at == cycle and op.tile == tile]
        ctx.set(unit.go, bool(due))
        for op in due:
            names = ("op", "flags", "rows", "columns", "dst", "a", "s0", "s1", "s2")
            ctx.set(unit.op, {name: int(getattr(op, name)) for name in names})

    def _read(self, ctx, tile: int, unit: LinkUnit) -> int:
        first = 4 * ctx.get(unit.source.addr)
        return (
            int.from_bytes(self.memories[tile][first : first + 4 * unit.source.signature.words], "little")
            if ctx.get(unit.source.en)
            else 0
        )

    def _note(self, ctx, cycle: int, tile: int, unit: LinkUnit, router: Router) -> None:
        self.collisions += ctx.get(router.collision)
        for k in range(len(router.sources)):
            self._write(ctx, cycle, tile, getattr(router, f"deliver{k}"))
            if ctx.get(getattr(router, f"delivered{k}")):
                self.delivered.append((cycle, tile, ctx.get(getattr(router, f"delivered_source{k}"))))
        hop = self.chip.link.hop_cycles
        self.links += [
            (cycle - hop - 1, tile, there) for there in router.targets if ctx.get(getattr(router, f"to{there}").valid)
        ]
        if ctx.get(unit.done.send):
            self.done.append((cycle + 1, tile))
        if ctx.get(unit.piece_valid):
            piece = ctx.get(unit.piece_data).to_bytes(self.chip.link.bytes_per_cycle, "little")[
                : ctx.get(unit.piece_bytes)
            ]
            self.pieces[tile] = self.pieces.get(tile, b"") + piece

    def _write(self, ctx, cycle: int, tile: int, port) -> None:
        enable, first = ctx.get(port.en), 4 * ctx.get(port.addr)
        if not enable:
            return
        raw = ctx.get(port.data).to_bytes(4 * port.signature.words, "little")
        touched = [k for k in range(len(raw)) if enable >> k & 1]
        self.writes.append((cycle - 1, tile, first + touched[0], len(touched)))
        for k in touched:
            self.memories[tile][first + k] = raw[k]


def random_send(rng: np.random.Generator, chip: ChipSpec, k: int) -> MicroOp:
    """From the lower half of a tile's memory to a place in the upper half that no other send has."""
    tiles = chip.grid.tiles
    tile = int(rng.integers(tiles))
    others = [other for other in range(tiles) if other != tile]
    chosen = rng.choice(others, int(rng.integers(1, tiles)), replace=False) if others else []
    rows, columns = int(rng.integers(1, 5)), 2 * int(rng.integers(1, 32))
    source, target = 2 * int(rng.integers(0, 1024)), 4096 + 256 * k + 2 * int(rng.integers(0, 4))
    return MicroOp(
        Op.SEND, tile=tile, a=source, s0=2 * int(rng.integers(0, 64)), dst=target, s1=columns + 2 * int(rng.integers(0, 2)) if columns < 60 else 62,
        rows=rows, columns=columns, s2=sum(1 << int(t) for t in chosen),
    )  # fmt: skip


def busy_slots(at: int, op: MicroOp, chip: ChipSpec) -> set[tuple[int, int, int]]:
    """(cycle, from, to) of links, and of the unit itself as a link from the tile to itself."""
    own = {(cycle, op.tile, op.tile) for cycle in range(at, at + occupancy(op, chip))}
    return own | {
        (at + cycle, use.source, use.target) for use in link_uses(op, chip) for cycle in range(use.start, use.end)
    }


def random_schedule(rng: np.random.Generator, chip: ChipSpec, sends: int) -> list[tuple[int, MicroOp]]:
    """Each as soon after a random cycle as unit and links allow."""
    plan, taken = [], set()
    for k in range(sends):
        op, at = random_send(rng, chip, k), int(rng.integers(1, 40))
        while busy_slots(at, op, chip) & taken:
            at += 1
        taken |= busy_slots(at, op, chip)
        plan.append((at, op))
    return plan


def copied(plan: list[tuple[int, MicroOp]], memories: list[bytearray]) -> list[bytearray]:
    """What the memories hold afterwards: sources and targets are apart, so the order is free."""
    after = [bytearray(memory) for memory in memories]
    for _, op in plan:
        for r in range(op.rows):
            piece = memories[op.tile][op.a + r * op.s0 : op.a + r * op.s0 + op.columns]
            for tile in range(len(memories)):
                if op.s2 >> tile & 1:
                    after[tile][op.dst + r * op.s1 : op.dst + r * op.s1 + op.columns] = piece
    return after


@pytest.mark.parametrize(("width", "hop_cycles"), [(16, 1), (4, 3), (32, 2)])
@pytest.mark.parametrize("grid", [name for name in SHAPES if name != "1x1"])
def test_sends_keep_to_their_cycles_and_links(grid: str, width: int, hop_cycles: int) -> None:
    rng = np.random.default_rng([width, hop_cycles, len(grid)])
    chip = chip_of(grid, width, hop_cycles)
    memories = [bytearray(rng.bytes(SIZE)) for _ in range(chip.grid.tiles)]
    plan = random_schedule(rng, chip, 12)
    wanted = copied(plan, memories)
    traffic = Traffic(chip, plan, memories)
    traffic.run(max(at + latency(op, chip) for at, op in plan) + 2)
    assert memories == wanted
    windows = [
        (at + mark.start, at + mark.end, mark.tile) for at, op in plan for mark in footprints(op, chip) if mark.write
    ]
    assert sorted((cycle, tile) for cycle, tile, _, _ in traffic.writes) == sorted(
        (cycle, tile) for start, end, tile in windows for cycle in range(start, end)
    )
    slots = [
        (at + cycle, use.source, use.target)
        for at, op in plan
        for use in link_uses(op, chip)
        for cycle in range(use.start, use.end)
    ]
    assert sorted(traffic.links) == sorted(slots)
    assert sorted(traffic.delivered) == sorted(
        (at + mark.end, mark.tile, op.tile) for at, op in plan for mark in footprints(op, chip) if mark.write
    )
    assert traffic.collisions == 0
    assert not traffic.active


def test_two_packets_on_one_link_are_reported() -> None:
    chip = chip_of("1x4")
    one = MicroOp(Op.SEND, tile=0, rows=1, columns=64, dst=4096, s2=0b0100)
    two = MicroOp(Op.SEND, tile=1, rows=1, columns=64, dst=5120, s2=0b0100)
    assert link_uses(one, chip)[1].target == link_uses(two, chip)[0].target == 2
    traffic = Traffic(chip, [(1, one), (3, two)], [bytearray(SIZE) for _ in range(4)])
    traffic.run(20)
    assert traffic.collisions == 3


@pytest.mark.parametrize("hop_cycles", [1, 2, 5])
@pytest.mark.parametrize("grid", ["1x1", "2x2"])
def test_an_external_send_goes_to_the_write_buffer(grid: str, hop_cycles: int) -> None:
    rng = np.random.default_rng(hop_cycles)
    chip = chip_of(grid, hop_cycles=hop_cycles, streamed=True)
    memories = [bytearray(rng.bytes(SIZE)) for _ in range(chip.grid.tiles)]
    op = MicroOp(Op.SEND, flags=Flag.EXTERNAL, a=6, s0=70, rows=3, columns=42)
    traffic = Traffic(chip, [(1, op)], memories)
    traffic.run(30)
    assert traffic.pieces == {0: b"".join(memories[0][6 + 70 * r : 48 + 70 * r] for r in range(3))}
    assert traffic.done == [(1 + latency(op, chip), 0)]
    assert not traffic.writes
    assert not traffic.active


@pytest.mark.parametrize("grid", SHAPES)
def test_links_take_the_packets_that_the_routes_say(grid: str) -> None:
    chip = chip_of(grid)
    here = chip.grid
    for source in range(here.tiles):
        for targets in range(1 << here.tiles):
            taken = {
                (tile, to)
                for tile in range(here.tiles)
                for to in neighbours(here, tile)[1]
                if beyond(here, source, tile, to) & targets
            }
            assert taken == {(hop.source, hop.target) for hop in route(here, source, targets)}


def test_a_tile_has_a_write_port_per_link() -> None:
    assert [deliveries(chip_of(grid)) for grid in SHAPES] == [0, 2, 2, 2, 3]
