"""A datasheet for people and scripts: every figure with its mark, the doubts, the sources, the memory hierarchy."""

import re
from dataclasses import replace
from typing import Any

from tapeout.chip.catalogue import datasheets, one_chip
from tapeout.chip.datasheet import MEMORIES, Datasheet, Fact, FactOrigin
from tapeout.chip.spec import ChipSpec
from tapeout.flow.summary import Summary
from tapeout.report.figure import Figure, Origin, Report, Table, number
from tapeout.report.hierarchy import Level, hierarchy_lines, hierarchy_svg

UNCHECKED = "from memory, unchecked"
WORDS = {FactOrigin.RECALL: UNCHECKED, FactOrigin.ASSUMED: "assumed", FactOrigin.OWN: "your own"}
MARKS = {FactOrigin.RECALL: "~", FactOrigin.ASSUMED: "?"}
LARGER = {"MB": "GB", "GB": "TB", "TB/s": "PB/s", "W": "kW"}
WATTS = ("tdp_w", "typical_w", "board_tdp_w")
PCIE_GB_PER_S = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}
"""A lane, one way, by generation."""
TEXTS = (
    "vendor", "status", "process", "microarchitecture", "matrix_unit", "noc", "number_format", "execution_model", "weight_storage", "weight_bits",
    "host_interface", "topology", "system", "cooling",
)  # fmt: skip
COLUMNS = ("figure", "value", "unit", "range", "origin")


def datasheet_report(sheet: Datasheet) -> Summary:
    """One datasheet: figures, doubts, sources, and the drawing of its memory hierarchy."""
    figures = tuple(_figure(fact) for fact in sheet.facts())
    shown = tuple(replace(figure, note="") if figure.note == UNCHECKED else figure for figure in figures)
    chip = one_chip(sheet)
    tables = [] if chip is sheet else [_chip_table(chip)]
    drawing = _drawing("memory hierarchy" + ("" if chip is sheet else " of one chip"), levels(sheet))
    answer = {
        "chip": sheet.id, "kind": sheet.kind, "spec": sheet.to_data(), "figures": {f.name: f.to_json() for f in figures},
        "sources": list(sheet.sources), "doubts": list(doubts(sheet)), "unpublished": list(sheet.unpublished), "fingerprint": sheet.fingerprint(),
    }  # fmt: skip
    if chip is not sheet:
        answer["one_chip"] = {fact.name: _figure(fact).to_json() for fact in chip.facts()}
    notes = (
        *about(sheet),
        *(f"doubt: {text}" for text in doubts(sheet)),
        *(f"source: {text}" for text in sheet.sources),
    )
    return Summary(answer, Report(f"{sheet.id}: {sheet.name}", shown, (*tables, drawing), notes, sheet.fingerprint()))


def about(sheet: Datasheet) -> tuple[str, ...]:
    """What the chip is, a line per field; what is from memory says so."""
    lines = [(name, getattr(sheet, name)) for name in TEXTS]
    lines += [(name, getattr(sheet, name)) for name in type(sheet).model_fields if name.endswith(("_note", "_detail"))]
    return tuple(
        f"{name.replace('_', ' ')}: {text}" + (f" ({UNCHECKED})" if sheet.origin(name) is FactOrigin.RECALL else "")
        for name, text in lines
        if text
    )


def doubts(sheet: Datasheet) -> tuple[str, ...]:
    """What may be wrong: how far to trust the row, what nobody published, and the notes."""
    texts = [f"confidence of the row: {sheet.confidence}"] if sheet.confidence else []
    if sheet.unpublished:
        texts.append(f"never published, so that estimate refuses: {', '.join(sheet.unpublished)}")
    recalled = sum(fact.origin is FactOrigin.RECALL for fact in sheet.facts())
    if recalled:
        texts.append(f"recall: {recalled} of {len(sheet.facts())} figures are {UNCHECKED}")
    return (*texts, sheet.notes) if sheet.notes else tuple(texts)


