"""Area of a chip by component, first order: units times their size, SRAM by macro density, interfaces by bandwidth."""

from tapeout.chip.spec import ChipSpec
from tapeout.silicon.cost import Cost, merge
from tapeout.silicon.technology import memory_kind, technology

MICRO_OP_BYTES = 64
ROUTER_PORTS = 5


def area_mm2(chip: ChipSpec) -> tuple[Cost, ...]:
    """Area by component in mm2, whitespace included. Raises `BadInput` on a kind of memory that is not priced."""
    filled = [*_logic(chip), *_memories(chip), *_interfaces(chip)]
    fill = technology().area["fill"]
    value, low, high = (sum(getattr(cost, name) for cost in filled) for name in ("value", "low", "high"))
    white = Cost(
        "whitespace",
        value * (1 / fill.value - 1),
        low * (1 / fill.high - 1),
        high * (1 / fill.low - 1),
        "mm2",
        fill.source,
    )
    return merge([*filled, white])


def sram_mm2(bytes_: float, chip: ChipSpec) -> float:
    """SRAM of so many bytes in banks like those of `chip`, whitespace not counted: what weights on chip would take."""
    return _sram("SRAM", bytes_ / 1024, chip, banked=True).value


def _logic(chip: ChipSpec) -> list[Cost]:
    tile, tiles = chip.tile, chip.grid.tiles
    macs = tiles * tile.matrix.rows * tile.matrix.lanes
    attention = tiles * tile.attention.keys * tile.attention.lanes
    share = technology().area["group_stage_share"]
    multipliers = _um2("matrix unit", "mac_int8", macs, chip)
    return [
        multipliers,
        Cost("group stage", multipliers.value * share.value, multipliers.low * share.low, multipliers.high * share.high, "mm2", share.source),
        _um2("vector unit", "vector_lane", tiles * tile.vector.lanes, chip),
        _um2("attention unit", "attention_mac", attention, chip),
        _um2("attention unit", "divider", tiles * tile.attention.dividers, chip),
        _um2("routers", "router_bit", tiles * ROUTER_PORTS * 8 * chip.link.bytes_per_cycle, chip),
        _um2("sequencer", "sequencer", tiles, chip),
    ]  # fmt: skip


def _um2(component: str, name: str, count: float, chip: ChipSpec) -> Cost:
    row, node = technology().area[name], technology().nodes[chip.node]
    scale = count * node.logic / 1e6
    return Cost(component, row.value * scale, row.low * scale, row.high * scale, "mm2", f"{row.unit}: {row.source}")


def _memories(chip: ChipSpec) -> list[Cost]:
    tile, tiles = chip.tile, chip.grid.tiles
    states = tile.attention.queries * 8 * (tile.attention.lanes + 3) / 1024
    return [
        _sram("SRAM", tiles * tile.sram.kib, chip, banked=True),
        _sram("stream buffers", tiles * tile.stream_kib, chip, banked=True),
        _sram("operand buffer", tiles * tile.matrix.operand_kib, chip),
        _sram("attention unit", tiles * states, chip),
        _sram("sequencer", tiles * tile.micro_ops * MICRO_OP_BYTES / 1024, chip),
    ]


def _sram(component: str, kib: float, chip: ChipSpec, banked: bool = False) -> Cost:
    density, share = technology().area["sram_mib_per_mm2"], technology().area["sram_bank_share"]
    mib = kib * 8 / 1024 * technology().nodes[chip.node].sram
    extra = (share.value, share.low, share.high) if banked else (0.0, 0.0, 0.0)
    return Cost(
        component, mib / density.value * (1 + extra[0]), mib / density.high * (1 + extra[1]), mib / density.low * (1 + extra[2]), "mm2",
        density.source,
    )  # fmt: skip


def _interfaces(chip: ChipSpec) -> list[Cost]:
    host = technology().area["host_per_gb_per_s"]
    rate = chip.host.gb_per_s
    costs = [Cost("host interface", rate * host.value, rate * host.low, rate * host.high, "mm2", host.source)]
    if chip.external:
        kind, rate = memory_kind(chip.external.kind), chip.external.gb_per_s
        sizes = rate * kind.mm2_per_gb_per_s, rate * kind.mm2_low, rate * kind.mm2_high
        costs.append(Cost("external PHY and controller", *sizes, "mm2", kind.source))
    return costs
