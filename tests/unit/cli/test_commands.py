"""The command line is a contract: JSON keys, exit codes, one line per mistake, nothing half-written."""

import json

import pytest

from tapeout.numerics.formats import WEIGHTS

RUN_KEYS = {
    "model", "chip", "weights", "engine", "prompt_token_ids", "token_ids", "text", "logits_sha256", "figures", "fingerprint",
}  # fmt: skip
FIGURES = {
    "tokens_per_s", "ttft_ms", "tpot_ms", "cycles_per_token", "joules_per_token", "watts", "area_mm2", "utilisation", "host_tokens_per_s",
}  # fmt: skip


def answer(result: tuple[int, str, str]) -> dict:
    code, out, err = result
    assert code == 0, err
    return json.loads(out)


def test_run_prints_one_json_object_with_the_keys_of_the_contract(tapeout):
    made = answer(tapeout("run", "--tokens", "4", "--json"))
    assert set(made) >= RUN_KEYS
    assert set(made["figures"]) >= FIGURES
    assert all(set(figure) >= {"value", "unit", "origin"} for figure in made["figures"].values())


def test_every_engine_and_chip_says_the_same_bits(tapeout):
    choices = [("edge", "program"), ("edge", "graph"), ("edge", "reference"), ("tiny", "program")]
    made = [
        answer(tapeout("run", "--chip", chip, "--engine", engine, "--tokens", "4", "--json"))
        for chip, engine in choices
    ]
    assert len({(tuple(one["token_ids"]), one["logits_sha256"]) for one in made}) == 1


def test_the_graph_engine_promises_the_cycles_of_the_program(tapeout):
    one, two = (
        answer(tapeout("run", "--engine", engine, "--tokens", "3", "--json")) for engine in ("program", "graph")
    )
    assert one["figures"]["cycles_per_token"] == two["figures"]["cycles_per_token"]


def test_set_shows_each_figures_change(tapeout):
    made = answer(tapeout("run", "--tokens", "3", "--set", "external.gb_per_s=136", "--json"))
    assert made["changes"]["tokens_per_s"] > 0.1
    assert set(made["changes"]) >= FIGURES - {"host_tokens_per_s"}


def test_a_compiled_program_says_the_same_later(tapeout, tmp_path):
    file = str(tmp_path / "fable.tapeout")
    compiled = answer(tapeout("compile", "fable", "--chip", "tiny", "-o", file, "--json"))
    assert set(compiled["figures"]) >= {"cycles_per_token", "utilisation", "bound", "micro_ops"}
    assert set(compiled) >= {"waits", "fingerprint"}
    later = answer(tapeout("run", file, "--tokens", "4", "--json"))
    now = answer(tapeout("run", "--chip", "tiny", "--tokens", "4", "--json"))
    assert (later["logits_sha256"], later["fingerprint"]) == (now["logits_sha256"], compiled["fingerprint"])


def test_weights_made_by_a_method_say_the_same_compiled_and_run_and_something_else_than_rounded(tapeout, tmp_path):
    file, text = str(tmp_path / "fable.tapeout"), tmp_path / "text.txt"
    text.write_text("Once upon a time, a fox met an owl. " * 9)
    made = ("--weights", "int4+gptq", "--calibration", str(text), "--calibration-tokens", "80", "--chip", "tiny")
    assert answer(tapeout("compile", "fable", *made, "-o", file, "--json"))["weights"] == "int4+gptq"
    again = [
        answer(tapeout("run", *made, "--engine", each, "--tokens", "3", "--json")) for each in ("program", "graph")
    ]
    later, rounded = (
        answer(tapeout("run", *which, "--tokens", "3", "--json"))
        for which in ((file,), ("--weights", "int4", *made[-2:]))
    )
    assert later["logits_sha256"] == again[0]["logits_sha256"] == again[1]["logits_sha256"] != rounded["logits_sha256"]
    code, _, err = tapeout("run", file, "--engine", "graph")
    assert (code, "alone holds its weights, which gptq made; leave --engine at program" in err) == (2, True)