def levels(sheet: Datasheet) -> tuple[Level, ...]:
    """The memory hierarchy of one chip, from the multipliers outwards."""
    chip = one_chip(sheet)
    found = [Level("compute", "compute", _peaks(chip), sure=_sure(*chip.peaks().values()))]
    weights = chip.fact("weights_on_chip_m")
    if weights:
        found.append(
            Level("on chip", "weights in place", f"{_words(weights)} weights", None, None, "multiplied where they lie")
        )
    on_l2 = bool(chip.fact("l2_tb_per_s")) and not chip.fact("sram_tb_per_s")
    found.append(
        _memory(
            chip, "on chip", "SRAM", "sram_mb", "l2_tb_per_s" if on_l2 else "sram_tb_per_s", ", of L2" if on_l2 else ""
        )
    )
    if chip.value("offchip_gb") or chip.value("offchip_tb_per_s") or not chip.fact("offchip_gb"):
        kind = re.split(r" *[(,+]", chip.offchip_type or "external memory")[0]
        kind = "outside" if kind.startswith("none") else kind
        found.append(_memory(chip, "external", kind, "offchip_gb", "offchip_tb_per_s"))
    if chip.fact("ddr_gb"):
        found.append(_memory(chip, "external", "DDR", "ddr_gb", "ddr_tb_per_s"))
    rate, links = chip.fact("c2c_gb_per_s_bidir"), chip.value("c2c_links")
    if rate and rate.value:
        words = f"{_words(rate)} both ways" + (f", {links:.0f} links" if links else "")
        others = f"{sheet.chips - 1} others" if sheet.chips else ""
        found.append(Level("links", "other chips", others, None, rate.value * 1e9, words, _sure(rate)))
    if chip.host_interface:
        per_s = host_gb_per_s(chip.host_interface)
        words = f"{number(per_s)} GB/s each way" if per_s else "rate not published"
        found.append(Level("host", "host", chip.host_interface, None, per_s * 1e9 if per_s else None, words))
    return tuple(found)


def preset_levels(chip: ChipSpec) -> tuple[Level, ...]:
    """The memory hierarchy of a chip that can be built."""
    hertz, weights = chip.clock_mhz * 1e6, float(chip.macs_per_cycle)
    sram = chip.grid.tiles * (chip.tile.sram.kib + chip.tile.stream_kib) / 1024
    found = [
        Level("compute", "compute", f"int8 {number(2 * weights * hertz / 1e12)} TOPS"),
        Level(
            "on chip", "SRAM", f"{number(sram)} MiB", sram * 2**20, weights * hertz,
            f"{_per_s(weights * hertz)}, an int8 weight per multiplier",
        ),
    ]  # fmt: skip
    if chip.external:
        rate, size = chip.external.gb_per_s * 1e9, chip.external.capacity_gib
        found.append(Level("external", chip.external.kind, f"{number(size)} GiB", size * 2**30, rate, _per_s(rate)))
    rate = chip.host.gb_per_s * 1e9
    return (*found, Level("host", "host", chip.host.kind, None, rate, f"{_per_s(rate)} each way"))


def hierarchy_of(chip: Datasheet | ChipSpec) -> str:
    """The drawing as SVG."""
    if isinstance(chip, ChipSpec):
        return hierarchy_svg(f"{chip.name}: memory hierarchy", chip.note, preset_levels(chip))
    of = f"one of its {chip.chips} chips, " if chip.is_system else ""
    return hierarchy_svg(f"{chip.name}: memory hierarchy", f"{of}{chip.vendor}; ~ {UNCHECKED}, ? assumed", levels(chip))


def preset_drawing(chip: ChipSpec) -> Table:
    """The drawing of a chip that can be built, as text."""
    return _drawing("memory hierarchy", preset_levels(chip))


def catalogue_table() -> Table:
    """A row per datasheet, by family; ~ from memory, ? assumed."""
    rows, before = [], ""
    for sheet in sorted(datasheets().values(), key=lambda sheet: sheet.family):
        if sheet.family != before:
            rows.append((sheet.family, *[""] * 4))
        chip, before = one_chip(sheet), sheet.family
        peak = next(iter(_by_width(chip)), None)
        store = next((pair for pair in MEMORIES if all(chip.value(name) for name in pair)), MEMORIES[0])
        power = sheet.fact("system_power_kw") if sheet.is_system else None
        power = power or next((f for f in map(chip.fact, WATTS) if f), None)
        name = f"  {sheet.id}" + (f" x{sheet.chips}" if sheet.is_system else "")
        cells = (_short(fact) for fact in (*map(chip.fact, store), power))
        rows.append((name, f"{peak[0]} {_short(peak[1])}" if peak else "-", *cells))
    return Table(
        "catalogue, figures of one chip: ~ from memory, ? assumed",
        ("name", "TOPS", "memory", "rate", "power"),
        tuple(rows),
    )


