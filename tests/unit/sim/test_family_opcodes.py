"""The micro-ops that Llama has no use for, each against the arithmetic in plain integers (numerics/scalar.py)."""

import numpy as np
import pytest
from test_opcodes import EPS, P, R, V, W, bits32, f32, held, in_turn, packet, packets, run, vector

from programs import assemble
from strategies import block_bits, random_matrix
from tapeout.isa.layout import pack_rows, per_block
from tapeout.isa.opcodes import FORMAT_IDS, Flag, MicroOp, Op
from tapeout.isa.program import Base
from tapeout.numerics import scalar
from tapeout.numerics.formats import FORMATS
from tapeout.numerics.tables import cap_constants, capped_score_constants, reciprocal_of_width


def test_bias():
    rng = np.random.default_rng(0)
    x, bias = vector(rng, 40, 2), vector(rng, 40)[0]
    engine = run(assemble([MicroOp(Op.BIAS, a=V, s0=160, c=W, columns=40, tokens=2)]), {V: x, W: bias})
    for t in range(2):
        added = [scalar.add(a, b) for a, b in zip(x[t].tolist(), bias.tolist(), strict=True)]
        assert held(engine, V + 160 * t, 160) == f32(added)


def test_headnorm():
    rng = np.random.default_rng(1)
    x, weight = vector(rng, 48, 2), vector(rng, 24)[0]
    op = MicroOp(
        Op.HEADNORM, a=V, s0=192, c=W, heads=2, columns=24, tokens=2, s2=bits32(EPS), s3=bits32(reciprocal_of_width(24))
    )
    engine = run(assemble([op]), {V: x, W: weight})
    for t in range(2):
        heads = (x[t, h : h + 24].tolist() for h in (0, 24))
        assert held(engine, V + 192 * t, 192) == f32(
            [y for h in heads for y in scalar.rmsnorm(h, weight.tolist(), EPS)]
        )


@pytest.mark.parametrize("add", [False, True])
def test_layernorm(add: bool):
    rng = np.random.default_rng(2)
    x, y, weight, bias = vector(rng, 40, 2), vector(rng, 40, 2), vector(rng, 40)[0], vector(rng, 40)[0]
    op = MicroOp(
        Op.LAYERNORM, a=V, s0=160, b=V + 0x1000, c=W, dst=P, s1=68, columns=40, tokens=2, s2=bits32(EPS),
        s3=bits32(reciprocal_of_width(40)), flags=Flag.ADD if add else Flag.NONE,
    )  # fmt: skip
    engine = run(assemble([op]), {V: x, V + 0x1000: y, W: np.concatenate([weight, bias])})
    for t in range(2):
        added = [scalar.add(a, b) for a, b in zip(x[t].tolist(), y[t].tolist(), strict=True)] if add else x[t].tolist()
        assert held(engine, P + 68 * t, 68) == packets(scalar.layernorm(added, weight.tolist(), bias.tolist(), EPS))
        assert held(engine, V + 160 * t, 160) == f32(added)


@pytest.mark.parametrize("kind", [Op.GELU, Op.GEGLU])
def test_gelu(kind: Op):
    rng = np.random.default_rng(3)
    x, up = vector(rng, 40, 2), vector(rng, 40, 2)
    other = {"b": V + 0x1000} if kind is Op.GEGLU else {}
    engine = run(
        assemble([MicroOp(kind, a=V, s0=160, dst=P, s1=68, columns=40, tokens=2, **other)]), {V: x, V + 0x1000: up}
    )
    for t in range(2):
        both = zip(x[t].tolist(), up[t].tolist(), strict=True)
        made = [scalar.gelu(a) if kind is Op.GELU else scalar.geglu(a, b) for a, b in both]
        assert held(engine, P + 68 * t, 68) == packets(made)


