"""The Verilog that `tapeout rtl` writes is clean under Verilator's -Wall but for the waivers beside it; a latch or a loop never is."""

import pytest

pytest.importorskip("amaranth")

from tapeout.flow.emit_verilog import FILE_LIST, emit_verilog
from tapeout.flow.prepare import prepare_chip
from tapeout.rtl.lint import WAIVER_FILE, WAIVERS, lint, waiver_text
from tapeout.rtl.verilog import TOP

LATCH = "module bad(input open, input d, output reg q); always @* if (open) q = d; endmodule\n"
LOOP = "module bad(input a, output y); wire x; assign x = ~(y & a); assign y = ~(x | a); endmodule\n"
LATE = "module bad(input clk, input d, output reg q); always @(posedge clk) q = d; endmodule\n"
DRIVEN = "module bad(input a, input b, input d, output reg q); always @(posedge a) q <= d; always @(posedge b) q <= ~d; endmodule\n"
NARROW = "module one(input [3:0] a, output y); assign y = ^a; endmodule\nmodule bad(input [2:0] a, output y); one one(a, y); endmodule\n"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_verilog_of_tiny_has_no_warning_that_is_not_waived(tmp_path):
    folder = tmp_path / "tiny"
    emit_verilog(prepare_chip("tiny", {}), folder)
    found = lint(folder, (folder / FILE_LIST).read_text().split(), TOP)
    assert not found, "\n".join(found[:20])


@pytest.mark.parametrize(
    ("rule", "text"), [("LATCH", LATCH), ("UNOPTFLAT", LOOP), ("BLKSEQ", LATE), ("MULTIDRIVEN", DRIVEN), ("WIDTHEXPAND", NARROW)]
)  # fmt: skip
def test_a_fault_is_found_with_all_waivers_in_force(rule, text, tmp_path):
    (tmp_path / "bad.v").write_text(text)
    (tmp_path / WAIVER_FILE).write_text(waiver_text())
    found = lint(tmp_path, ["bad.v"], "bad")
    assert any(warning.startswith(f"%Warning-{rule}:") for warning in found), "\n".join(found)


def test_every_waiver_has_its_reason_and_none_is_of_a_latch_or_a_loop():
    assert all(len(waiver.reason) > 20 for waiver in WAIVERS)
    assert not {"LATCH", "UNOPTFLAT", "COMBDLY", "BLKSEQ", "MULTIDRIVEN", "BLKLOOPINIT"} & {w.rule for w in WAIVERS}