def catalogue_json() -> list[dict[str, Any]]:
    """A row per datasheet, with its sources."""
    return [
        {
            "name": sheet.id, "kind": sheet.kind, "family": sheet.family, "vendor": sheet.vendor, "title": sheet.name, "status": sheet.status,
            "aliases": list(sheet.aliases), "figures": {fact.name: _figure(fact).to_json() for fact in sheet.facts()},
            "unpublished": list(sheet.unpublished), "sources": list(sheet.sources),
        }
        for sheet in datasheets().values()
    ]  # fmt: skip


def host_gb_per_s(interface: str) -> float | None:
    """What a PCIe interface carries one way; None where the words do not say."""
    found = re.search(r"PCIe (\d)\.\d x(\d+)", interface)
    return PCIE_GB_PER_S[int(found[1])] * int(found[2]) if found else None


def _figure(fact: Fact) -> Figure:
    note = fact.why or (UNCHECKED if fact.origin is FactOrigin.RECALL else "")
    span = (fact.low, fact.high) if fact.spread else (None, None)
    return Figure(fact.name, fact.value, fact.unit, Origin(fact.origin.value), *span, note)


def _chip_table(chip: Datasheet) -> Table:
    rows = tuple(
        (f.name, f.value, f.unit, f"{number(f.low)} to {number(f.high)}" if f.spread else "", f.origin.value)
        for f in chip.facts()
    )
    return Table(f"each of its chips: {chip.id}", COLUMNS, rows)


def _memory(chip: Datasheet, kind: str, name: str, size_name: str, rate_name: str, of: str = "") -> Level:
    size, rate = chip.fact(size_name), chip.fact(rate_name)
    words = _words(rate) + of if rate else "rate not published"
    holds = _words(size) if size else "size not published"
    capacity = size.value * (1e6 if size.unit == "MB" else 1e9) if size else None
    return Level(kind, name, holds, capacity, rate.value * 1e12 if rate else None, words, _sure(rate))


def _by_width(chip: Datasheet) -> list[tuple[str, Fact]]:
    """Peaks, eight bits first."""
    return sorted(chip.peaks().items(), key=lambda item: ("8" not in item[0], item[0] == "int8", item[0]))


def _peaks(chip: Datasheet) -> str:
    peaks = [f"{form} {_short(fact)}" for form, fact in _by_width(chip)[:3]]
    return ", ".join(peaks) + " TOPS" if peaks else "not published"


def _words(fact: Fact) -> str:
    span = f" ({number(fact.low)} to {number(fact.high)})" if fact.spread else ""
    return f"{number(fact.value)} {fact.unit}{MARKS.get(fact.origin, '')}{span}"


def _short(fact: Fact | None) -> str:
    if fact is None:
        return "-"
    value, unit = fact.value, "" if fact.unit in ("TOPS", "TFLOPS") else fact.unit
    if value >= 1000 and unit in LARGER:
        value, unit = value / 1000, LARGER[unit]
    elif value < 1 and unit == "TB/s":
        value, unit = value * 1000, "GB/s"
    return f"{number(value)} {unit}".rstrip() + MARKS.get(fact.origin, "")


def _per_s(rate: float) -> str:
    return f"{number(rate / 1e12)} TB/s" if rate >= 1e12 else f"{number(rate / 1e9)} GB/s"


def _sure(*facts: Fact | None) -> bool:
    return all(fact is None or fact.origin in (FactOrigin.CITED, FactOrigin.OWN) for fact in facts)


def _drawing(title: str, found: tuple[Level, ...]) -> Table:
    first, *rest = hierarchy_lines(found)
    return Table(title, (first,), tuple((line,) for line in rest))
