"""A tile's router: packets along the static trees of chip/routes.py. No headers beyond source and targets, no arbitration, no back pressure.

Which links a flit takes is a fixed function of (source, targets): `takes`. The compiler sees to it that two never want one link in one cycle; where
they do, `collision` is high and what goes on is worth nothing.
"""

from functools import cache
from itertools import pairwise

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tapeout.chip.routes import Hop, links, route, tree
from tapeout.chip.spec import ChipSpec, Grid
from tapeout.rtl.ports import ADDRESS_BITS, WritePort
from tapeout.rtl.tree import fold


def source_bits(grid: Grid) -> int:
    """Bits of a tile's number."""
    return max(1, (grid.tiles - 1).bit_length())


def flit_layout(chip: ChipSpec) -> data.StructLayout:
    """What a link carries in a cycle: up to LB bytes of a send from tile `source` for byte address `addr` (even) in every tile of `targets`."""
    width = chip.link.bytes_per_cycle
    return data.StructLayout(
        {
            "valid": 1, "source": source_bits(chip.grid), "targets": chip.grid.tiles, "last": 1, "bytes": range(width + 1), "addr": ADDRESS_BITS,
            "data": 8 * width,
        }
    )  # fmt: skip


@cache
def neighbours(grid: Grid, tile: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(tiles with a link to `tile`, tiles that `tile` has a link to)."""
    pairs = links(grid.columns, grid.rows, grid.topology)
    return tuple(a for a, b in pairs if b == tile), tuple(b for a, b in pairs if a == tile)


def deliveries(chip: ChipSpec) -> int:
    """Links into a tile, of the tile that has the most: so many write ports has every tile's SRAM for them."""
    return max(len(neighbours(chip.grid, tile)[0]) for tile in range(chip.grid.tiles))


@cache
def beyond(grid: Grid, source: int, here: int, there: int) -> int:
    """Bit mask of the tiles that packets from `source` reach by the link here -> there; 0 where its tree has no such link."""
    if all((hop.source, hop.target) != (here, there) for hop in tree(grid, source)):
        return 0
    reached = [
        tile for tile in range(grid.tiles) if any(_is(hop, here, there) for hop in route(grid, source, 1 << tile))
    ]
    return sum(1 << tile for tile in reached)


def _is(hop: Hop, here: int, there: int) -> bool:
    return (hop.source, hop.target) == (here, there)


def takes(grid: Grid, sources: tuple[int, ...], here: int, there: int, flit: data.View) -> Value:
    """Whether a flit goes from `here` on to `there`, given that it comes from one of `sources`."""
    masks = {source: beyond(grid, source, here, there) for source in sources}
    wanted = [(flit.source == source) & (flit.targets & mask).any() for source, mask in masks.items() if mask]
    return flit.valid & Cat(wanted).any() if wanted else Const(0)


class Router(wiring.Component):
    """`local` is the tile's own flit (its source is filled in here), `from<tile>` and `to<tile>` are the links. A flit that stands at an input in
    cycle x stands at the neighbour's in cycle x + hop_cycles; those registers are here, at the sender.

    `deliver<k>` writes what link k (of `sources`) brings for this tile, in the cycle in which it stands there; `delivered<k>` is high with the last
    flit of a send, and `delivered_source<k>` tells whose. `active`: something is on the way out.
    """

    def __init__(self, chip: ChipSpec, number: int):
        self.chip, self.number = chip, number
        self.sources, self.targets = neighbours(chip.grid, number)
        flit, words = flit_layout(chip), chip.link.bytes_per_cycle // 4 + 1
        members = {"local": In(flit), "collision": Out(1), "active": Out(1)}
        members |= {f"from{tile}": In(flit) for tile in self.sources} | {
            f"to{tile}": Out(flit) for tile in self.targets
        }
        for k in range(len(self.sources)):
            members |= {
                f"deliver{k}": Out(WritePort(words)),
                f"delivered{k}": Out(1),
                f"delivered_source{k}": Out(source_bits(chip.grid)),
            }
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        own = Signal(self.local.shape())
        m.d.comb += [own.eq(self.local), own.source.eq(self.number)]
        inputs = {self.number: own} | {tile: getattr(self, f"from{tile}") for tile in self.sources}
        met, busy = (
            zip(*[self._link(m, there, inputs) for there in self.targets], strict=True) if self.targets else ((), ())
        )
        for k, tile in enumerate(self.sources):
            self._deliver(m, k, inputs[tile])
        m.d.comb += [self.collision.eq(Cat(met).any()), self.active.eq(Cat(busy).any())]
        return m

    def _link(self, m: Module, there: int, inputs: dict[int, data.View]) -> tuple[Value, Value]:
        """One link out. Returns whether two flits want it, and whether its registers hold one."""
        grid, here = self.chip.grid, self.number
        wants, flits = [], []
        for before, flit in inputs.items():
            sources = tuple(
                s
                for s in range(grid.tiles)
                if (s == here if before == here else beyond(grid, s, before, here) and s != here)
            )
            want = Signal(name=f"want{there}_from{before}")
            m.d.comb += want.eq(takes(grid, sources, here, there, flit))
            wants.append(want)
            flits.append(Mux(want, flit.as_value(), 0))
        stages = [Signal(self.local.shape(), name=f"link{there}_{k}") for k in range(self.chip.link.hop_cycles)]
        m.d.sync += stages[0].eq(fold(flits, lambda a, b: a | b))
        for one, two in pairwise(stages):
            m.d.sync += two.eq(one)
        m.d.comb += getattr(self, f"to{there}").eq(stages[-1])
        pairs = [one & two for at, one in enumerate(wants) for two in wants[:at]]
        return Cat(pairs).any(), Cat(stage.valid for stage in stages).any()

    def _deliver(self, m: Module, k: int, flit: data.View) -> None:
        port, width = getattr(self, f"deliver{k}"), self.chip.link.bytes_per_cycle
        here, upper = Signal(name=f"here{k}"), flit.addr[1]
        kept = Cat((flit.bytes > byte) & here for byte in range(width))
        m.d.comb += [
            here.eq(flit.valid & flit.targets[self.number]), port.addr.eq(flit.addr[2:]),
            port.data.eq(Mux(upper, flit.data.shift_left(16), flit.data)),
            port.en.eq(Mux(upper, kept.shift_left(2), kept)),
            getattr(self, f"delivered{k}").eq(here & flit.last), getattr(self, f"delivered_source{k}").eq(flit.source),
        ]  # fmt: skip
