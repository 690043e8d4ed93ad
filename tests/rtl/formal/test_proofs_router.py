"""The routers of a grid: no two packets in one slot of a link, and every packet unchanged at every target after its hops, given the schedule.

The schedule's side is chip/routes.py: a packet that tile `s` gives to its router in cycle t takes a hop of its route in cycle t + depth*hop_cycles.
Given of a schedule: no two packets take one link in one cycle, and none goes to its own tile. What stands on the links is claimed of every slot of
every link, so that one step of induction is enough.
"""

from types import ModuleType

import pytest

pytest.importorskip("amaranth")

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data
from prove import Opened, anything, claim, constant, given, holds, lemma, mutant, proved

from chips import make_chip
from tapeout.chip.routes import Hop, route, tree
from tapeout.chip.spec import ChipSpec
from tapeout.rtl import router

pytestmark = pytest.mark.slow

SLOT = "A link carries the packet whose slot it is, unchanged, or nothing"
ARRIVES = "A packet's bytes are written where it says, and no others"
TOLD = "A target is told whose send ends"
ONE = "No two packets meet where the schedule has one per slot"
TWO = "Two packets that meet are reported"


def chip_of(columns: int, rows: int, topology: str, hop_cycles: int) -> ChipSpec:
    grid = {"grid__columns": str(columns), "grid__rows": str(rows), "grid__topology": topology}
    return make_chip("1x1", **grid, link__bytes_per_cycle="4", link__hop_cycles=str(hop_cycles))


class Schedule:
    """Any packets, and where each is by the routes: `given_to[s][k]` is what tile s gave to its router k cycles ago."""

    def __init__(self, m: Module, chip: ChipSpec):
        self.m, self.chip, self.layout = m, chip, router.flit_layout(chip)
        self.tiles, self.hop = range(chip.grid.tiles), chip.link.hop_cycles
        self.given_to = {s: self._history(s) for s in self.tiles}

    def _history(self, source: int) -> list[data.View]:
        m, first = self.m, anything(self.m, self.layout, f"packet{source}")
        given(m, ~first.valid | ~first.targets[source] & (first.source == source))
        depth = max((hop.depth for hop in tree(self.chip.grid, source)), default=0)
        past = [first]
        for k in range((depth + 1) * self.hop):
            past.append(Signal(self.layout, name=f"packet{source}_{k + 1}_ago"))
            m.d.sync += past[-1].eq(past[-2])
            lemma(
                m,
                "A packet that was given had targets",
                ~past[-1].valid | ~past[-1].targets[source] & (past[-1].source == source),
            )
        return past

    def users(self, here: int, there: int, ago: int) -> dict[int, tuple[data.View, Value]]:
        """Source -> its packet, and whether that took the link `ago` cycles ago."""
        found = {}
        for source in self.tiles:
            for hop in tree(self.chip.grid, source):
                if (hop.source, hop.target) == (here, there):
                    packet = self.given_to[source][hop.depth * self.hop + ago]
                    found[source] = (
                        packet,
                        packet.valid & Cat(packet.targets[t] for t in self.tiles if self._on(source, t, hop)).any(),
                    )
        return found

    def _on(self, source: int, tile: int, hop: Hop) -> bool:
        return tile != source and hop in route(self.chip.grid, source, 1 << tile)


def pairs(wants: list[Value]) -> Value:
    """Whether two are high."""
    both = [one & two for at, one in enumerate(wants) for two in wants[:at]]
    return Cat(both).any() if both else Cat(0).any()


def network(chip: ChipSpec, module: ModuleType = router):
    """All routers of a grid, wired as the chip wires them."""

    def build(m: Module) -> None:
        plan = Schedule(m, chip)
        routers = {tile: module.Router(chip, tile) for tile in plan.tiles}
        for tile, one in routers.items():
            body = Opened(one)
            m.submodules[f"router{tile}"] = body.module
            m.d.comb += one.local.eq(plan.given_to[tile][0])
            m.d.comb += [getattr(one, f"from{s}").eq(getattr(routers[s], f"to{tile}")) for s in one.sources]
            meet = {there: pairs([took for _, took in plan.users(tile, there, 0).values()]) for there in one.targets}
            claim(m, TWO, one.collision | ~Cat(meet.values()).any())
            claim(m, ONE, ~one.collision | Cat(meet.values()).any())
            for there in one.targets:
                for k in range(1, plan.hop + 1):
                    _slot(m, plan, (tile, there), k, body[f"link{there}_{k - 1}"])

    return build


