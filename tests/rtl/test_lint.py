"""The Verilog that `tapeout rtl` writes is clean under Verilator's -Wall but for the waivers beside it; a latch or a loop never is."""

import pytest

pytest.importorskip("amaranth")

from tapeout.flow.emit_verilog import FILE_LIST, emit_verilog
from tapeout.flow.prepare import prepare_chip
from tapeout.rtl.lint import WAIVER_FILE, WAIVERS, lint, waiver_text
from tapeout.rtl.verilog import TOP

FAULTS = {
    "LATCH": "module bad(input open, input d, output reg q); always @* if (open) q = d; endmodule\n",
    "UNOPTFLAT": "module bad(input a, output y); wire x; assign x = ~(y & a); assign y = ~(x | a); endmodule\n",
    "BLKSEQ": "module bad(input clk, input d, output reg q); always @(posedge clk) q = d; endmodule\n",
    "MULTIDRIVEN": "module bad(input a, input b, output reg q); always @(posedge a) q <= b; always @(posedge b) q <= a; endmodule\n",
    "WIDTHEXPAND": "module one(input [3:0] a, output y); assign y = ^a; endmodule\n"
    "module bad(input [2:0] a, output y); one one(a, y); endmodule\n",
}
"""By the rule that finds it; the last one is a port of another width than its module's."""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_verilog_of_tiny_has_no_warning_that_is_not_waived(tmp_path):
    folder = tmp_path / "tiny"
    emit_verilog(prepare_chip("tiny", {}), folder)
    found = lint(folder, (folder / FILE_LIST).read_text().split(), TOP)
    assert not found, "\n".join(found[:20])


@pytest.mark.parametrize("rule", FAULTS)
def test_a_fault_is_found_with_all_waivers_in_force(rule, tmp_path):
    (tmp_path / "bad.v").write_text(FAULTS[rule])
    (tmp_path / WAIVER_FILE).write_text(waiver_text())
    found = lint(tmp_path, ["bad.v"], "bad")
    assert any(warning.startswith(f"%Warning-{rule}:") for warning in found), "\n".join(found)


def test_every_waiver_has_its_reason_and_none_is_of_a_latch_or_a_loop():
    assert all(len(waiver.reason) > 20 for waiver in WAIVERS)
    assert not {*FAULTS, "COMBDLY"} - {"WIDTHEXPAND"} & {waiver.rule for waiver in WAIVERS}
