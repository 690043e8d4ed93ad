"""`tapeout eval`: the contract's JSON, the page, and every mistake on one line."""

import json
import re
import sys
from pathlib import Path

import pytest

import tapeout
from tapeout.cli.main import main
from tapeout.numerics.formats import WEIGHTS

README = Path(tapeout.__file__).parent / "data" / "models" / "fable" / "README.md"
QUICK = ("--window", "32", "--tokens", "62")


@pytest.fixture
def evaluate(monkeypatch, capsys):
    """Run `tapeout eval fable`: (exit code, standard output, standard error)."""

    def call(*arguments: str, text: Path = README) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tapeout", "eval", "fable", "--text", str(text), *arguments])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        seen = capsys.readouterr()
        return code, seen.out, seen.err

    return call


def test_the_rows_have_the_contracts_keys_and_formats_in_order(evaluate):
    code, out, err = evaluate("--weights", "ternary,int8", *QUICK, "--json")
    told = json.loads(out)
    assert code == 0, err
    assert [row["weights"] for row in told["rows"]] == ["ternary", "int8"]
    wanted = {
        "weights",
        "perplexity",
        "perplexity_float",
        "kl_nats",
        "bits_per_byte",
        "tokens",
        "loss_nats",
        "bits_per_weight",
    }
    assert all(set(row) >= wanted and row["tokens"] == told["tokens"] == 62 for row in told["rows"])
    assert (told["window"], told["stride"], told["windows"], told["interval"]["seed"]) == (32, 32, 2, 0)
    assert "window 2 of 2; perplexity so far: float " in err


def test_a_method_tells_what_it_saves_against_rounding_with_intervals(evaluate):
    made = ("--calibration", str(README), "--calibration-tokens", "64", "--json")
    told = json.loads(evaluate("--weights", "int4+gptq,int4+smooth+gptq", *QUICK, *made)[1])
    rounded, *rows = told["rows"]
    assert [row["weights"] for row in told["rows"]] == ["int4", "int4+gptq", "int4+smooth+gptq"]
    assert not [key for key in rounded if key.startswith("gain")]
    for row in rows:
        for gain, of in (("gain_nats", "loss_nats"), ("gain_kl_nats", "kl_nats")):
            assert row[gain] == pytest.approx(rounded[of] - row[of], abs=1e-5)
            assert row[f"{gain}_low"] <= row[gain] <= row[f"{gain}_high"]


@pytest.mark.parametrize("same", [True, False])
def test_it_is_said_where_a_method_is_judged_by_the_text_it_was_calibrated_on(evaluate, tmp_path, same: bool):
    other = tmp_path / "other.txt"
    other.write_text("Once upon a time, a fox met an owl. " * 9)
    text = README if same else other
    made = ("--calibration", str(text), "--calibration-tokens", "64")
    said = " ".join(evaluate("--weights", "int4+gptq", *QUICK, *made)[1].split())
    assert "saved against round to nearest in the same format" in said
    assert ("the calibration text is the text itself" in said) == same


def test_a_chip_adds_what_decoding_takes_and_names_the_formats_it_does_not_take(evaluate):
    told = json.loads(evaluate("--weights", "int8,ternary", "--chip", "fpga", *QUICK, "--json")[1])
    int8, ternary = told["rows"]
    assert all(int8[key] > 0 for key in ("tokens_per_s", "joules_per_token", "area_mm2"))
    assert "joules_per_token" not in ternary
    assert [(row["weights"], "ternary is no format of chip fpga" in row["why"]) for row in told["left_out"]] == [
        ("ternary", True)
    ]


def test_the_report_fits_80_columns_and_says_how_it_was_measured(evaluate):
    code, out, _ = evaluate("--weights", "all", "--chip", "edge", *QUICK)
    lines = [line for line in out.splitlines() if line and not line.startswith("- ")]
    assert code == 0
    assert max(map(len, lines)) <= 80
    assert "…" not in out
    assert "2 of 32 tokens, one every 32; scored are all tokens but the first of each window" in out
    assert "bootstrap over blocks of tokens (32), paired with float, 2000 resamples, seed 0" in out


def test_the_plot_is_one_file_that_loads_nothing(evaluate, tmp_path):
    pytest.importorskip("plotly")
    page = tmp_path / "eval.html"
    code, out, err = evaluate("--weights", "int8,int4", "--html", str(page), *QUICK, "--json")
    assert code == 0, err
    assert (json.loads(out)["html"], json.loads(out)["chip"]) == (str(page), "edge")
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img|iframe)[^>]*\s(src|href)=", text)
    assert "joules per token" in text
    assert list(tmp_path.iterdir()) == [page]


def test_an_interrupt_ends_with_130_and_leaves_nothing(evaluate, tmp_path, monkeypatch):
    pytest.importorskip("plotly")

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("tapeout.flow.evaluate.score", stop)
    assert evaluate("--html", str(tmp_path / "eval.html"), *QUICK)[0] == 130
    assert list(tmp_path.iterdir()) == []


MISTAKES = {
    "format": (["--weights", "int8,fp4"], "tapeout: --weights: 'fp4' is no format; choose from all, stored, " + ", ".join(WEIGHTS)),
    "no format": (["--weights", ","], "tapeout: --weights: no format given; choose from all"),
    "context": (["--window", "513"], "tapeout: --window: 513; fable takes at most 512 positions"),
    "stride": (["--window", "32", "--stride", "33"], "tapeout: --stride: 33; give 1 to the window, 32"),
    "few": (["--tokens", "5"], "tapeout: --tokens: 5; a window of 512 scores 511"),
    "chip": (["--chip", "nowhere"], "tapeout: chip: 'nowhere'"),
    "seed": (["--seed", "-1"], "tapeout: --seed: -1; give 0 or more"),
    "form": (["--detokenise", "ptb"], "tapeout: --detokenise: 'ptb' is not known; choose from wikitext"),
    "folder": (["--html", "/nowhere/x.html"], "tapeout: /nowhere/x.html: the folder /nowhere does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(evaluate, name):
    arguments, message = MISTAKES[name]
    code, out, err = evaluate(*arguments, "--json")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(message)


def test_a_missing_or_short_text_is_one_line_too(evaluate, tmp_path):
    nowhere, short = tmp_path / "no.txt", tmp_path / "short.txt"
    short.write_text("Once upon a time.")
    assert evaluate(text=nowhere)[2].splitlines()[-1].startswith(f"tapeout: {nowhere}: cannot be read (No such file")
    assert re.search(r"short.txt: has \d+ tokens, fewer than a window of 512; give a smaller", evaluate(text=short)[2])


def test_a_model_without_tokenizer_is_refused(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "fable"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).symlink_to(README.parent / name)
    monkeypatch.setattr(sys, "argv", ["tapeout", "eval", str(folder), "--text", str(README)])
    with pytest.raises(SystemExit):
        main()
    assert "has no tokenizer" in capsys.readouterr().err
