"""A clock that stands still while nobody needs it. The parent makes the gated domain and drives its clock and reset with `clk` and `rst`."""

from collections.abc import Callable

from amaranth.hdl import ClockDomain, ClockSignal, DomainRenamer, EnableInserter, Module, ResetSignal, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class ClockGate(wiring.Component):
    """The clock of `domain` in every cycle that ends with `en` high, and while the domain is in reset; and a reset of its own, one cycle later.

    `en` is sampled at the falling edge, so the clock has no glitch and needs no latch; `en` has half a cycle to settle. An edge of `clk` is an
    edge of the
    domain's clock: data crosses in both directions as between registers of one domain. (A technology's own clock-gating cell does the same.)
    The reset is a register of the gated domain, so that its logic depends on nothing that changes while it stands still.
    Simulate it with Verilator: Amaranth's simulator lets a clock that passes through logic lag behind the registers.
    """

    en: In(1)
    clk: Out(1)
    rst: Out(1)

    def __init__(self, domain: str = "sync"):
        self.domain = domain
        super().__init__()

    def elaborate(self, platform):
        m = Module()
        m.domains.fall = fall = ClockDomain("fall", clk_edge="neg", reset_less=True, local=True)
        m.domains.gated = gated = ClockDomain("gated", reset_less=True, local=True)
        open_, outer, inner = (
            Signal(reset_less=True),
            ResetSignal(self.domain, allow_reset_less=True),
            Signal(init=1, reset_less=True),
        )
        m.d.fall += open_.eq(self.en | outer | inner)
        m.d.gated += inner.eq(outer)
        m.d.comb += [
            fall.clk.eq(ClockSignal(self.domain)), self.clk.eq(ClockSignal(self.domain) & open_), gated.clk.eq(self.clk), self.rst.eq(inner),
        ]  # fmt: skip
        return m


def wants(names: tuple[str, ...]) -> dict[str, wiring.Member]:
    """Members of a unit some of whose boxes have clocks of their own: `wants_<name>`, high in every cycle that must end with an edge of clock
    `name`."""
    return {f"wants_{name}": Out(1) for name in names}


def own_clock(
    m: Module, unit: wiring.Component, name: str, wanted: Value, gated: bool
) -> Callable[[wiring.Component], object]:
    """A clock for some of a unit's boxes, open while `wanted` is high: a function that puts a box on it. The domain `name` is made outside. Without
    `gated` the boxes stay on the unit's clock and get an enable, for Amaranth's simulator.
    """
    m.d.comb += getattr(unit, f"wants_{name}").eq(wanted)
    return DomainRenamer(name) if gated else EnableInserter(wanted)


class SelfClocked(wiring.Component):
    """A unit on its own, with the gates for its boxes' clocks: what the chip does for all tiles at once."""

    def __init__(self, unit: wiring.Component, names: tuple[str, ...]):
        self.unit, self.names = unit, names
        kept = {name: member for name, member in unit.signature.members.items() if not name.startswith("wants_")}
        super().__init__(kept)

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = self.unit
        wiring.connect(m, wiring.flipped(self), _Face(self.unit, self.signature))
        for name in self.names:
            domain = ClockDomain(name)
            m.domains += domain
            m.submodules[f"{name}_gate"] = gate = ClockGate()
            m.d.comb += [
                gate.en.eq(getattr(self.unit, f"wants_{name}")),
                domain.clk.eq(gate.clk),
                domain.rst.eq(gate.rst),
            ]
        return m


class _Face:
    """Some of a unit's members, as an interface of their own."""

    def __init__(self, unit: wiring.Component, signature: wiring.Signature):
        self.signature = signature
        for name in signature.members:
            setattr(self, name, getattr(unit, name))
