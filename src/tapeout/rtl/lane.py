"""Two lanes of the vector unit: every micro-op's binary32 arithmetic in one pipeline of two products and a sum, an element per lane and cycle.

    result = x*p + u*y          p, u = 1, a function of x, the cosine and sine of a position, an embedding's scale
    result = (x*p)*y + -0       norm's last pass (p = r), swiglu, an embedding whose format has a factor (y)

Multiplying by 1 and adding -0 change nothing, not even a zero's sign, so that every micro-op takes equally long. Two lanes are one box because
RoPE turns pairs: the even lane looks the cosine up, the odd one the sine, and both use both.

    cycle 1    x, y stand; x becomes an integer (sigmoid's argument, root of norm's square); phase of the position
    cycle 2    tables are read; an embedding's codes come in
    cycle 3    interpolation
    cycle 4    the function as binary32
    cycle 5    x*p
    cycle 7    u*y or (x*p)*y
    cycle 9    sum
    cycle 12   the result stands
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from tapeout.numerics.tables import SIGMOID
from tapeout.rtl.binary32 import BIAS, Add32, Mul32, mantissa, normalise, parts, register
from tapeout.rtl.delay import delayed
from tapeout.rtl.nearest import nearest
from tapeout.rtl.rom import Rom
from tapeout.rtl.trig import FRACTION, SineTable

ONE = 0x3F800000
MINUS_ZERO = 0x80000000
UNIT = 1 << 24
"""1 in a function's fixed point."""

SIGMOID_FRACTION = 11
SIGMOID_POINT = BIAS + 7
"""|x|*2^16 is x's mantissa moved right by this minus its exponent field."""
SIGMOID_END = BIAS + 4
"""Exponent field of 16, where the table ends."""

PAIR = data.ArrayLayout(32, 2)
STEER = data.StructLayout(
    {
        "swiglu1": 1, "embed2": 1, "rope3": 1, "swiglu4": 1, "rope4": 1, "chain7": 1, "chain9": 1, "rope9": 1,
    }
)  # fmt: skip
"""What the micro-op of the word in a cycle of the pipeline asks for."""


