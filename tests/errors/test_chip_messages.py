"""What a person reads when a chip is not what can be built: the exact line for each.

Where a whole part is at fault, what came (the part as a mapping) is left out of the line before it is compared.
"""

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from chips import make_chip
from tapeout.base.errors import BadInput
from tapeout.chip.presets import load_chip
from tapeout.chip.spec import ChipSpec
from tapeout.numerics.formats import FORMATS

DATA = make_chip("2x2", streamed=True).model_dump(mode="json", exclude_none=True)
TOP = "name, note, node, clock_mhz, grid, tile, link, external, weight_store, host"
TILE = "matrix, vector, attention, sram, stream_kib, micro_ops"
MEMORY = "kind, gb_per_s, latency_ns, refresh_interval_ns, refresh_ns, capacity_gib, beat_bytes, write_buffer_kib"
GONE = object()


def changed(fields: dict[str, Any]) -> dict[str, Any]:
    data = copy.deepcopy(DATA)
    for path, value in fields.items():
        *parents, last = path.split(".")
        node = data
        for key in parents:
            node = node[key]
        if value is GONE:
            del node[last]
        else:
            node[last] = value
    return data


LINES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown field": ({"colour": "red"}, f"chip.colour: unknown field; known here: {TOP}"),
    "unknown field inside": ({"tile.mac": 1}, f"chip.tile.mac: unknown field; known here: {TILE}"),
    "missing": ({"tile": GONE}, "chip.tile: is missing"),
    "rows": ({"tile.matrix.rows": 12}, "chip.tile.matrix.rows: 12: input should be 4, 8, 16 or 32"),
    "lanes": ({"tile.matrix.lanes": "x"}, "chip.tile.matrix.lanes: 'x': input should be 8, 16 or 32"),
    "tokens": ({"tile.matrix.tokens": 65}, "chip.tile.matrix.tokens: 65: input should be less than or equal to 64"),
    "format": (
        {"tile.matrix.formats": ["int8", "fp8"]},
        "chip.tile.matrix.formats: ['int8', 'fp8']: 'fp8' is not one of " + ", ".join(FORMATS),
    ),
    "link": (
        {"link.bytes_per_cycle": 5}, "chip.link.bytes_per_cycle: 5: input should be 4, 8, 16, 32, 64 or 128",
    ),
    "clock stopped": ({"clock_mhz": 0}, "chip.clock_mhz: 0: input should be greater than 0"),
    "clock too fast": ({"clock_mhz": 6000}, "chip.clock_mhz: 6000: input should be less than or equal to 5000"),
    "not a number": (
        {"external.gb_per_s": float("nan")}, "chip.external.gb_per_s: nan: input should be a finite number",
    ),
    "node": ({"node": "6nm"}, "chip.node: '6nm': input should be '45nm', '28nm', '16nm', '7nm' or '5nm'"),
    "name": (
        {"name": "a chip"}, "chip.name: 'a chip': string should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]*$'",
    ),
    "column too many": ({"grid.columns": 9}, "chip.grid.columns: 9: input should be less than or equal to 8"),
    "mesh too big": (
        {"grid.columns": 8, "grid.rows": 8}, "chip.grid: 8 x 8 is 64 tiles; at most 32 can be built",
    ),
    "ring with rows": ({"grid.topology": "ring"}, "chip.grid: a ring has 1 row, not 2"),
    "topology": ({"grid.topology": "tree"}, "chip.grid.topology: 'tree': input should be 'mesh' or 'ring'"),
    "banks": (
        {"tile.sram.banks": 3}, "chip.tile.sram: 1024 KiB do not divide into 3 banks of whole 64-byte lines",
    ),
    "refresh": (
        {"external.refresh_ns": 1000}, "chip.external: a refresh of 1000.0 ns every 900.0 ns leaves no time",
    ),
    "no stream buffer": (
        {"tile.stream_kib": 0},
        "chip: tile.stream_kib is 0, but external memory needs a stream buffer in every tile; use 16 or more",
    ),
    "nothing to stream from": (
        {"external": GONE, "weight_store": "sram"},
        "chip: tile.stream_kib is 64, but there is no external memory to stream from",
    ),
    "no external memory": (
        {"external": GONE, "tile.stream_kib": 0},
        "chip: weight_store is external, but there is no external memory; describe it under external",
    ),
    "weight store": ({"weight_store": "rom"}, "chip.weight_store: 'rom': input should be 'sram' or 'external'"),
}  # fmt: skip


def without_part(message: str) -> str:
    return re.sub(r": \{.*\}: ", ": ", message)


@pytest.mark.parametrize("case", LINES)
def test_a_chip_that_cannot_be_built(case):
    fields, wanted = LINES[case]
    with pytest.raises(BadInput) as caught:
        ChipSpec.from_data(changed(fields), "chip")
    assert without_part(str(caught.value)) == wanted


SETS: dict[tuple[str, str, str], str] = {
    ("edge", "external.gbps", "1"): f"edge.external.gbps: unknown field; known here: {MEMORY}",
    ("edge", "externl.gb_per_s", "1"): f"edge.externl: unknown field; known here: {TOP}",
    ("edge", "clock", "1"): f"edge.clock: unknown field; known here: {TOP}",
    ("edge", "tile.matrix.rows.x", "1"): "edge.tile.matrix.rows.x: edge has no part 'rows'",
    ("edge", "tile.matrix.rows", "12"): "edge.tile.matrix.rows: 12: input should be 4, 8, 16 or 32",
    ("edge", "clock_mhz", "fast"): (
        "edge.clock_mhz: 'fast': input should be a valid number, unable to parse string as a number"
    ),
    ("tiny", "external.gb_per_s", "136"): "tiny.external.gb_per_s: tiny has no part 'external'",
    ("edge", "external", "null"): (
        "edge: weight_store is external, but there is no external memory; describe it under external"
    ),
}


@pytest.mark.parametrize("case", SETS, ids=" ".join)
def test_a_field_that_cannot_be_set(case):
    chip, name, value = case
    with pytest.raises(BadInput) as caught:
        load_chip(chip).with_fields({name: value}, chip)
    assert without_part(str(caught.value)) == SETS[case]


FILES = {
    "- 1\n- 2\n": "mine.yaml: holds a list, not a mapping of fields",
    "7": "mine.yaml: holds a int, not a mapping of fields",
    "name: mine\nclock_mhz: 1\n": "mine.yaml.grid: is missing",
}


@pytest.mark.parametrize("text", FILES)
def test_a_file_that_is_no_chip(tmp_path: Path, text: str):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        load_chip(path)
    assert str(caught.value) == FILES[text]


def test_a_file_that_is_not_yaml(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("grid: [")
    with pytest.raises(BadInput, match=r"^mine\.yaml: is not YAML \(while parsing a flow node "):
        load_chip(path)


def test_a_chip_that_is_not_there(tmp_path: Path):
    with pytest.raises(BadInput) as caught:
        load_chip("giant")
    assert str(caught.value) == "chip: 'giant' is no preset; presets: edge, fpga, tiny; or give a YAML file"
    with pytest.raises(BadInput) as caught:
        load_chip(tmp_path / "no.yaml")
    path = tmp_path / "no.yaml"
    assert str(caught.value) == f"{path}: cannot be read (No such file or directory)"
