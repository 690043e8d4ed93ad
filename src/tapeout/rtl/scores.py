"""Scores: a query against the keys of a cycle, exact as integers, then three roundings to binary32 (docs/numerics.md section 8)."""

from collections.abc import Iterable, Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from tapeout.chip.spec import ChipSpec
from tapeout.rtl.attention_walk import COUNT
from tapeout.rtl.binary32 import ExponentAdd, FromInteger, Mul32, register
from tapeout.rtl.delay import delayed
from tapeout.rtl.kv_records import TAIL, query_words, sign_flip

OFFSET = 128
"""Codes come in offset binary."""
TERMS = 32
"""Products that are added in one stage."""
SCORED = 8
"""Cycles from the records to their scores."""
EXPONENT = 2
"""Cycles from the records to the greatest e of V."""


def bytes_of(x: Value) -> list[Value]:
    """Its bytes, the lowest first."""
    return [x[at : at + 8] for at in range(0, len(x), 8)]


def total(terms: Iterable[Value]) -> Value:
    """The sum as a balanced tree."""
    terms = list(terms)
    while len(terms) > 1:
        terms = [sum(terms[at + 1 : at + 2], terms[at]) for at in range(0, len(terms), 2)]
    return terms[0]


def greatest(m: Module, terms: Sequence[Value], name: str) -> Value:
    """The greatest, by a balanced tree."""
    terms = list(terms)
    while len(terms) > 1:
        pairs, terms = [terms[at : at + 2] for at in range(0, len(terms), 2)], []
        for at, pair in enumerate(pairs):
            if len(pair) > 1:
                more = Signal(pair[0].shape(), name=f"{name}_{len(pairs)}_{at}")
                m.d.comb += more.eq(Mux(pair[0] > pair[1], pair[0], pair[1]))
                pair = [more]
            terms.append(pair[0])
    return terms[0]


def ordered(x: Value) -> Value:
    """Binary32 as a number that compares without a sign; 0 is below all."""
    return Mux(x[31], ~x, x ^ (1 << 31))


def unordered(key: Value) -> Value:
    """Back from `ordered`."""
    return Mux(key[31], key ^ (1 << 31), ~key)


Held = tuple[Sequence[Value], Value, Value, Value]
"""A query: codes, n, e, sum of the codes."""


