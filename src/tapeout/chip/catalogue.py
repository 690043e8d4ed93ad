"""The catalogue: a `Datasheet` of every chip and system that we know, by name; and what one chip of a system is."""

import re
from difflib import get_close_matches
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from tapeout.base.errors import BadInput
from tapeout.base.reading import Loader, parse_yaml, read_text
from tapeout.chip.datasheet import COMPUTE, Datasheet, Fact, FactOrigin

ROUNDING = 0.05
"""A system's total that is this near to its chips' own figure says the same."""
SHARES = {
    "offchip_gb": ("offchip_gb", 1), "offchip_tb_per_s": ("offchip_tb_per_s", 1), "sram_gb_total": ("sram_mb", 1000),
    "sram_pb_per_s": ("sram_tb_per_s", 1000), "int8_tops_total": ("int8_tops", 1), "fp8_tflops_total": ("fp8_tflops", 1),
    "bfp8_tflops_total": ("bfp8_tflops", 1),
}  # fmt: skip
"""A system's total -> the figure of one of its chips, and how many of its units one of the total's is."""


@cache
def datasheets() -> dict[str, Datasheet]:
    """Every datasheet by its id, read once: data/catalogue, file by file."""
    sheets: dict[str, Datasheet] = {}
    folder = resources.files("tapeout") / "data" / "catalogue"
    for file in sorted(folder.iterdir(), key=lambda item: item.name):
        for name, fields in yaml.load(file.read_text(encoding="utf-8"), Loader=Loader).items():
            assert name not in sheets, f"{file.name}: {name} is there twice"
            sheets[name] = Datasheet.from_data({"id": name} | fields, name)
    return sheets


def names() -> tuple[str, ...]:
    """The ids, in the order of the files."""
    return tuple(datasheets())


@cache
def aliases() -> dict[str, str]:
    """Other names -> ids."""
    found: dict[str, str] = {}
    for sheet in datasheets().values():
        for alias in sheet.aliases:
            assert alias not in {*found, *datasheets()}, f"{alias} is the name of two chips"
            found[alias] = sheet.id
    return found


def find(name: str) -> Datasheet | None:
    """A datasheet by id or alias, however it is spelled: `H100`, `MI300X`, `Groq LPU`. None where there is none."""
    plain = _plain(name)
    return datasheets().get(aliases().get(plain, plain))


def _plain(name: str) -> str:
    return re.sub(r"[ .-]+", "_", name.strip().lower())


def datasheet(name: str) -> Datasheet:
    """A datasheet by id or alias. Raises `BadInput` with the nearest names."""
    sheet = find(name)
    if sheet is None:
        raise unknown(name)
    return sheet


def unknown(name: str, others: tuple[str, ...] = (), where: str = "chip") -> BadInput:
    """The complaint about a name that is neither in the catalogue nor one of `others`: with the nearest names."""
    close = nearest(name, others)
    hint = f"nearest: {', '.join(close)}" if close else "nothing is near; `tapeout chips` lists them"
    return BadInput(where, f"{name!r} is no chip", f"{hint}; or give a YAML file")


def nearest(name: str, others: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Up to five names of the catalogue, or of `others`, that `name` may have meant, best first."""
    plain = _plain(name)
    words = [*others, *names(), *aliases()]
    close = get_close_matches(plain, words, 8, 0.5)
    inside = [word for word in words if len(plain) > 2 and plain in word]
    return tuple(dict.fromkeys(aliases().get(word, word) for word in (*inside, *close)))[:5]


def load_datasheet(name: str | Path) -> Datasheet:
    """A datasheet by id, alias, or from a YAML or JSON file of one's own. Raises `BadInput`."""
    if isinstance(name, Path) or name.endswith((".yaml", ".yml", ".json")) or "/" in name:
        sheet = Datasheet.from_file(Path(name))
        if sheet.base_chip and find(sheet.base_chip) is None:
            raise unknown(sheet.base_chip, where=f"{Path(name).name}.base_chip")
        return sheet
    return datasheet(name)


def is_datasheet(path: Path) -> bool:
    """Whether a file says that it is a datasheet (`kind: datasheet`), or names a vendor, which no `ChipSpec` does."""
    try:
        data = parse_yaml(read_text(path), path.name)
    except BadInput:  # `from_file` will say so
        return False
    return isinstance(data, dict) and ("kind" in data or "vendor" in data)


def one_chip(sheet: Datasheet) -> Datasheet:
    """One of the chips of a system: the base chip, with the system's totals shared out where they say something else.

    A datasheet of one chip is its own answer. Raises `BadInput` where the base chip is unknown.
    """
    if not sheet.is_system or sheet.base_chip is None:
        return sheet
    base = datasheet(sheet.base_chip)
    shares = dict(_shares(sheet, base))
    lead = next((shares[name] for name in shares if name in COMPUTE and base.value(name)), None)
    if lead:
        for name, value in ((name, base.value(name)) for name in COMPUTE if name not in shares):
            by = (value or 0) / (base.value(lead.name) or 1)
            shares |= {name: _scaled(lead, name, by, f"in proportion to {lead.why}")} if by else {}
    return _with_facts(base, shares, sheet)


def _shares(sheet: Datasheet, base: Datasheet) -> list[tuple[str, Fact]]:
    """The figures of one chip that follow from the system's totals, where they differ from the base chip's by more than rounding."""
    assert sheet.chips, f"{sheet.id} has no chips"
    found = []
    for total, (name, factor) in SHARES.items():
        fact, known = sheet.fact(total), base.fact(name)
        if fact is None or (
            known and abs(fact.value * factor - known.value * sheet.chips) <= ROUNDING * known.value * sheet.chips
        ):
            continue
        found.append((name, _scaled(fact, name, factor / sheet.chips, f"{total} of {sheet.id} / {sheet.chips}")))
    return found


def _scaled(fact: Fact, name: str, by: float, why: str) -> Fact:
    return Fact(name, fact.value * by, fact.unit, fact.origin, fact.low * by, fact.high * by, why, fact.sources)


def _with_facts(base: Datasheet, facts: dict[str, Fact], system: Datasheet) -> Datasheet:
    """`base` with some figures replaced, each with its mark and its range."""
    data: dict[str, Any] = base.model_dump(mode="json", exclude_none=True) | {"aliases": []}
    recall = list(data["recall"])
    for name, fact in facts.items():
        data["assumed"].pop(name, None)
        data["ranges"].pop(name, None)
        recall.append(name if fact.origin is FactOrigin.RECALL else f"not {name}")
        if fact.origin is FactOrigin.ASSUMED:
            data["assumed"][name] = {"value": fact.value, "low": fact.low, "high": fact.high, "why": fact.why}
            data.pop(name, None)
        else:
            data[name] = fact.value
            data["ranges"][name] = {"low": fact.low, "high": fact.high, "why": fact.why}
    data |= {"recall": recall, "sources": list(dict.fromkeys([*base.sources, *system.sources]))}
    return Datasheet.from_data(data, f"one chip of {system.id}")
