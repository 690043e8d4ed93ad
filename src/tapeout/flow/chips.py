"""The chips there are: list them, show one, start one of your own."""

from tapeout.base.errors import BadInput
from tapeout.chip.presets import load_chip, preset_names, preset_text
from tapeout.flow.measure import COST_COLUMNS, cost_rows
from tapeout.flow.summary import Summary
from tapeout.report.figure import Figure, Origin, Report, Table
from tapeout.silicon.area import area_mm2


def chip_yaml(name: str) -> str:
    """The YAML of a chip, comments and all where it is a preset. Raises `BadInput`."""
    if not name:
        raise BadInput("chip", "no name given", f"presets: {', '.join(preset_names())}")
    return preset_text(name) if name in preset_names() else load_chip(name).to_yaml()


def list_chips() -> Summary:
    """The presets."""
    chips = [load_chip(name) for name in preset_names()]
    rows = tuple(
        (chip.name, chip.grid.tiles, chip.macs_per_cycle, chip.clock_mhz, chip.weight_store.value, chip.note)
        for chip in chips
    )
    columns = ("name", "tiles", "MACs/cycle", "MHz", "weights in", "for")
    answer = {
        "rows": [
            {"name": c.name, "tiles": c.grid.tiles, "macs_per_cycle": c.macs_per_cycle, "note": c.note} for c in chips
        ]
    }
    return Summary(answer, Report("chips", (), (Table("presets", columns, rows),), (), ""))


def chip_report(name: str) -> Summary:
    """One chip: its spec, rates and area. Raises `BadInput`."""
    chip = load_chip(name)
    area = area_mm2(chip)
    total = sum(cost.value for cost in area)
    spread = sum(cost.low for cost in area), sum(cost.high for cost in area)
    tops = 2 * chip.macs_per_cycle * chip.clock_mhz * 1e6 / 1e12
    shown = (
        Figure("area_mm2", total, "mm2", Origin.MODELLED, spread[0], spread[1], chip.node),
        Figure("int8_tops", tops, "TOPS", Origin.MODELLED, note="all matrix units, every cycle"),
        Figure(
            "sram_mib", chip.grid.tiles * (chip.tile.sram.kib + chip.tile.stream_kib) / 1024, "MiB", Origin.MODELLED
        ),
    )
    table = Table("area by component", COST_COLUMNS, cost_rows(area, 1.0, "mm2"))
    answer = {
        "chip": chip.name, "spec": chip.model_dump(mode="json", exclude_none=True), "figures": {f.name: f.to_json() for f in shown},
        "fingerprint": chip.fingerprint(),
    }  # fmt: skip
    return Summary(answer, Report(chip.name, shown, (table,), (chip.note,) if chip.note else (), chip.fingerprint()))
