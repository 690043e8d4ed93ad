"""Which models a chip holds, and why not."""

import pytest

from tapeout.base.errors import BadInput
from tapeout.chip.catalogue import datasheet
from tapeout.chip.presets import load_chip
from tapeout.flow.fits import fits, fits_report, unsupported
from tapeout.flow.models import find_shape, stored_bytes
from tapeout.graph.shapes import load_shape


def test_a_70b_takes_two_h100_in_16_bits_and_one_in_8():
    shape, chip = load_shape("llama-3.1-70b"), datasheet("nvidia_h100_sxm")
    assert [fits(shape, chip, weights).chips for weights in ("bf16", "fp8")] == [2, 1]


def test_a_chip_without_external_memory_is_filled_by_its_sram():
    shape, chip = load_shape("llama-2-70b"), datasheet("groq_lpu_v1")
    size = stored_bytes(shape, "fp8") + 2 * 80 * 8 * 128 * 1024
    assert fits(shape, chip, "fp8").chips == -(-size // 230e6)


def test_a_hardwired_chip_runs_its_model_only():
    chip = datasheet("taalas_hc1")
    assert fits(load_shape("llama-3.1-8b"), chip, "fp8").chips == 1
    other = fits(load_shape("llama-3.2-1b"), chip, "fp8")
    assert (other.chips, other.why) == (None, "hardwired for llama-3.1-8b")


def test_chips_that_nothing_joins_hold_what_one_holds():
    fit = fits(load_shape("llama-2-70b"), datasheet("apple_m4_ane"), "bf16")
    assert (fit.chips, fit.why) == (None, "needs 5 chips, and no way to join them was published")


def test_a_system_has_so_many_chips():
    fit = fits(load_shape("deepseek-v3"), datasheet("nvidia_dgx_h100"), "fp8")
    assert (fit.chips, fit.why) == (None, "needs 9 chips; the system has 8")


def test_our_chips_say_what_they_have_no_op_for():
    assert fits(find_shape("fable"), load_chip("tiny"), "int8").chips == 1
    assert fits(load_shape("qwen3-8b"), load_chip("edge"), "int4").why == "no op for normed queries and keys"
    assert fits(load_shape("llama-2-7b"), load_chip("tiny"), "int4").why.startswith("needs 4,")
    assert unsupported(load_shape("llama-3.1-405b")) == ()


def test_experts_released_in_four_bits_leave_the_rest_in_sixteen():
    shape = load_shape("gpt-oss-120b")
    assert stored_bytes(shape, "mxfp4") == stored_bytes(shape, "nvfp4") == pytest.approx(65.2e9, rel=0.005)
    assert stored_bytes(shape, "bf16") == 2 * shape.parameters


def test_a_chip_whose_memory_nobody_published_is_refused_by_name():
    with pytest.raises(BadInput, match=r"^taalas_hc2\.memory: was never published; set offchip_gb"):
        fits_report("taalas_hc2")


def test_an_unknown_chip_gives_the_nearest_names():
    with pytest.raises(BadInput, match=r"^chip: 'h1000' is no chip; nearest: .*nvidia_h100_sxm"):
        fits_report("h1000")


def test_one_model_or_all_are_told_in_every_format():
    assert [row["weights"] for row in fits_report("h100", "mixtral-8x7b").json["rows"]] == ["bf16", "fp8", "nvfp4"]
    assert len({row["model"] for row in fits_report("edge").json["rows"]}) > 20