def test_scale_and_softcap():
    x = vector(np.random.default_rng(4), 40, 2)
    engine = run(assemble([MicroOp(Op.SCALE, a=V, s0=160, columns=40, tokens=2, s2=bits32(6.5))]), {V: x})
    assert held(engine, V, 320) == f32([scalar.mul(value, 6.5) for value in x.ravel().tolist()])
    into, back = cap_constants(5.0)
    engine = run(assemble([MicroOp(Op.SOFTCAP, a=V, columns=80, s2=bits32(into), s3=bits32(back))]), {V: x})
    assert held(engine, V, 320) == f32([scalar.softcap(value, 5.0) for value in x.ravel().tolist()])


@pytest.mark.parametrize("name", FORMAT_IDS)
def test_position_adds_the_row_of_its_token(name: str):
    rng = np.random.default_rng(5)
    table, x = random_matrix(rng, 6, 64, FORMATS[name]), vector(rng, 64, 2)
    form = FORMATS[name]
    scale, minimum = (None if x is None else per_block(form, x, 64) for x in (table.scale, table.minimum))
    rows = pack_rows(form, table.codes, scale, minimum, table.factor)
    size = rows.shape[1]
    op = MicroOp(
        Op.POSITION, dst=V, s1=256, b=W, b_base=1, s0=size, s3=6, tokens=2, columns=64, format=FORMAT_IDS.index(name)
    )
    program = assemble([op], bases=(Base("zero"), Base("position", pos=size)))
    engine = run(program, {V: x, W: rows}, position=0)
    scales = block_bits(form, table.scale, 64)
    minima = [[0] * 4] * 2 if table.minimum is None else block_bits(form, table.minimum, 64)
    for t in range(2):
        scale, low = scales[t], minima[t]
        row = [
            scalar.embedding(
                code, scale[c // form.block], low[c // form.block], form.offset, form.scale.name, table.factor
            )
            for c, code in enumerate(table.codes[t].tolist())
        ]
        added = [scalar.add(a, b) for a, b in zip(x[t].tolist(), row, strict=True)]
        assert held(engine, V + 256 * t, 256) == f32(added)


@pytest.mark.parametrize("window", [0, 1, 2, 5])
@pytest.mark.parametrize("cap", [0.0, 3.0])
def test_a_window_and_a_cap(window: int, cap: float):
    """This step's own keys, as many as tokens."""
    rng, dim, tokens = np.random.default_rng(6), 32, 4
    q, keys, values = (
        [scalar.quantize_group(row.tolist()) for row in vector(rng, dim, tokens) * np.float32(gain)]
        for gain in (1, 1, 3)
    )
    key_records = b"".join(packet(k) + np.array(v[1:], np.int8).tobytes() for k, v in zip(keys, values, strict=True))
    constant, back = map(float, capped_score_constants(32.0, cap)) if cap else (float(scalar.score_constant(32)), 0.0)
    common = {"heads": 1, "tokens": tokens, "rows": tokens, "columns": dim, "s2": 64, "group": window}
    near = Flag.RECENT | Flag.FIRST
    ops = [
        MicroOp(Op.NEARSCORE, a=P, s0=0, s1=34, b=V, dst=R, s3=bits32(constant), c=bits32(back), flags=near, **common),
        MicroOp(Op.NEARVALUE, a=R, b=V + 0x1000, flags=Flag.RECENT, **common),
        MicroOp(Op.ATTNOUT, dst=R + 0x1000, s1=128, heads=1, tokens=tokens, columns=dim),
    ]  # fmt: skip
    memory = {
        P: np.frombuffer(b"".join(map(packet, q)), np.int8), V: np.frombuffer(key_records, np.int8),
        V + 0x1000: np.frombuffer(b"".join(map(packet, values)), np.int8),
    }  # fmt: skip
    engine = run(assemble(in_turn(*ops)), memory)

    def score(one: scalar.Group, other: scalar.Group) -> float:
        return scalar.capped_score(one, other, 32.0, cap) if cap else scalar.attention_score(one, other)

    for t in range(tokens):
        first = max(t + 1 - window, 0) if window else 0
        wanted = scalar.attention(q[t], keys[first : t + 1], values[first : t + 1], score)
        assert held(engine, R + 0x1000 + 128 * t, 128) == f32(wanted), t
