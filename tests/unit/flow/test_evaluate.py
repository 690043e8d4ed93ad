"""Windows and their scored tokens; losses against hand-made ones; what formats cost the embedded model."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

import tapeout
from tapeout.base.errors import BadInput
from tapeout.flow.evaluate import EvalRequest, evaluate, formatted
from tapeout.flow.losses import interval, score
from tapeout.flow.texts import Window, cut_windows, detokenise_wikitext, read_text, spans, text_bytes
from tapeout.graph.fast import FastEngine
from tapeout.graph.float_mode import FloatEngine
from tapeout.graph.reference import ReferenceEngine
from tapeout.importers.load import load_model
from tapeout.numerics.formats import WEIGHTS

README = Path(tapeout.__file__).parent / "data" / "models" / "fable" / "README.md"
STORIES = "\n".join(re.findall(r"^> (.*)$", README.read_text(encoding="utf-8"), re.MULTILINE))
"""What the embedded model says, so that it is good at it."""


@pytest.fixture(scope="module")
def fable():
    """The embedded model, and its tokens of the stories."""
    model = load_model("fable")
    assert model.tokenizer is not None
    return model, model.tokenizer.encode(STORIES)


@pytest.fixture
def stories(tmp_path):
    """A text file of theirs."""
    path = tmp_path / "stories.txt"
    path.write_text(STORIES, encoding="utf-8")
    return path


def test_without_overlap_all_but_the_first_token_of_each_window_is_scored():
    assert cut_windows(10, 4, 4) == (Window(0, 1, 4), Window(4, 5, 8), Window(8, 9, 10))


def test_with_overlap_only_the_last_stride_tokens_of_a_later_window_are_scored():
    assert cut_windows(9, 4, 2) == (Window(0, 1, 4), Window(2, 4, 6), Window(4, 6, 8), Window(6, 8, 9))


@pytest.mark.parametrize(("tokens", "window", "stride"), [(50, 8, 1), (50, 8, 3), (50, 8, 8), (9, 9, 9), (17, 8, 8)])
def test_windows_follow_the_rule_that_hugging_face_prints(tokens, window, stride):
    wanted, before = [], 0
    for start in range(0, tokens, stride):
        end = min(start + window, tokens)
        labels = [at if at >= end - (end - before) else -100 for at in range(start, end)]
        wanted += [at for at in labels[1:] if at != -100]
        before = end
        if end == tokens:
            break
    windows = cut_windows(tokens, window, stride)
    assert [at for one in windows for at in range(one.first, one.end)] == wanted
    assert [at for first, end in spans(windows) for at in range(first, end)] == wanted


def test_a_limit_takes_whole_windows_and_never_more_tokens():
    assert [one.scored for one in cut_windows(100, 11, 11, limit=29)] == [10, 10]
    assert [one.scored for one in cut_windows(100, 11, 5, limit=20)] == [10, 5, 5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((20, 32, 32), "--text: has 20 tokens, fewer than a window of 32; give a smaller --window, or more text"),
        ((20, 1, 1), "--window: 1; a window has 2 tokens or more"),
        ((20, 8, 9), "--stride: 9; give 1 to the window, 8"),
        ((20, 8, 0), "--stride: 0; give 1"),
        ((20, 8, 8, 6), "--tokens: 6; a window of 8 scores 7"),
        ((20, 8, 8, -1), "--tokens: -1; a window"),
    ],
)
def test_windows_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(BadInput, match=re.escape(message)):
        cut_windows(*arguments)


def test_losses_are_those_of_the_reference_worked_out_one_by_one(fable):
    model, ids = fable
    int8, windows = formatted(model, ["int8"])["int8"], cut_windows(30, 12, 6)
    found = score(FloatEngine(model, 12), {"int8": FastEngine(int8, 12)}, ids[:30], windows, 512)[1]["int8"]
    wanted = []
    for window in windows:
        logits = ReferenceEngine(int8, 12).step(ids[window.start : window.end], 0, every=True).astype(np.float64)
        for at in range(window.first, window.end):
            row = logits[at - 1 - window.start]
            wanted.append(math.log(sum(math.exp(x) for x in row)) - row[ids[at]])
    assert found.loss == pytest.approx(wanted, abs=1e-12)


def test_a_model_has_no_loss_against_itself(fable):
    model, ids = fable
    base, found = score(FloatEngine(model, 64), {"it": FloatEngine(model, 64)}, ids, cut_windows(192, 64, 64), 512)
    assert not found["it"].kl.any()
    assert (found["it"].loss == base).all()


def test_fewer_bits_cost_more(stories):
    rows = evaluate(EvalRequest("fable", stories, ("all",), window=64, tokens=130), print).json["rows"]
    cost = {row["weights"]: row for row in rows}
    assert list(cost) == list(WEIGHTS)
    assert 0 < cost["int8"]["kl_nats"] < cost["int4m"]["kl_nats"] < cost["int4"]["kl_nats"] < cost["ternary"]["kl_nats"]
    assert cost["int8"]["bits_per_weight"] == 8.5
    assert 4.5 < cost["int4"]["bits_per_weight"] < 8.5  # the table of 512 tokens is int8
    for row in rows:
        assert row["loss_nats_low"] <= row["loss_nats"] <= row["loss_nats_high"]
        assert row["kl_nats_low"] <= row["kl_nats"] <= row["kl_nats_high"]
        assert row["perplexity"] == pytest.approx(row["perplexity_float"] * math.exp(row["loss_nats"]))


def test_stored_is_int8_for_a_float_checkpoint_and_said_once(stories):
    request = EvalRequest("fable", stories, ("stored", "int8"), window=64, tokens=63)
    assert [row["weights"] for row in evaluate(request, print).json["rows"]] == ["int8"]


def test_bits_per_byte_are_nats_over_the_bytes_of_the_scored_text(stories, fable):
    model, ids = fable
    reply = evaluate(EvalRequest("fable", stories, window=64, tokens=126), print).json
    row = reply["rows"][0]
    scored = model.tokenizer.decode(ids[1:64]) + model.tokenizer.decode(ids[65:128])
    assert (reply["tokens"], reply["bytes"]) == (126, len(scored.encode()))
    assert row["bits_per_byte"] == pytest.approx(math.log2(row["perplexity"]) * 126 / len(scored.encode()))


def test_the_bytes_of_all_tokens_are_those_of_the_text_wherever_it_is_cut(fable):
    tokenizer, text = fable[0].tokenizer, "Ein süßer 🦊 läuft; 狐が走る."
    ids = tokenizer.encode(text)
    assert text_bytes(tokenizer, ids, 1, len(ids)) == len(text.encode())
    for cut in range(2, len(ids)):
        parts = text_bytes(tokenizer, ids, 1, cut) + text_bytes(tokenizer, ids, cut, len(ids))
        assert abs(parts - len(text.encode())) <= 2


def test_an_interval_holds_the_mean_and_narrows_with_more_tokens():
    values = np.random.default_rng(1).normal(0.5, 1, 6400)
    (low, high), (few_low, few_high) = interval(values, 0), interval(values[:400], 0)
    assert low < values.mean() < high
    assert 2 < (few_high - few_low) / (high - low) < 8  # the root of 16 is 4
    assert high - low == pytest.approx(2 * 1.96 / math.sqrt(values.size), rel=0.25)
    assert interval(values, 0) == (low, high)


def test_wikitext_is_written_as_people_write():
    text = " = Robert Boulter = \n He 's a \" well @-@ known \" actor ( born 1 @,@ 980 ) , is n't he ? "
    assert detokenise_wikitext(text) == "= Robert Boulter =\nHe's a \"well-known\" actor (born 1,980), isn't he?"


def test_a_text_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"ab\xff")
    with pytest.raises(BadInput, match=re.escape("is not UTF-8 text (byte 2)")):
        read_text(tmp_path / "x.txt")
    with pytest.raises(BadInput, match="cannot be read"):
        read_text(tmp_path / "y.txt")
    with pytest.raises(BadInput, match=re.escape("--detokenise: 'x' is not known; choose from wikitext")):
        read_text(tmp_path / "x.txt", "x")