class Scores(wiring.Component):
    """codes0.. and tail0.. are K records, `query` holds a packet of `columns` codes (taken with `start`, else the last one stays) from its first
    or (with `odd`) second halfword on, `constant` is the keys' own.

    A cycle later `mask` says which keys count. After EXPONENT cycles `e_top` is their greatest e of V, in offset binary; after SCORED cycles y0..
    are the scores, `counts` their mask, `infinite` says that one of them is too large; a cycle behind them `top` is the greatest one, `ordered`.
    """

    def __init__(self, chip: ChipSpec):
        self.keys, self.lanes = chip.tile.attention.keys, chip.tile.attention.lanes
        members = {
            "start": In(1), "query": In(32 * query_words(chip)), "odd": In(1), "columns": In(COUNT), "constant": In(32), "mask": In(self.keys),
            "counts": Out(self.keys), "infinite": Out(1), "top": Out(32), "e_top": Out(8),
        }  # fmt: skip
        for k in range(self.keys):
            members |= {f"codes{k}": In(8 * self.lanes), f"tail{k}": In(8 * TAIL), f"y{k}": Out(32)}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        held = self._query(m)
        constant = delayed(m, self.constant, 5, "constant")[5]
        m.d.comb += self.counts.eq(delayed(m, self.mask, SCORED - 1, "mask")[-1])
        tails = [register(f"tail{k}_held", 8 * TAIL) for k in range(self.keys)]
        m.d.sync += [tail.eq(getattr(self, f"tail{k}")) for k, tail in enumerate(tails)]
        made = [self._key(m, k, held, tail, constant) for k, tail in enumerate(tails)]
        m.d.comb += self.infinite.eq(Cat(over & self.counts[k] for k, (_, over) in enumerate(made)).any())
        self._greatest(m, [y for y, _ in made], tails)
        return m

    def _query(self, m: Module) -> Held:
        """The query that is held: its codes in offset binary, 0 beyond its columns; n, e; a cycle later the sum of the codes."""
        codes, scale = [register(f"query{x}", 8) for x in range(self.lanes)], register("scale_query", 16)
        code_sum, fresh = register("query_sum", (255 * self.lanes).bit_length()), register("fresh", 1)
        flip = sign_flip(m, self.start)
        m.d.sync += fresh.eq(self.start)
        with m.If(self.start):
            for x, code in enumerate(codes):
                low, high = self.query[8 * x : 8 * x + 8], self.query[8 * x + 16 : 8 * x + 24]
                m.d.sync += code.eq(Mux(self.columns > x, Mux(self.odd, high, low), 0) ^ flip[:8])
            with m.Switch(Cat(self.odd, self.columns[1:])):
                for half in range(1, self.lanes // 2 + 1):
                    for odd in range(2):
                        with m.Case(odd + 2 * half):
                            m.d.sync += scale.eq(self.query[16 * (half + odd) : 16 * (half + odd) + 16])
        with m.If(fresh):
            m.d.sync += code_sum.eq(total(codes))
        return codes, scale[:4], scale[8:].as_signed(), code_sum

    def _key(self, m: Module, k: int, held: Held, tail: Value, constant: Value) -> tuple[Value, Value]:
        """The score of key `k`, and whether it is infinite."""
        query, n, e, query_sum = held
        codes, scale = register(f"codes{k}_held", 8 * self.lanes), register(f"scale{k}", 8)
        exponent = register(f"exponent{k}", signed(9))
        m.d.sync += [codes.eq(getattr(self, f"codes{k}")), scale.eq(n * tail[:4])]
        m.d.sync += exponent.eq(e + tail[8:16].as_signed())
        product = register(f"product{k}", signed(30))
        m.d.sync += product.eq(self._dot(m, k, query, bytes_of(codes), query_sum) * scale)
        return self._scale(m, k, product, constant, delayed(m, exponent, 5, f"exponent{k}")[5])

    def _dot(self, m: Module, k: int, query: Sequence[Value], codes: Sequence[Value], query_sum: Value) -> Value:
        """Sum of the products of the signed codes, with a register inside: (a+o)(b+o) is a*b + o(a+o) + o(b+o) - o*o."""
        parts, key_sum = [], register(f"key_sum{k}", len(query_sum))
        m.d.sync += key_sum.eq(total(codes))
        for at in range(0, self.lanes, TERMS):
            terms = [a * b for a, b in zip(query[at : at + TERMS], codes[at : at + TERMS], strict=True)]
            parts.append(register(f"dot{k}_{at}", (255 * 255 * len(terms)).bit_length()))
            m.d.sync += parts[-1].eq(total(terms))
        dot = Signal(signed(22), name=f"dot{k}")
        m.d.comb += dot.eq(total(parts) + self.lanes * OFFSET * OFFSET - Cat(Const(0, 7), query_sum + key_sum))
        return dot

    def _scale(self, m: Module, k: int, product: Value, constant: Value, exponent: Value) -> tuple[Value, Value]:
        """y = X(round32(F(product, 0) * constant), exponent)."""
        made, scaled, moved = FromInteger(len(product)), Mul32(), ExponentAdd()
        m.submodules += [made, scaled, moved]
        over = register(f"over{k}", 1)
        m.d.sync += over.eq(scaled.infinite)
        m.d.comb += [
            made.i.eq(product), scaled.a.eq(made.y), scaled.b.eq(constant), moved.x.eq(scaled.y), moved.k.eq(exponent),
            getattr(self, f"y{k}").eq(moved.y),
        ]  # fmt: skip
        return moved.y, moved.infinite | over

    def _greatest(self, m: Module, scores: Sequence[Value], tails: Sequence[Value]) -> None:
        """A key that does not count is below all."""
        top, e_top = register("top_held", 32), register("e_top_held", 8)
        m.d.sync += top.eq(greatest(m, [Mux(self.counts[k], ordered(y), 0) for k, y in enumerate(scores)], "top"))
        exponents = [Mux(self.mask[k], (tail[24:] + OFFSET)[:8], 0) for k, tail in enumerate(tails)]
        m.d.sync += e_top.eq(greatest(m, exponents, "e_top"))
        m.d.comb += [self.top.eq(top), self.e_top.eq(e_top)]
