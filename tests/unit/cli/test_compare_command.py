"""`tapeout compare`: one object, tables, a page in one file, one line per mistake."""

import json
import re
import sys

import pytest


@pytest.fixture
def compare(tapeout):
    """Run `tapeout compare`: (exit code, standard output, standard error)."""
    return lambda *arguments: tapeout("compare", *arguments)


def test_a_comparison_is_one_object_with_rows(compare):
    code, out, _ = compare("llama-3.1-8b", "--chips", "h100,groq*72,hc1", "--weights", "fp8", "--json")
    told = json.loads(out)
    assert code == 0
    assert [(row["chip"], row["chips"]) for row in told["rows"][::2]] == [("h100", 1), ("groq", 72), ("hc1", 1)]
    assert set(told) >= {"model", "weights", "rows", "left_out", "fingerprint"}
    assert all(set(figure) >= {"value", "unit", "origin"} for row in told["rows"] for figure in row["figures"].values())


@pytest.mark.parametrize("table", ["article", "eras"])
def test_the_tables_are_one_object_too_and_fit_80_columns(compare, table):
    assert json.loads(compare(table, "--json")[1])["rows"]
    out = compare(table)[1]
    lines = [line for line in out.splitlines() if line and not line.startswith("- ")]
    assert max(map(len, lines)) <= 80
    assert "…" not in out


def test_the_page_is_one_file_that_loads_nothing(compare, tmp_path):
    pytest.importorskip("plotly")
    page = tmp_path / "compare.html"
    arguments = ("llama-3.1-8b", "--chips", "h100,google_tpu_v6e,hc1", "--weights", "fp8", "--html", str(page))
    code, out, err = compare(*arguments, "--json")
    assert code == 0, err
    assert json.loads(out)["html"] == str(page)
    assert err.splitlines()[-1] == f"wrote {page}"
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img|iframe)[^>]*\s(src|href)=", text)
    assert text.count("Plotly.newPlot(") >= 2
    for wanted in (
        "Not in “per dollar”: google_tpu_v6e: no price was published; hc1: no price was published.",
        "Not in “per mm² of silicon”: google_tpu_v6e: no die area was published.",
        "hc1: no roofline, its weights are in the silicon and are not read",
    ):
        assert wanted in text
    assert list(tmp_path.iterdir()) == [page]


def test_without_plotly_it_says_how_to_get_it(compare, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly", None)
    code, out, err = compare("llama-3.1-8b", "--chips", "h100", "--html", str(tmp_path / "x.html"))
    assert (code, out, err) == (2, "", 'tapeout: --html: plotly is not installed; pip install "tapeout[plots]"\n')
    assert compare("llama-3.1-8b", "--chips", "h100", "--json")[0] == 0


MISTAKES = {
    "no chips": (
        ["llama-3.1-8b"],
        "tapeout: --chips: no chip given; for example --chips h100,groq*72,hc1 (tapeout chips lists them)",
    ),
    "count": (["llama-3.1-8b", "--chips", "h100*x"], "tapeout: --chips: 'h100*x' does not say how many; for example h100*8"),
    "chip": (["llama-3.1-8b", "--chips", "h100,h101"], "tapeout: chip: 'h101' is no chip; nearest: nvidia_h100_sxm"),
    "model": (["llama-3.1-9b", "--chips", "h100"], "tapeout: model: 'llama-3.1-9b' is neither the name of a model nor a file"),
    "nothing fits": (
        ["llama-3.1-70b", "--chips", "hc1"],
        "tapeout: --chips: none of them takes llama-3.1-70b: llama-3.1-70b on hc1: hardwired for llama-3.1-8b",
    ),
    "weights": (
        ["llama-3.1-8b", "--chips", "h100", "--weights", "fp9"],
        "tapeout: --weights: 'fp9' is not a format that can be estimated; one of bf16",
    ),
    "recipe": (["llama-3.1-8b", "--chips", "h100", "--recipe", "x"], "tapeout: recipe: 'x' is not known; one of steady"),
    "tokens": (["llama-3.1-8b", "--chips", "h100", "--output-tokens", "0"], "tapeout: --output-tokens: 0; ask for 1 or more"),
    "how many": (["llama-3.1-8b", "--chips", "h100", "--chip-count", "-1"], "tapeout: --chip-count: -1; ask for 1 or more"),
    "folder": (["llama-3.1-8b", "--chips", "h100", "--html", "/nowhere/x.html"], "tapeout: /nowhere/x.html: the folder /nowhere does not exist"),
    "a folder as file": (["llama-3.1-8b", "--chips", "h100", "--html", "/tmp"], "tapeout: /tmp: is a folder; name a file"),
    "table": (["article", "--chips", "h100"], "tapeout: --chips: article is a table of its own; give a model to choose chips for"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(compare, name):
    arguments, message = MISTAKES[name]
    code, out, err = compare(*arguments, "--json")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(message)
