"""`tapeout chips`: the catalogue with its sources, one chip with its doubts and its drawing, and a chip of one's own from it."""

import json
from xml.etree import ElementTree

import pytest

from tapeout.chip.catalogue import datasheet, names
from tapeout.chip.presets import load
from tapeout.flow.datasheets import host_gb_per_s, levels
from tapeout.report.hierarchy import RATES, hierarchy_lines, place


def test_the_list_has_the_presets_first_and_every_datasheet_with_its_sources(tapeout):
    rows = json.loads(tapeout("chips", "--json")[1])["rows"]
    assert [row["name"] for row in rows] == ["edge", "fpga", "tiny", *names()]
    assert all(row["sources"] for row in rows if row["kind"] == "datasheet")


def test_the_list_fits_80_columns(tapeout):
    code, out, _ = tapeout("chips")
    assert code == 0
    assert max(len(line) for line in out.splitlines()) <= 80
    assert all(name in out for name in names())
    assert "…" not in out


@pytest.mark.parametrize("name", ["etched_sohu", "nvidia_dgx_h100", "rain_ai", "nvidia_a100_sxm"])
def test_a_chip_is_shown_with_sources_doubts_and_its_hierarchy(tapeout, name):
    code, out, _ = tapeout("chips", name)
    assert code == 0
    assert all(source in out for source in datasheet(name).sources)
    assert "memory hierarchy" in out
    assert "from memory, unchecked" in out or name in ("etched_sohu", "rain_ai")


def test_the_json_of_a_chip_marks_every_figure(tapeout):
    made = json.loads(tapeout("chips", "etched_sohu", "--json")[1])
    figure = made["figures"]["offchip_tb_per_s"]
    assert (figure["value"], figure["low"], figure["high"], figure["origin"]) == (5.4, 4.8, 6.03, "assumed")
    assert made["sources"]
    assert made["doubts"]


def test_yaml_starts_a_chip_of_ones_own(tapeout, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(tapeout("chips", "h200", "--yaml")[1].replace("offchip_gb: 141", "offchip_gb: 200"))
    assert load(file).value("offchip_gb") == 200
    assert json.loads(tapeout("chips", str(file), "--json")[1])["figures"]["offchip_gb"]["value"] == 200


def test_an_unknown_chip_is_one_line_with_the_nearest_names(tapeout):
    code, out, err = tapeout("chips", "wormhol")
    assert (code, out) == (2, "")
    assert (
        err
        == "tapeout: chip: 'wormhol' is no chip; nearest: tt_wormhole_n150, tt_wormhole_n300, tt_wormhole_galaxy; or give a YAML file\n"
    )


@pytest.mark.parametrize("name", ["edge", *names()])
def test_the_drawing_has_every_level_inside_its_frame(tapeout, tmp_path, name):
    file = tmp_path / "x.svg"
    assert tapeout("chips", name, "--hierarchy", str(file), "--json")[0] == 0
    root = ElementTree.fromstring(file.read_text())
    wide, high = (float(root.attrib[side]) for side in ("width", "height"))
    boxes = [
        [float(box.attrib[key]) for key in ("x", "y", "width", "height")]
        for box in root.iter()
        if box.tag.endswith("rect") and "x" in box.attrib
    ]
    assert all(x >= 0 and y >= 0 and x + w <= wide and y + h <= high for x, y, w, h in boxes)
    assert {"compute", "SRAM"} <= set(root.itertext())


def test_levels_go_from_the_multipliers_outwards():
    found = levels(datasheet("h100"))
    assert [level.name for level in found] == ["compute", "SRAM", "HBM3", "other chips", "host"]
    assert [level.rate for level in found][2:4] == [3.35e12, 900e9]
    assert hierarchy_lines(found)[4].startswith("HBM3")
    assert place(RATES[0], RATES) == 0


def test_pcie_is_the_only_host_interface_with_a_known_rate():
    assert host_gb_per_s("PCIe 5.0 x16 (6.0 capable)") == pytest.approx(63, rel=0.01)
    assert host_gb_per_s("Ethernet") is None
