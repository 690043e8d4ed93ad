"""The catalogue: every chip that was collected, number for number, with its marks; what one chip of a system is; a datasheet as a file."""

from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml

from tapeout.base.errors import BadInput
from tapeout.chip.catalogue import datasheet, datasheets, names, nearest, one_chip
from tapeout.chip.datasheet import NUMBERS, Datasheet, FactOrigin
from tapeout.chip.presets import load, load_chip

COLLECTED = Path(__file__).parents[4] / "shared" / "data" / "chips.yaml"
ASKED = """groq_lpu_v1 groqrack_576 nvidia_groq_lp30 etched_sohu tt_grayskull_e75 tt_wormhole_n150 tt_blackhole_p150 tt_wormhole_galaxy taalas_hc1
    taalas_hc2 openai_jalapeno intel_crescent_island cerebras_wse3 dmatrix_corsair rain_ai mythic_m1076 tenet nvidia_h100_sxm nvidia_dgx_h100
    nvidia_h200_sxm nvidia_a100_sxm nvidia_b200_sxm nvidia_gb200 nvidia_l40s amd_mi300x amd_mi325x amd_mi355x amd_mi400_mi455x aws_inferentia2
    aws_trainium2 aws_trainium3 google_tpu_v5e google_tpu_v6e google_tpu7x_ironwood sambanova_sn40l furiosa_rngd hnlpu qualcomm_hexagon_x_elite
    amd_xdna2_krackan apple_m4_ane""".split()
NEAR = {"h10": "nvidia_h100_sxm", "wormhol": "tt_wormhole_n150", "MI 300X": "amd_mi300x", "groq-lpuv1": "groq_lpu_v1"}