def test_show_draws_what_is_asked_for(tapeout, tmp_path):
    file = str(tmp_path / "fable.tapeout")
    tapeout("compile", "fable", "--chip", "tiny", "--context", "96", "-o", file)
    wanted = {"--perfetto": "trace.json", "--floorplan": "chip.svg", "--timeline": "time.svg"}
    answer(
        tapeout(
            "show", file, "--json", *(part for flag, name in wanted.items() for part in (flag, str(tmp_path / name)))
        )
    )
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert "tile 3" in (tmp_path / "chip.svg").read_text()
    assert "matmul" in (tmp_path / "time.svg").read_text()


def test_a_chip_of_ones_own_starts_from_a_preset(tapeout, tmp_path):
    code, text, _ = tapeout("chips", "edge", "--yaml")
    (tmp_path / "mine.yaml").write_text(text.replace("name: edge", "name: mine"))
    made = answer(tapeout("run", "--chip", str(tmp_path / "mine.yaml"), "--tokens", "2", "--json"))
    assert (code, made["chip"]) == (0, "mine")


MISTAKES = {
    "chip": (
        ["run", "--chip", "egde"],
        "tapeout: chip: 'egde' is no preset; presets: edge, fpga, tiny; or give a YAML file",
    ),
    "model": (
        ["run", "fabel"],
        "tapeout: fabel: is neither a file or folder nor the name of a model; known names: fable, fable-ternary, smollm2-135m-instruct",
    ),
    "weights": (
        ["run", "--weights", "int5"],
        "tapeout: --weights: 'int5' is no format; choose from stored, " + ", ".join(WEIGHTS),
    ),
    "method": (
        ["run", "--weights", "int4+awq"],
        "tapeout: --weights: 'awq' is no method; write FORMAT or FORMAT+METHOD, METHOD one of nearest, gptq, smooth",
    ),
    "calibration": (
        ["compile", "fable", "--chip", "tiny", "-o", "x.tapeout", "--weights", "int4+gptq"],
        "tapeout: --weights: int4+gptq needs a calibration text; run, compile and eval take --calibration FILE",
    ),
    "no such calibration": (
        ["run", "--weights", "int4+gptq", "--calibration", "nowhere.txt"],
        "tapeout: nowhere.txt: cannot be read (No such file or directory); --text takes a text file",
    ),
    "engine": (["run", "--engine", "rtl"], "tapeout: --engine: 'rtl' is no engine; choose from program, graph, reference"),
    "tokens": (["run", "--tokens", "0"], "tapeout: --tokens: 0; ask for 1 or more"),
    "set": (
        ["run", "--set", "external.gbps=1"],
        "tapeout: edge.external.gbps: unknown field; known here: kind, gb_per_s, latency_ns, refresh_interval_ns, refresh_ns, "
        "capacity_gib, beat_bytes, write_buffer_kib",
    ),
    "set without a value": (
        ["run", "--set", "clock_mhz"],
        "tapeout: --set: 'clock_mhz' is not FIELD=VALUE; for example --set external.gb_per_s=136",
    ),
    "rows": (
        ["run", "--set", "tile.matrix.rows=12"],
        "tapeout: edge.tile.matrix.rows: 12: input should be 4, 8, 16 or 32",
    ),
    "context": (
        ["run", "--tokens", "600"],
        "tapeout: --tokens: 1 of the prompt and 600 more exceed the 512 positions of fable",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(tapeout, name):
    arguments, message = MISTAKES[name]
    code, out, err = tapeout(*arguments, "--json")
    assert (code, out, err.splitlines()[-1]) == (2, "", message)
    assert "Traceback" not in err


def test_what_does_not_fit_says_by_how_much_and_what_helps(tapeout, tmp_path):
    code, _, err = tapeout(
        "compile", "fable", "--chip", "tiny", "--set", "tile.sram.kib=288", "-o", str(tmp_path / "x")
    )
    assert code == 2
    assert "KiB too much" in err
    assert "tile.sram.kib of 384 or more" in err
    assert not list(tmp_path.iterdir())


def test_a_truncated_program_is_refused(tapeout, tmp_path):
    file = tmp_path / "fable.tapeout"
    tapeout("compile", "fable", "--chip", "tiny", "-o", str(file))
    file.write_bytes(file.read_bytes()[:20_000])
    code, _, err = tapeout("run", str(file))
    assert code == 2
    assert "compile it again" in err.splitlines()[-1]
