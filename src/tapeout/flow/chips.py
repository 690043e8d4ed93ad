"""The chips there are: list them, show one, start one of your own."""

from collections.abc import Callable
from pathlib import Path

from tapeout.base.errors import BadInput
from tapeout.base.files import atomic_write
from tapeout.chip.datasheet import Datasheet
from tapeout.chip.presets import load, load_chip, preset_names, preset_text
from tapeout.chip.spec import ChipSpec
from tapeout.flow.datasheets import catalogue_json, catalogue_table, datasheet_report, hierarchy_of, preset_drawing
from tapeout.flow.measure import COST_COLUMNS, cost_rows
from tapeout.flow.summary import Summary
from tapeout.report.figure import Figure, Origin, Report, Table
from tapeout.silicon.area import area_mm2

OWN = "# Figures that you change are yours: name them under own, for example own: [tdp_w]. Fields and marks: docs/catalogue.md.\n"


def chip_yaml(name: str) -> str:
    """The YAML of a chip or a datasheet, comments and all where it is a preset. Raises `BadInput`."""
    if not name:
        raise BadInput(
            "chip", "no name given", f"presets: {', '.join(preset_names())}; `tapeout chips` lists the catalogue"
        )
    if name in preset_names():
        return preset_text(name)
    chip = load(name)
    return (OWN if isinstance(chip, Datasheet) else "") + chip.to_yaml()


def list_chips() -> Summary:
    """The presets, which can be built and run; then the catalogue, which can be estimated."""
    chips = [load_chip(name) for name in preset_names()]
    rows = tuple(
        (chip.name, chip.grid.tiles, chip.macs_per_cycle, chip.clock_mhz, chip.weight_store.value) for chip in chips
    )
    columns = ("name", "tiles", "MACs/cycle", "MHz", "weights in")
    presets = [
        {"name": c.name, "kind": "preset", "tiles": c.grid.tiles, "macs_per_cycle": c.macs_per_cycle, "note": c.note}
        for c in chips
    ]
    tables = (Table("presets", columns, rows), catalogue_table())
    notes = tuple(f"{chip.name}: {chip.note}" for chip in chips)
    return Summary({"rows": presets + catalogue_json()}, Report("chips", (), tables, notes, ""))


def chip_report(name: str, hierarchy: Path | None, note: Callable[[str], None]) -> Summary:
    """One chip: its spec, rates and area; or a datasheet with its sources and doubts. Raises `BadInput`."""
    chip = load(name)
    if hierarchy:
        with atomic_write(hierarchy, "w") as file:
            file.write(hierarchy_of(chip))
        note(f"wrote {hierarchy}")
    return datasheet_report(chip) if isinstance(chip, Datasheet) else _spec_report(chip)


def _spec_report(chip: ChipSpec) -> Summary:
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
    notes = (chip.note,) if chip.note else ()
    return Summary(answer, Report(chip.name, shown, (table, preset_drawing(chip)), notes, chip.fingerprint()))
