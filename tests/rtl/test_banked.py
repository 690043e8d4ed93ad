"""The SRAM as it is built, banks behind a crossbar, does what its flat model does for every traffic that the compiler may schedule."""

import ctypes
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pytest
from random_programs import random_program, random_rtl_chip, random_steps

pytest.importorskip("amaranth")

from random_runs import compare_memory

from tapeout.base.errors import BadInput, Overflow
from tapeout.flow.cosim import Pair
from tapeout.rtl.banked import BankedMemory, BankShape, line_of
from tapeout.rtl.engine import RtlEngine
from tapeout.rtl.limits import check_one_port
from tapeout.rtl.memory import FlatMemory, Read, Write
from tapeout.rtl.ports import WORD_BITS
from tapeout.rtl.verilate import library

SHIM = """
extern "C" void run(const uint32_t* in, int64_t cycles, int64_t in_words, int64_t out_words, uint32_t* flat, uint32_t* banked) {
    VerilatedContext context;
    Model model{&context};
    model.clk = 1, model.eval();
    for (int64_t c = 0; c < cycles; c++) {
        for (int64_t k = 0; k < in_words; k++) model.in[k] = in[c * in_words + k];
        model.clk = 0, model.eval();
        model.clk = 1, model.eval();
        for (int64_t k = 0; k < out_words; k++) flat[c * out_words + k] = model.flat[k], banked[c * out_words + k] = model.banked[k];
    }
}
"""


@dataclass(frozen=True)
class Case:
    """Banks of `rows` lines, wide enough for the widest of the ports."""

    banks: int
    rows: int
    reads: tuple[int, ...]
    writes: tuple[int, ...]
    """Words per access; the first of both is the host's, whole words only."""

    @property
    def shape(self) -> BankShape:
        widest = max(self.reads + self.writes)
        return BankShape(self.banks, self.rows, *line_of(widest), widest)

    @property
    def bank_words(self) -> int:
        return self.shape.rows * self.shape.line_words

    @property
    def words(self) -> int:
        return self.banks * self.bank_words

    def memories(self) -> tuple[FlatMemory, BankedMemory]:
        reads = {f"r{k}": Read(words, "sync") for k, words in enumerate(self.reads)}
        writes = {f"w{k}": Write(words, "sync", bytewise=k > 0) for k, words in enumerate(self.writes)}
        both = (
            FlatMemory("flat_memory", self.words, reads, writes),
            BankedMemory("banked_memory", self.shape, reads, writes),
        )
        for memory in both:
            memory._MustUse__silence = True  # Only their texts are wanted.
        return both


CASES = (
    Case(banks=1, rows=4, reads=(1, 2), writes=(1, 3)),
    Case(banks=4, rows=2, reads=(1, 9, 4), writes=(1, 9, 4)),
    Case(banks=3, rows=4, reads=(1, 17, 8, 9), writes=(1, 5, 17)),
    Case(banks=6, rows=8, reads=(1, 13, 32, 2), writes=(1, 16, 9, 1)),
)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.banks}x{case.rows}x{case.shape.line_words}")
def test_banks_behind_a_crossbar_read_what_the_flat_memory_reads(case):
    traffic, checked = random_traffic(case, np.random.default_rng(case.banks), cycles=2000)
    flat, banked = run(case, traffic)
    wrong = np.argwhere((flat != banked) & checked)
    assert not wrong.size, (
        f"cycle {wrong[0, 0]}, word {wrong[0, 1]} of all ports: flat {flat[tuple(wrong[0])]:#x}, banks {banked[tuple(wrong[0])]:#x}"
    )
    assert checked.mean() > 0.1, "the traffic reads"


def small_chip(banks):
    """Two tiles of the least of everything."""
    return random_rtl_chip(
        3, grid={"columns": 2, "rows": 1}, streamed=False, tile__matrix__rows="4", tile__matrix__lanes="8", tile__vector__lanes="2",
        tile__attention__keys="1", tile__attention__lanes="8", tile__sram__kib="128", tile__sram__banks=str(banks), link__bytes_per_cycle="8",
    )  # fmt: skip


def fits_ports(program):
    """No micro-op of it needs one port of a bank twice in a cycle."""
    try:
        check_one_port(program)
    except BadInput:
        return False
    return True


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_chip_with_its_sram_in_banks_runs_random_programs_as_the_simulator_does():
    chip = small_chip(banks=64)
    seeds = [seed for seed in range(40) if fits_ports(random_program(seed, chip))]
    assert len(seeds) >= 3, "enough random programs keep the operands of a micro-op in different banks"
    for seed in seeds:
        program = random_program(seed, chip)
        pair = Pair(program, banked=True)
        with suppress(Overflow):
            for ids, position, every in random_steps(seed, program):
                pair.step(ids, position, every)
                compare_memory(pair, f"seed {seed}, after position {position}")


def test_a_program_whose_micro_op_needs_a_port_twice_is_refused_in_banks():
    program = random_program(0, small_chip(banks=16))
    with pytest.raises(BadInput, match=r"(reads|writes) bank \d+ of tile \d twice in a cycle.*different banks"):
        RtlEngine(program, banked=True)


# --- traffic: per cycle and port (enable bits, address, data), as the words of one wide input ---


