"""Every binary32 box in one Verilated module, driven over arrays: 10^7 results take seconds.

The wanted results are NumPy's own IEEE arithmetic, with the flush rule of docs/numerics.md spelled out here: nothing of the package takes part.
"""

import ctypes

import numpy as np
from amaranth.hdl import Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tapeout.rtl.binary32 import Add32, ExponentAdd, FromInteger, Mul32
from tapeout.rtl.divide import Divide32, Divide32Pipelined, Sqrt32
from tapeout.rtl.verilate import library, verilog_of

PIPELINED = {"add": Add32, "mul": Mul32, "div": Divide32Pipelined}
LATENCY = max(box.STAGES for box in PIPELINED.values())

SHIM = """
static Model* model;
static void tick() { model->clk = 0; model->eval(); model->clk = 1; model->eval(); }
extern "C" void open_model() { model = new Model(new VerilatedContext); model->rst = 0; model->start = 0; tick(); }
// Operands of pair k stand in cycle k; its result in box x stands stages[x] cycles later.
extern "C" void pipelined(long count, const unsigned* a, const unsigned* b, const long* i, const short* k, const int* stages,
                          unsigned* y, unsigned char* infinite) {
  for (long c = 0; c < count + 64; c++) {
    long at = c < count ? c : count - 1;
    model->a = a[at]; model->b = b[at]; model->i = i[at]; model->k = k[at] & 0x7FF;
    model->eval();
    const unsigned now[5] = {model->y_add, model->y_mul, model->y_div, model->y_int, model->y_exp};
    const unsigned char over[5] = {model->infinite_add, model->infinite_mul, model->infinite_div, model->infinite_int, model->infinite_exp};
    for (int box = 0; box < 5; box++) {
      long from = c - stages[box];
      if (from >= 0 && from < count) { y[box * count + from] = now[box]; infinite[box * count + from] = over[box]; }
    }
    tick();
  }
}
extern "C" void iterative(long count, int cycles, const unsigned* a, const unsigned* b, unsigned* y, unsigned char* infinite) {
  for (long c = 0; c < count; c++) {
    model->a = a[c]; model->b = b[c]; model->start = 1;
    for (int k = 0; k < cycles; k++) { tick(); model->start = 0; }
    model->eval();
    y[c] = model->y_slow; y[count + c] = model->y_root; infinite[c] = model->infinite_slow; infinite[count + c] = !model->done_both;
  }
}
"""


class Boxes(wiring.Component):
    """All boxes side by side on the same operands."""

    def __init__(self):
        names = ("add", "mul", "div", "int", "exp", "slow", "root")
        super().__init__(
            {"a": In(32), "b": In(32), "i": In(signed(64)), "k": In(signed(11)), "start": In(1), "done_both": Out(1)}
            | {f"y_{name}": Out(32) for name in names}
            | {f"infinite_{name}": Out(1) for name in names}
        )

    def elaborate(self, platform):
        m = Module()
        boxes = {name: box() for name, box in PIPELINED.items()}
        boxes |= {"int": FromInteger(64), "exp": ExponentAdd(), "slow": Divide32(), "root": Sqrt32()}
        for name, box in boxes.items():
            m.submodules[name] = box
            for port in box.signature.members:
                if port in ("a", "b", "i", "k", "start"):
                    m.d.comb += getattr(box, port).eq(getattr(self, port))
            m.d.comb += [getattr(self, f"y_{name}").eq(box.y), getattr(self, f"infinite_{name}").eq(box.infinite)]
        m.d.comb += boxes["exp"].x.eq(self.a)
        m.d.comb += self.done_both.eq(boxes["slow"].done & boxes["root"].done)
        return m


STAGES = (Add32.STAGES, Mul32.STAGES, Divide32Pipelined.STAGES, FromInteger.STAGES, ExponentAdd.STAGES)
assert Divide32.CYCLES == Sqrt32.CYCLES


def load():
    """The Verilated boxes, opened."""
    text = verilog_of(Boxes(), "boxes")
    loaded = ctypes.CDLL(str(library(lambda: {"boxes.v": text}, "boxes", SHIM, False, text)))
    loaded.open_model()
    return loaded


def run(loaded, a, b, i, k):
    """(y, infinite), each [5, n]: sum, product, quotient, F(i, k), X(a, k)."""
    arrays = [
        np.ascontiguousarray(x, t)
        for x, t in ((a, np.uint32), (b, np.uint32), (i, np.int64), (k, np.int16), (STAGES, np.int32))
    ]
    y, infinite = np.empty((5, a.size), np.uint32), np.empty((5, a.size), np.uint8)
    loaded.pipelined(ctypes.c_long(a.size), *map(_pointer, (*arrays, y, infinite)))
    return y, infinite


def run_slow(loaded, a, b):
    """(y, fault), each [2, n]: quotient and root of the iterative boxes; fault is `infinite`, and a `done` that did not come in its cycle."""
    y, fault = np.empty((2, a.size), np.uint32), np.empty((2, a.size), np.uint8)
    arrays = [np.ascontiguousarray(x, np.uint32) for x in (a, b)]
    loaded.iterative(ctypes.c_long(a.size), Divide32.CYCLES, *map(_pointer, (*arrays, y, fault)))
    return y, fault


def _pointer(x):
    return x.ctypes.data_as(ctypes.c_void_p)


def ieee(name, a, b, i, k):
    """NumPy's result, then our flush: below 2^-126 and not exactly zero is +0."""
    x, z = a.view(np.float32), b.view(np.float32)
    with np.errstate(all="ignore"):
        if name == "add":
            y, exact_zero = x + z, np.zeros(a.size, bool)
        elif name == "mul":
            y, exact_zero = x * z, (x == 0) | (z == 0)
        elif name == "div":
            y, exact_zero = x / z, x == 0
        elif name == "root":
            y, exact_zero = np.sqrt(x), x == 0
        elif name == "int":
            y, exact_zero = _scaled(i, k), i == 0
        else:
            y, exact_zero = np.ldexp(x.astype(np.float64), np.clip(k, -900, 800)).astype(np.float32), x == 0
    exact_zero = exact_zero | ((name == "add") & (y == 0))
    return np.where((np.abs(y) < np.float32(2.0**-126)) & ~exact_zero, np.float32(0), y)


def _scaled(i, k):
    """i * 2^k rounded once. x87's 64-bit significand holds any int64 exactly, and its exponent any k here."""
    return np.ldexp(i.astype(np.longdouble), k.astype(np.int32)).astype(np.float32)
