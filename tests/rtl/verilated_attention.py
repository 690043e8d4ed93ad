"""The attention unit Verilated, gated clocks and all, with a memory around it in C++: thousands of micro-ops in a second."""

import ctypes
from functools import cache

import numpy as np

from tapeout.isa.opcodes import Op
from tapeout.rtl.attention_unit import CLOCKS, AttentionUnit
from tapeout.rtl.clock_gate import SelfClocked
from tapeout.rtl.ports import issue_of
from tapeout.rtl.verilate import library, verilog_of

FIELDS = "op flags rows columns tokens heads slot dst a b c s0 s1 s2 s3 s4".split()
DONE = (Op.SCORE, Op.VALUE, Op.ATTNOUT)

SHIM = """
#include <cstdint>
#include <cstring>
template <class T> static uint32_t word(const T& x, int k) {
  if constexpr (sizeof(T) <= 8) return uint32_t(uint64_t(x) >> (32 * k)); else return x[k];
}
template <class T> static void fill(T& x, const uint8_t* from) {
  if constexpr (sizeof(T) <= 8) std::memcpy(&x, from, sizeof(T)); else std::memcpy(&x[0], from, sizeof(T));
}
template <class E, class D> static void store(uint8_t* memory, E en, uint32_t at, const D& data) {
  for (int k = 0; uint64_t(en) >> k; k++) if (en >> k & 1) memory[4 * at + k] = word(data, k / 4) >> (8 * (k % 4));
}
// Micro-op `next` issues in cycle at[next]; done[c] has a bit for each opcode that ends in cycle c. Returns whether a result was too large.
extern "C" int play(long cycles, long ops, const long* at, const uint32_t* op, int words, uint8_t* memory, uint8_t* stream, uint8_t* done) {
  Model* model = new Model(new VerilatedContext);
  int overflow = 0;
  long next = 0;
  model->rst = 0; model->clk = 0; model->eval();
  for (long c = 0; c < cycles; c++) {
    model->go = next < ops && at[next] == c;
    if (model->go) { std::memcpy(&model->op[0], op + words * next, 4 * words); next++; }
    model->eval();
    auto from = [&](bool streamed) { return streamed ? stream : memory; };
    done[c] = model->done___05Fscore | model->done___05Fvalue << 1 | model->done___05Fattnout << 2;
    overflow |= model->overflow;
    model->clk = 1;
    // The ports' data change after the edge: what they are is taken before.
    const bool q_en = model->q___05Fen, kv_en = model->kv___05Fen, scores_en = model->scores___05Fen;
    uint8_t* const q = from(model->q___05Fstream) + 4 * model->q___05Faddr;
    uint8_t* const kv = from(model->kv___05Fstream) + 4 * model->kv___05Faddr;
    uint8_t* const scores = memory + 4 * model->scores___05Faddr;
    auto q_data = model->q___05Fdata; auto kv_data = model->kv___05Fdata; auto scores_data = model->scores___05Fdata;
    if (q_en) fill(q_data, q);
    if (kv_en) fill(kv_data, kv);
    if (scores_en) fill(scores_data, scores);
    store(memory, model->scores_out___05Fen, model->scores_out___05Faddr, model->scores_out___05Fdata);
    store(memory, model->out___05Fen, model->out___05Faddr, model->out___05Fdata);
    model->eval();
    model->q___05Fdata = q_data; model->kv___05Fdata = kv_data; model->scores___05Fdata = scores_data;
    model->clk = 0; model->eval();
  }
  delete model;
  return overflow;
}
"""


@cache
def load(chip):
    """The unit of `chip`."""
    text = verilog_of(SelfClocked(AttentionUnit(chip), CLOCKS), "attention")
    return ctypes.CDLL(str(library(lambda: {"attention.v": text}, "attention", SHIM, False, text)))


def play(chip, maker, cycles):
    """(memory, done as in `bench.Bench`, overflow) after the maker's steps."""
    memory, stream, done = maker.memory.copy(), maker.stream.copy(), np.zeros(cycles, np.uint8)
    issues = np.array([cycle for cycle, _, _ in maker.steps], np.int64)
    ops = np.array([_issue(op, maker.position, j, chip) for _, op, j in maker.steps], np.uint32)
    pointers = [ctypes.c_void_p(x.ctypes.data) for x in (issues, ops, memory, stream, done)]
    overflow = load(chip).play(
        ctypes.c_long(cycles), ctypes.c_long(issues.size), *pointers[:2], ops.shape[1], *pointers[2:]
    )
    ended = [
        (op.name.lower(), int(cycle) + 1) for bit, op in enumerate(DONE) for cycle in np.flatnonzero(done >> bit & 1)
    ]
    return memory, ended, bool(overflow)


def _issue(op, position, j, chip):
    """A micro-op as the words of `rtl.ports.issue_of`."""
    layout = issue_of(chip)
    values = {name: int(getattr(op, name)) for name in FIELDS} | {"position": position, "inner": j}
    number = sum(value << layout[name].offset for name, value in values.items())
    return [number >> 32 * k & 0xFFFFFFFF for k in range(-(-layout.size // 32))]
