"""A whole model speaks from RTL: tokens, logits, cycles and written bytes are equal in RTL, simulator and schedule."""

import pytest

from smollm2 import smollm2_path

pytest.importorskip("amaranth")

from tapeout.flow.cosim import CosimRequest, cosim


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_embedded_model_says_64_tokens_from_the_rtl_of_tiny():
    answer = cosim(CosimRequest("fable", "tiny", prompt="Once upon a time", tokens=64, raw=True)).json
    assert answer["equal"], answer["difference"]
    assert answer["cycles"] == answer["predicted_cycles"]


@pytest.mark.slow
@pytest.mark.smollm2
@pytest.mark.timeout(1200)
def test_smollm2_says_four_tokens_from_the_rtl_of_fpga():
    smollm2_path()
    answer = cosim(CosimRequest("smollm2-135m-instruct", "fpga", prompt="Hi", tokens=4, raw=True)).json
    assert answer["equal"], answer["difference"]
    assert answer["cycles"] == answer["predicted_cycles"]
