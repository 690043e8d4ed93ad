"""The prover itself: only PASS is a proof, and only a run that breaks the claim refutes it."""

import pytest

pytest.importorskip("amaranth")

from amaranth.hdl import Module, Mux, Signal
from prove import _verdict, claim, holds, lemma, proved

SMALL = "The counter stays below 6"


def counter(m: Module) -> None:
    """0 to 5, again and again; 100 would stay 100."""
    at = Signal(8)
    m.d.sync += at.eq(Mux(at == 5, 0, Mux(at == 100, 100, at + 1)))
    claim(m, "The counter is not 99", at != 99)
    lemma(m, SMALL, at < 6)


def wrong(m: Module) -> None:
    at = Signal(8)
    m.d.sync += at.eq(at + 1)
    claim(m, SMALL, at < 6)


@pytest.mark.parametrize(
    "log", ["", "DONE (TIMEOUT, rc=8)", "DONE (ERROR, rc=16)", "DONE (UNKNOWN, rc=4)", "Traceback"]
)
def test_a_tool_that_gives_no_answer_proves_and_refutes_nothing(log: str) -> None:
    verdict = _verdict(f"{log}\nAssert failed in top: {SMALL.replace(' ', '_')} (x)" if "UNKNOWN" in log else log)
    assert not verdict
    assert not verdict.refutes(SMALL)


@pytest.mark.slow
def test_induction_needs_its_lemma(tmp_path) -> None:
    """Without it the claim holds for some cycles, and is no proof for ever."""
    (tmp_path / "with").mkdir()
    assert (verdict := proved(counter, tmp_path / "with")), verdict
    assert holds(counter, tmp_path, 4)


@pytest.mark.slow
def test_a_wrong_claim_is_refuted_when_the_cycles_reach_it(tmp_path) -> None:
    (tmp_path / "short").mkdir()
    assert holds(wrong, tmp_path / "short", 6)
    assert holds(wrong, tmp_path, 7).refutes(SMALL)
    assert not proved(wrong, tmp_path)
