"""`tapeout check` as scripts see it: one JSON object, exit codes 0, 1 and 2."""

import json


def _file(tmp_path, *lines: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nlines:\n" + "".join(f"- {line}\n" for line in lines))
    return str(path)


def test_a_miss_is_exit_code_1_and_one_json_object(tapeout):
    code, out, err = tapeout("check", "nvidia_dgx_h100", "--spec", "wishlist", "--json")
    made = json.loads(out)
    assert (code, err) == (1, "")
    assert len(made["rows"]) == 11
    assert made["missed"] == sum(row["met"] is False for row in made["rows"])
    assert made["tensions"]


def test_only_met_and_unknown_is_exit_code_0(tapeout, tmp_path):
    spec = _file(
        tmp_path, "{line: SRAM, figure: chip.sram_mb, at_least: 100}", "{line: int4, fact: formats, of: [int4]}"
    )
    code, out, _ = tapeout("check", "nvidia_h100_sxm", "--spec", spec, "--json")
    assert code == 0
    assert [row["met"] for row in json.loads(out)["rows"]] == [True, None]


def test_bad_input_is_exit_code_2_and_one_line(tapeout, tmp_path):
    code, out, err = tapeout("check", "edge", "--spec", _file(tmp_path, "{line: x, figure: chip.srams, at_least: 1}"))
    assert (code, out) == (2, "")
    assert err.startswith("tapeout: mine.yaml.lines.0: 'chip.srams' is neither")
    assert err.count("\n") == 1
    assert tapeout("check", "edge", "--spec", "nix")[0] == 2


def test_set_moves_a_line(tapeout, tmp_path):
    spec = _file(tmp_path, "{line: bandwidth, figure: chip.offchip_tb_per_s, at_least: 0.1}")
    assert tapeout("check", "edge", "--spec", spec)[0] == 1
    assert tapeout("check", "edge", "--spec", spec, "--set", "external.gb_per_s=136")[0] == 0


def test_the_table_fits_80_columns(tapeout):
    _, out, _ = tapeout("check", "nvidia_dgx_h100")
    lines = out.split("\nlines\n")[1].splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("MISSED" in line for line in lines) == 6
