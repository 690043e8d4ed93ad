"""`tapeout models`: checkpoints that run, shapes that are estimated."""

import json

import pytest

from tapeout.flow.models import find_shape


@pytest.fixture
def models(tapeout):
    """Run `tapeout models`: (exit code, standard output, standard error)."""
    return lambda *arguments: tapeout("models", *arguments)


def test_checkpoints_are_listed_before_shapes(models):
    rows = json.loads(models("--json")[1])["rows"]
    kinds = [row["kind"] for row in rows]
    assert rows[0]["name"] == "fable"
    assert kinds == sorted(kinds)


def test_a_shape_tells_published_and_own_count(models):
    told = json.loads(models("gpt-oss-120b", "--json")[1])
    figures = told["figures"]
    assert figures["published_parameters"] == {"value": 116_830_000_000, "unit": "", "origin": "cited"}
    assert abs(figures["difference"]["value"]) < 1e-4
    assert figures["active_parameters"]["value"] == pytest.approx(5.13e9, rel=0.005)
    assert told["weight_bytes"]["mxfp4"] == pytest.approx(65.2e9, rel=0.005)
    assert sum(row["parameters"] for row in told["rows"]) < figures["parameters"]["value"]


def test_a_checkpoint_tells_what_its_file_holds(models):
    told = json.loads(models("fable", "--json")[1])
    assert told["figures"]["parameters"]["origin"] == "measured"
    assert told["rows"][-1]["name"] == "head"


def test_an_unknown_model_is_one_line_with_the_nearest_names(models):
    code, out, err = models("llama-3.1-9b")
    assert (code, out) == (2, "")
    assert err.startswith(
        "tapeout: model: 'llama-3.1-9b' is neither the name of a model nor a file; nearest: llama-3.1-8b"
    )


def test_the_estimator_finds_our_own_models_and_published_ones():
    assert find_shape("fable").layers == 3
    assert find_shape("Llama-3.1-8B-Instruct").name == "llama-3.1-8b"