class LanePair(wiring.Component):
    """See the module. Inputs of cycle 1: x, y, position, increment, field (the exponent field of norm's largest value); of cycle 2: code,
    minimum; of cycle 4: factor, which is p where no function is. `root` and `early_x` are of cycle 2, `late_y` of cycle 4."""

    steer: In(STEER)
    x: In(PAIR)
    y: In(PAIR)
    position: In(24)
    increment: In(32)
    field: In(8)
    code: In(PAIR)
    minimum: In(32)
    factor: In(32)
    root: Out(data.ArrayLayout(24, 2))
    early_x: Out(PAIR)
    late_y: Out(PAIR)
    result: Out(PAIR)
    infinite7: Out(1)
    infinite9: Out(1)
    infinite12: Out(1)

    def elaborate(self, platform):
        m = Module()
        roots = [self._root(m, k) for k in range(2)]
        x, y = zip(*(self._operands(m, k) for k in range(2)), strict=True)
        phase = register("phase2", 32)
        m.d.sync += phase.eq((self.position * self.increment)[:32])
        turned = Cat(phase[:30], (phase[30:] + 1)[:2])
        functions = [self._function(m, k, roots[k], (turned, phase)[k], x[k][4][31]) for k in range(2)]

        sine = register("sine5", 32)
        m.d.sync += sine.eq(Mux(self.steer.rope4, functions[1], ONE))
        u = stages(m, "sine", sine, 5, 7)[7]
        infinite = []
        for k in range(2):
            p = register(f"p5_{k}", 32)
            m.d.sync += p.eq(Mux(self.steer.rope4, functions[0], Mux(self.steer.swiglu4, functions[k], self.factor)))
            infinite.append(self._arithmetic(m, k, x[k][5], p, u, y[k][7]))
        for out, pair in zip(
            (self.infinite7, self.infinite9, self.infinite12), zip(*infinite, strict=True), strict=True
        ):
            m.d.comb += out.eq(pair[0] | pair[1])
        return m

    def _root(self, m: Module, k: int) -> Value:
        """|x| as an integer in cycle 2: sigmoid's argument, or relative to norm's largest value."""
        x, root, distance = parts(self.x[k]), register(f"root2_{k}", 24), Signal(signed(10), name=f"distance{k}")
        swiglu = self.steer.swiglu1
        m.d.comb += distance.eq(Mux(swiglu, SIGMOID_POINT, self.field + 1) - x.field)
        whole = nearest(m, f"root{k}", mantissa(self.x[k]), distance)
        m.d.sync += root.eq(Mux(swiglu & (x.field >= SIGMOID_END), 1 << 20, whole))
        m.d.comb += self.root[k].eq(root)
        return root

    def _operands(self, m: Module, k: int) -> tuple[dict[int, Value], dict[int, Value]]:
        """x and y by the cycle in which they stand."""
        embed = self.steer.embed2
        x, y = stages(m, f"x{k}", self.x[k], 1, 2), stages(m, f"y{k}", self.y[k], 1, 2)
        x3, y3 = register(f"x{k}_3", 32), register(f"y{k}_3", 32)
        m.d.sync += [x3.eq(Mux(embed, self.code[k], x[2])), y3.eq(Mux(embed, self.minimum, y[2]))]
        x |= stages(m, f"late_x{k}", x3, 3, 5)
        y |= stages(m, f"late_y{k}", y3, 3, 7)
        m.d.comb += [self.early_x[k].eq(x[2]), self.late_y[k].eq(y[4])]
        return x, y

    def _function(self, m: Module, k: int, argument: Value, phase: Value, minus: Value) -> Value:
        """Sigmoid of x, or cosine (lane 0) or sine (lane 1) of the position, as binary32 in cycle 4."""
        m.submodules[f"sine_table{k}"] = sine = SineTable()
        m.submodules[f"sigmoid_table{k}"] = sigmoid = Rom([int(entry) for entry in SIGMOID])
        m.d.comb += [sine.phase.eq(phase), sigmoid.addr.eq(argument[SIGMOID_FRACTION:])]
        fraction = register(f"fraction3_{k}", SIGMOID_FRACTION)
        m.d.sync += fraction.eq(argument[:SIGMOID_FRACTION])

        rope, product = self.steer.rope3, Signal(40, name=f"product{k}")
        value, negative = register(f"value4_{k}", 25), register(f"negative4_{k}", 1)
        up = Mux(rope & sine.negative, (1 << FRACTION) - 1, 0)
        fine = Mux(rope, sine.fraction, Cat(Const(0, FRACTION - SIGMOID_FRACTION), fraction))
        m.d.comb += product.eq(Mux(rope, sine.step, sigmoid.step) * fine)
        m.d.sync += value.eq(Mux(rope, sine.low, sigmoid.low) + ((product + up) >> FRACTION))
        m.d.sync += negative.eq(sine.negative)
        return self._as_binary32(m, k, value, negative, minus)

    def _as_binary32(self, m: Module, k: int, value: Value, negative: Value, minus: Value) -> Value:
        """value * 2^-24, exact: a sine's magnitude with its sign, or a sigmoid, which is mirrored for x below 0."""
        rope, magnitude, bits = self.steer.rope4, Signal(25, name=f"magnitude{k}"), Signal(32, name=f"function{k}")
        m.d.comb += magnitude.eq(Mux(minus & ~rope, UNIT - value, value))
        normal, zeros = normalise(m, magnitude, f"function{k}_normal")
        field = (BIAS - zeros)[:8]
        m.d.comb += bits.eq(Mux(normal[24], Cat(normal[1:24], field, negative & rope), 0))
        return bits

    def _arithmetic(self, m: Module, k: int, x: Value, p: Value, u: Value, y: Value) -> tuple[Value, Value, Value]:
        """The products and the sum from cycle 5 on: whether each is infinite."""
        m.submodules[f"first{k}"] = first = Mul32()
        m.submodules[f"second{k}"] = second = Mul32()
        m.submodules[f"sum{k}"] = total = Add32()
        waiting, chain, rope = stages(m, f"first{k}", first.y, 7, 9)[9], self.steer.chain9, self.steer.rope9
        turned = second.y if k else Cat(second.y[:31], second.y[31] ^ rope)
        m.d.comb += [first.a.eq(x), first.b.eq(p)]
        m.d.comb += [second.a.eq(Mux(self.steer.chain7, first.y, u)), second.b.eq(y)]
        m.d.comb += [total.a.eq(Mux(chain, second.y, waiting)), total.b.eq(Mux(chain, MINUS_ZERO, turned))]
        m.d.comb += self.result[k].eq(total.y)
        return first.infinite, second.infinite, total.infinite


def stages(m: Module, name: str, first: Value, start: int, end: int) -> dict[int, Value]:
    """`first`, which stands in cycle `start`, up to cycle `end`: by cycle."""
    return dict(enumerate(delayed(m, first, end - start, name), start))
