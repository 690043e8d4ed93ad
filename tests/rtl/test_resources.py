"""What a module takes of an FPGA, by Yosys: products in DSP slices, deep memories in block RAM, alike modules synthesized once."""

import pytest

pytest.importorskip("amaranth")
pytest.importorskip("pyosys")

from tapeout.base.errors import BadInput
from tapeout.flow.prepare import prepare_chip
from tapeout.rtl import resources
from tapeout.rtl.banked import BankedMemory, BankShape
from tapeout.rtl.dot_product import DotProduct
from tapeout.rtl.memory import Read, Write
from tapeout.rtl.resources import Design, count, merged, modules_of, synthesize

LEAF = "module \\{0}\n  wire width 1 input 0 \\a\nend\n"
BRANCH = "module \\{0}\n  wire width 1 \\a\n  cell \\{0}.leaf \\leaf\n    connect \\a \\a\n  end\nend\n"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_dot_product_takes_a_dsp_slice_per_product():
    chip = prepare_chip("tiny", {"tile.matrix.rows": "4", "tile.matrix.lanes": "8", "tile.matrix.formats": "[int8]"})
    found = count(synthesize(Design("dots", modules_of(DotProduct(chip), "dots"), {})))
    assert found.dsp == 4 * 8
    assert found.flip_flops >= 4 * 24, "a sum per row"
    assert 0 < found.lut < 6000
    assert (found.lut_memory, found.bram_36k) == (0, 0)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_deep_bank_is_block_ram_and_nothing_of_it_flip_flops():
    shape = BankShape(banks=1, rows=512, line_words=4, part_words=2, widest=3)
    memory = BankedMemory("store", shape, {"out": Read(3, "sync")}, {"in": Write(3, "sync")})
    memory._MustUse__silence = True
    found = count(synthesize(Design("store", {}, resources.in_columns(memory))))
    assert found.bram_36k == 2, "512 rows of 64 bits are one block, and there are two macros"
    assert found.flip_flops < 64


def test_alike_modules_become_one_with_their_children():
    parts = {
        "top": "module \\top\n  cell \\top.one \\one\n  end\n  cell \\top.two \\two\n  end\n  cell \\top.other \\other\n  end\nend\n",
        **{f"top.{name}": BRANCH.format(f"top.{name}") for name in ("one", "two")},
        **{f"top.{name}.leaf": LEAF.format(f"top.{name}.leaf") for name in ("one", "two")},
        "top.other": LEAF.format("top.other").replace("width 1", "width 2"),
    }
    found = merged(parts)
    assert sorted(found) == ["top", "top.one", "top.one.leaf", "top.other"]
    assert found["top"].count("\\top.one ") == 2


def test_halves_of_block_rams_and_memories_in_luts_are_counted():
    found = count(
        {
            "LUT2": 3,
            "LUT6": 2,
            "RAM32M16": 2,
            "RAMB18E2": 1,
            "RAMB36E2": 2,
            "DSP48E2": 4,
            "FDRE": 5,
            "FDSE": 1,
            "CARRY4": 9,
        }
    )
    assert found == resources.Resources(lut=21, lut_memory=16, dsp=4, flip_flops=6, bram_36k=2.5)


def test_a_latch_is_never_counted_as_something_else():
    with pytest.raises(AssertionError, match="latches"):
        count({"LDCE": 1})


def test_a_cell_that_is_not_known_is_not_counted_as_nothing():
    with pytest.raises(AssertionError, match="URAM288"):
        count({"URAM288": 1})


def test_without_yosys_the_command_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(resources, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"--resources.*pyosys.*pip install \"tapeout\[rtl\]\""):
        resources.estimate(prepare_chip("tiny", {}))