@pytest.fixture(scope="module")
def collected() -> list[dict]:
    """The facts as they were collected."""
    if not COLLECTED.exists():
        pytest.skip("the shared data folder with chips.yaml is not here")
    return yaml.load(COLLECTED.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def test_every_chip_asked_for_is_there():
    assert set(ASKED) <= set(names())


def test_every_collected_number_is_in_the_catalogue_unchanged(collected):
    wanted = {
        (row["id"], key): value
        for row in collected
        for key, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    assert {(chip, key): datasheet(chip).fact(key).value for chip, key in wanted} == wanted
    assert {row["id"] for row in collected} <= set(names())
    assert len(wanted) > 400


def test_no_number_was_added_but_the_node_and_guesses(collected):
    known = {row["id"]: row for row in collected}
    added = {
        (sheet.id, fact.name)
        for sheet in datasheets().values()
        for fact in sheet.facts()
        if sheet.id in known and known[sheet.id].get(fact.name) is None and fact.origin is not FactOrigin.ASSUMED
    }
    assert {name for _, name in added} == {"node_nm"}


def test_what_was_from_memory_still_says_so(collected):
    lost = []
    for row in collected:
        marks = row.get("recall_fields") or []
        patterns = ["*"] if isinstance(marks, str) else marks
        spared = {"production_cost_usd"} if marks == "all but production_cost_usd" else set()
        recalled = [
            key for key in row if key in NUMBERS and row[key] is not None and any(fnmatchcase(key, p) for p in patterns)
        ]
        sheet = datasheet(row["id"])
        lost += [
            (sheet.id, key) for key in recalled if key not in spared and sheet.origin(key) is not FactOrigin.RECALL
        ]
    assert lost == []


def test_every_source_and_note_was_kept(collected):
    for row in collected:
        assert list(datasheet(row["id"]).sources) == row["sources"]
        assert datasheet(row["id"]).notes == row["notes"]


@pytest.mark.parametrize("name", names())
def test_every_number_has_a_source_or_a_range(name):
    for fact in datasheet(name).facts():
        assert fact.low <= fact.value <= fact.high
        assert fact.sources or (fact.spread and fact.why), fact
        assert fact.origin is not FactOrigin.ASSUMED or (fact.spread and fact.why), fact


@pytest.mark.parametrize("name", names())
def test_a_datasheet_prints_as_text_and_parses_back(name):
    sheet = datasheet(name)
    assert Datasheet.from_text(sheet.to_yaml(), name) == sheet
    assert Datasheet.from_text(sheet.to_yaml(), name).fingerprint() == sheet.fingerprint()


@pytest.mark.parametrize("name", names())
def test_what_an_estimate_needs_is_there_or_listed_as_unpublished(name):
    sheet = datasheet(name)
    assert one_chip(sheet).missing() == sheet.unpublished


def test_what_was_never_published_is_refused_by_name():
    with pytest.raises(
        BadInput, match=r"rain_ai\.compute: compute and memory and power of Rain AI NPU were never published"
    ):
        datasheet("rain_ai").require()


def test_a_figure_from_memory_has_a_range_and_a_count_has_none():
    fact = datasheet("groq_lpu_v1").fact("tdp_w")
    assert (fact.origin, fact.low, fact.high) == (FactOrigin.RECALL, 172, 258)
    assert datasheet("nvidia_a100_sxm").fact("tiles").spread is False


def test_a_guess_is_the_range_that_the_unofficial_figures_span():
    fact = datasheet("etched_sohu").fact("offchip_tb_per_s")
    assert (fact.origin, fact.low, fact.high, fact.sources) == (FactOrigin.ASSUMED, 4.8, 6.03, ())


def test_a_chip_of_a_system_has_its_base_chips_figures():
    chip = one_chip(datasheet("dgx_h100"))
    assert (chip.value("offchip_gb"), chip.value("tdp_w"), chip.value("fp8_tflops")) == (80, 700, 1979)
    assert datasheet("dgx_h100").value("offchip_gb") == 640


def test_a_system_that_says_otherwise_shares_its_totals_out():
    chip, base = one_chip(datasheet("tt_blackhole_galaxy")), datasheet("tt_blackhole_p150")
    assert chip.value("bfp8_tflops") == 23000 / 32
    assert chip.value("fp16_tflops") == pytest.approx(387 * 23000 / 32 / 774)
    assert (chip.value("sram_tb_per_s"), base.value("sram_tb_per_s")) == (2900 / 32, None)


@pytest.mark.parametrize(("name", "wanted"), NEAR.items())
def test_the_nearest_name_comes_first(name, wanted):
    assert nearest(name)[0] == wanted


def test_names_are_found_however_they_are_spelled():
    assert {datasheet(name).id for name in ("H100", "h100", "nvidia-h100-sxm", "Nvidia H100 SXM")} == {
        "nvidia_h100_sxm"
    }


def test_load_takes_presets_the_catalogue_and_files_of_both_kinds(tmp_path):
    sheet, chip = tmp_path / "sheet.yaml", tmp_path / "chip.yaml"
    sheet.write_text(load("h100").to_yaml())
    chip.write_text(load("edge").to_yaml())
    assert load(sheet) == load("h100") == datasheet("nvidia_h100_sxm")
    assert load(chip) == load("edge") == load_chip("edge")


def test_a_changed_figure_is_the_changers_own():
    changed = datasheet("sohu").with_fields({"offchip_tb_per_s": "6", "name": "mine"}, "sohu")
    fact = changed.fact("offchip_tb_per_s")
    assert (fact.value, fact.low, fact.origin, fact.sources, changed.name) == (6, 6, FactOrigin.OWN, (), "mine")
    assert datasheet("rain_ai").with_fields({"tdp_w": "75"}, "rain_ai").missing() == ("compute", "memory")


def test_a_datasheet_is_no_chip_to_run_on(tmp_path):
    file = tmp_path / "h100.yaml"
    file.write_text(load("h100").to_yaml())
    for name, shown in (("h100", "nvidia_h100_sxm"), (file, str(file))):
        with pytest.raises(BadInput) as caught:
            load_chip(name)
        assert f"chip: {shown} is a datasheet: figures that were published" in str(caught.value)


WRONG = {
    "sramb: 3": "x.yaml.sramb: unknown field; nearest: sram_mb",
    "assumed: {sram_mb: {value: 5, low: 6, high: 7, why: x}}": "x.yaml: .*sram_mb: 5 is not between 6 and 7",
    "recall: [sram_*, rate]": "x.yaml: .*recall: 'rate' matches no field",
    "is_system: true": "x.yaml: .*a system names its base_chip and how many chips it has",
    "sram_mb: -1": "x.yaml.sram_mb: -1: input should be greater than or equal to 0",
    "{is_system: true, chips: 2, base_chip: h1000}": "chip: 'h1000' is no chip; nearest: nvidia_h100_sxm",
}


@pytest.mark.parametrize(("line", "message"), WRONG.items())
def test_a_wrong_datasheet_is_refused_with_its_place(line, message, tmp_path):
    file = tmp_path / "x.yaml"
    fields = yaml.safe_load(line) | {"kind": "datasheet", "id": "x", "name": "x", "vendor": "me"}
    file.write_text(yaml.safe_dump(fields))
    with pytest.raises(BadInput, match=message):
        load(file)