def _slot(m: Module, plan: Schedule, link: tuple[int, int], ago: int, carried: data.View) -> None:
    """What was sent over a link `ago` cycles ago: one packet or none, if the schedule was kept."""
    users = plan.users(*link, ago)
    given(m, ~pairs([took for _, took in users.values()]))
    whole: Value = Cat(0)
    for packet, took in users.values():
        whole = Mux(took, packet.as_value(), whole)
    claim(m, SLOT, Value.cast(carried) == whole)


def delivery(chip: ChipSpec, module: ModuleType = router):
    """What a link brings, into the tile's SRAM: `byte` is any byte address of that."""

    def build(m: Module) -> None:
        one, byte, at, offset = module.Router(chip, 0), constant(m, 24, "byte"), Signal(3), Signal(24)
        m.submodules.router = Opened(one).module
        port, flit, first = one.deliver0, getattr(one, f"from{one.sources[0]}"), Signal(24)
        m.d.comb += Value.cast(flit).eq(anything(m, len(Value.cast(flit)), "packet"))
        m.d.comb += [first.eq(port.addr << 2), at.eq(byte - first), offset.eq(byte - flit.addr)]
        given(m, (flit.addr[0] == 0) & (flit.bytes <= 4) & (flit.addr < (1 << 24) - 8))
        mine = flit.valid & flit.targets[0]
        written = (byte >= first) & (byte - first < 8) & port.en.bit_select(at, 1)
        claim(m, ARRIVES, written == (mine & (byte >= flit.addr) & (offset < flit.bytes)))
        claim(m, ARRIVES, ~written | (port.data.word_select(at, 8) == flit.data.word_select(offset[:2], 8)))
        claim(m, TOLD, one.delivered0 == (mine & flit.last))
        claim(m, TOLD, ~one.delivered0 | (one.delivered_source0 == flit.source))

    return build


@pytest.mark.parametrize(
    ("columns", "rows", "topology", "hop_cycles"),
    [(3, 1, "ring", 2), (4, 1, "ring", 1), (2, 2, "mesh", 2), (3, 2, "mesh", 1)],
)
def test_no_two_packets_are_in_one_slot_and_each_arrives_unchanged(
    columns: int, rows: int, topology: str, hop_cycles: int, tmp_path
) -> None:
    """By induction: for ever, for any packets that keep to a schedule."""
    assert (verdict := proved(network(chip_of(columns, rows, topology, hop_cycles)), tmp_path)), verdict


def test_a_packet_is_written_at_its_target_byte_by_byte(tmp_path) -> None:
    """Without a register between: for every packet and every byte of the SRAM."""
    assert (verdict := holds(delivery(chip_of(2, 2, "mesh", 1)), tmp_path, 1)), verdict


@pytest.mark.parametrize(
    ("build", "old", "new", "failed"),
    [
        (network, "(flit.targets & mask).any()", "flit.targets.any()", SLOT),
        (network, "fold(flits, lambda a, b: a | b)", "flits[0]", SLOT),
        (network, "two in wants[:at]", "two in wants[:0]", TWO),
        (delivery, "flit.data.shift_left(16)", "flit.data", ARRIVES),
        (delivery, "(flit.bytes > byte) & here", "here", ARRIVES),
        (delivery, "here & flit.last", "flit.last", TOLD),
    ],
)
def test_a_broken_router_is_refuted(build, old: str, new: str, failed: str, tmp_path) -> None:
    verdict = holds(build(chip_of(2, 2, "mesh", 1), mutant(router, (old, new))), tmp_path, 3)
    assert verdict.refutes(failed), verdict