def random_traffic(case, rng, cycles):
    """(words of the input, which output words are to be equal). All words are written first and read last."""
    inputs, checked = [], []
    for at in range(case.words):
        inputs.append(_cycle(case, {}, {0: (at, 0xF, rng.bytes(4))}))
        checked.append(_expected(case, {}, set()))
    for _ in range(cycles):
        writes, written = _legal_writes(case, rng)
        reads = _legal_reads(case, rng)
        inputs.append(_cycle(case, reads, writes))
        checked.append(_expected(case, reads, written))
    for at in range(case.words):
        inputs.append(_cycle(case, {0: at}, {}))
        checked.append(_expected(case, {0: at}, set()))
    return np.array(inputs), np.array(checked)


def _place(case, rng):
    """Any word, half of the time one near the end of a bank."""
    if rng.random() < 0.5:
        return int(rng.integers(case.words))
    return int((rng.integers(case.banks) + 1) * case.bank_words - 1 - rng.integers(case.shape.line_words))


def _legal_writes(case, rng):
    """No two writes in one bank, none behind the end. Returns {port: (address, byte enables, data)} and the words written."""
    busy, writes, written = set(), {}, set()
    for port in rng.permutation(len(case.writes)):
        words, at = case.writes[port], _place(case, rng)
        each = [int(rng.integers(16)) if port else 15 * int(rng.integers(2)) for _ in range(words)]
        touched = {at + k for k in range(words) if each[k]}
        banks = {word // case.bank_words for word in touched}
        if touched and max(touched) < case.words and not banks & busy:
            busy |= banks
            written |= touched
            writes[int(port)] = at, sum(bits << 4 * k for k, bits in enumerate(each)), rng.bytes(4 * words)
    return writes, written


def _legal_reads(case, rng):
    """No two reads begin in one bank. {port: address}."""
    busy, reads = set(), {}
    for port in rng.permutation(len(case.reads)):
        at = _place(case, rng)
        if rng.random() < 0.8 and at // case.bank_words not in busy:
            busy.add(at // case.bank_words)
            reads[int(port)] = at
    return reads


def _expected(case, reads, written):
    """Which words of the output must be equal: those read, but not behind a bank where another port begins, nor written in this very cycle."""
    begun, checked = {at // case.bank_words for at in reads.values()}, []
    for port, words in enumerate(case.reads):
        at = reads.get(port)
        for word in range(at, at + words) if at is not None else [None] * words:
            own = word is not None and (word // case.bank_words == at // case.bank_words)
            free = word is not None and word < case.words and (own or word // case.bank_words not in begun)
            checked.append(free and word not in written)
    return checked


def _cycle(case, reads, writes):
    bits, at = 0, 0
    for value, width in _fields(case, reads, writes):
        bits |= value << at
        at += width
    return np.frombuffer(bits.to_bytes(4 * _input_words(case), "little"), np.uint32)


def _fields(case, reads, writes):
    for port in range(len(case.reads)):
        yield int(port in reads), 1
        yield reads.get(port, 0), WORD_BITS
    for port, words in enumerate(case.writes):
        at, enables, data = writes.get(port, (0, 0, b""))
        yield enables, 4 * words
        yield at, WORD_BITS
        yield int.from_bytes(data, "little"), 32 * words


def _input_words(case):
    return max(3, -(-sum(width for _, width in _fields(case, {}, {})) // 32))


# --- both memories side by side ---


def run(case, traffic):
    """What both read, cycle by cycle: [cycles, words of all read ports]."""
    memories = case.memories()
    texts = {
        f"{name}.sv": text for memory in memories for name, text in memory.modules().items()
    } | {"both.sv": _both(case, memories)}  # fmt: skip
    path = library(lambda: texts, "both", SHIM, False, "\0".join(texts.values()))
    call, words = ctypes.CDLL(str(path)).run, max(3, sum(case.reads))
    call.argtypes = [ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p, ctypes.c_void_p]
    traffic = np.ascontiguousarray(traffic, np.uint32)
    flat, banked = (np.zeros((len(traffic), words), np.uint32) for _ in range(2))
    call(traffic.ctypes.data, *traffic.shape, words, flat.ctypes.data, banked.ctypes.data)
    return flat[:, : sum(case.reads)], banked[:, : sum(case.reads)]


def _both(case, memories):
    """A module with one wide input, cut into the ports of both."""
    flat, banked = memories
    width, out = 32 * _input_words(case), 32 * max(3, sum(case.reads))
    pins, at = {}, 0
    for name, port in (flat.reads | flat.writes).items():
        wide = 1 if isinstance(port, Read) else 4 * port.words
        for what, bits in (
            ("en", wide),
            ("addr", WORD_BITS),
            *([("data", 32 * port.words)] if isinstance(port, Write) else []),
        ):
            pins[f"{name}_{what}"] = f"in[{at + bits - 1}:{at}]"
            at += bits
    lines = [
        f"module both(input clk, input [{width - 1}:0] in, output [{out - 1}:0] flat, output [{out - 1}:0] banked);"
    ]
    for memory, clocks in ((flat, [f"{name}_clk" for name in flat.reads | flat.writes]), (banked, ["clk"])):
        word, outs = 0, {}
        for name, port in memory.reads.items():
            outs[f"{name}_data"] = (
                f"{'flat' if memory is flat else 'banked'}[{32 * (word + port.words) - 1}:{32 * word}]"
            )
            word += port.words
        joined = ", ".join(f".{pin}({to})" for pin, to in (dict.fromkeys(clocks, "clk") | pins | outs).items())
        lines.append(f"  {memory.name} its_{memory.name}({joined});")
    return "\n".join([*lines, "endmodule", ""])
