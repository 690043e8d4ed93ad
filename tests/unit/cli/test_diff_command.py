"""`tapeout diff`: what changed between two JSON outputs of any command."""

import json

import pytest


@pytest.fixture
def files(tmp_path):
    """Two files with these objects."""

    def write(*outputs: object) -> list[str]:
        made = [tmp_path / f"{name}.json" for name in "ab"]
        for path, output in zip(made, outputs, strict=True):
            path.write_text(output if isinstance(output, str) else json.dumps(output))
        return [str(path) for path in made]

    return write


def figure(value: float) -> dict:
    return {"value": value, "unit": "ms", "origin": "modelled"}


def test_figures_are_compared_by_name(tapeout, files):
    before = {"figures": {"ttft_ms": figure(10), "watts": figure(5), "old": figure(1)}}
    after = {"figures": {"ttft_ms": figure(8), "watts": figure(5), "new": figure(2)}}
    told = json.loads(tapeout("diff", *files(before, after), "--json")[1])
    assert told["rows"] == [
        {"name": "ttft_ms", "before": 10, "after": 8, "change": pytest.approx(-0.2)},
        {"name": "watts", "before": 5, "after": 5, "change": 0},
        {"name": "old", "before": 1, "after": None, "change": None},
        {"name": "new", "before": None, "after": 2, "change": None},
    ]
    assert told["equal"] is False


def test_rows_are_matched_by_what_tells_them_apart(tapeout, files):
    before = {
        "rows": [
            {"chip": "a", "weights": "bf16", "perplexity": 2.0},
            {"chip": "b", "weights": "bf16", "perplexity": 4.0},
        ]
    }
    after = {
        "rows": [{"chip": "b", "weights": "fp8", "perplexity": 5.0}, {"chip": "a", "weights": "fp8", "perplexity": 2.0}]
    }
    told = json.loads(tapeout("diff", *files(before, after), "--json")[1])
    assert [(row["name"], row["change"]) for row in told["rows"]] == [("a perplexity", 0), ("b perplexity", 0.25)]


def test_rows_that_nothing_tells_apart_are_numbered(tapeout, files):
    output = {"rows": [{"value": 1.0}, {"value": 2.0}]}
    told = json.loads(tapeout("diff", *files(output, output), "--json")[1])
    assert [row["name"] for row in told["rows"]] == ["value", "#2 value"]


def test_the_outputs_of_commands_are_read(tapeout, tmp_path):
    commands = {
        "estimate": (("llama-3.1-8b", "--chip", "h100"), ("llama-3.1-8b", "--chip", "h200")),
        "compare": (("llama-3.1-8b", "--chips", "h100"), ("llama-3.1-8b", "--chips", "h100", "--weights", "fp8")),
        "validate": ((), ()),
    }
    for command, (one, other) in commands.items():
        paths = [tmp_path / f"{command}{at}.json" for at in range(2)]
        for path, arguments in zip(paths, (one, other), strict=True):
            path.write_text(tapeout(command, *arguments, "--json")[1])
        told = json.loads(tapeout("diff", *map(str, paths), "--json")[1])
        assert told["rows"], command
        assert all(row["before"] is not None and row["after"] is not None for row in told["rows"]), command
        assert told["equal"] == (one == other), command


def test_words_that_differ_are_noted(tapeout, files):
    before, after = ({"chip": chip, "figures": {"watts": figure(1)}} for chip in ("h100", "h200"))
    out = tapeout("diff", *files(before, after))[1]
    assert "chip: h100 before, h200 after" in out
    assert "0 changed, 1 the same" in out


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            "tokens: 3",
            "is not JSON (Expecting value: line 1 column 1 (char 0)); give what a command printed with --json",
        ),
        ("[1, 2]", "holds no JSON object; give what a command printed with --json"),
        ({"text": "hello"}, "has no figures; give what run, estimate, validate, compare, ... printed with --json"),
    ],
)
def test_what_cannot_be_compared_is_one_line_and_exit_code_2(tapeout, files, output, message):
    one, two = files({"figures": {"watts": figure(1)}}, output)
    code, out, err = tapeout("diff", one, two, "--json")
    assert (code, out, err) == (2, "", f"tapeout: {two}: {message}\n")


def test_a_file_that_is_not_there_is_one_line(tapeout):
    code, _, err = tapeout("diff", "/nowhere/a.json", "/nowhere/b.json")
    assert (code, err) == (2, "tapeout: /nowhere/a.json: cannot be read (No such file or directory)\n")
