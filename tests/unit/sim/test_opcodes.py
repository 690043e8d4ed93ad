"""Every opcode, executed on a program of a few micro-ops, against the arithmetic in plain integers (numerics/scalar.py)."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from programs import CHIP, assemble, read
from strategies import GREATEST, block_bits, random_matrix
from tapeout.base.errors import Overflow
from tapeout.graph.types import Matrix
from tapeout.isa.layout import pack_blocks, pack_rows, per_block
from tapeout.isa.opcodes import FORMAT_IDS, Flag, MicroOp, Op
from tapeout.isa.program import WRITE, Base, Entry, Image, Program
from tapeout.isa.timing import latency
from tapeout.numerics import scalar
from tapeout.numerics.formats import FORMATS
from tapeout.numerics.tables import reciprocal_of_width, rope_increments, score_constant
from tapeout.sim.engine import ProgramEngine

W, V, P, R = 0x0000, 0x2000, 0x4000, 0x6000
"""Regions of `programs.SRAM`: weights, vectors, packets, results."""
EPS = 1e-5


def in_turn(*ops: MicroOp) -> list[MicroOp]:
    """Each micro-op issues when the one before has completed."""
    placed = [ops[0]]
    for old, new in pairwise(ops):
        placed.append(replace(new, issue=placed[-1].issue + latency(old, CHIP)))
    return placed


def run(program: Program, memory: dict[int, NDArray], position: int = 0, ids: Sequence[int] = (0,)) -> ProgramEngine:
    """The engine after steps at positions 0..`position`, begun with `memory` (address -> array) in tile 0."""
    images = [Image(0, at, np.ascontiguousarray(data).view(np.uint8).reshape(-1)) for at, data in memory.items()]
    engine = ProgramEngine(replace(program, images=tuple(images)))
    for at in range(position + 1):
        engine.step(ids, at)
    return engine


def held(engine: ProgramEngine, at: int, size: int, tile: int = 0) -> bytes:
    """Bytes of a tile's SRAM."""
    return engine._chip.signed[tile, at : at + size].tobytes()


def f32(values: Sequence[float]) -> bytes:
    return np.array(values, np.float32).tobytes()


def packet(group: scalar.Group) -> bytes:
    codes, n, e = group
    return np.array([*codes, n, e], np.int8).tobytes()


def packets(x: Sequence[float]) -> bytes:
    return b"".join(packet(group) for group in scalar.quantize(x))


def vector(rng: np.random.Generator, size: int, tokens: int = 1) -> NDArray[np.float32]:
    """[tokens, size]: Gaussian, with zeros of both signs, a large and a tiny value among them."""
    x = rng.normal(0, 1, (tokens, size)).astype(np.float32)
    x[rng.random(x.shape) < 0.05] = -0.0
    x[:, rng.integers(size)] = 37.5
    x[:, rng.integers(size)] = 2.0**-120
    return x


def bits32(value: float) -> int:
    return int(np.float32(value).view(np.uint32))


def multiplied(name: str, matrix: Matrix, x: list[list[scalar.Group]], streamed: bool) -> ProgramEngine:
    """The engine after one matmul of `matrix` with the vectors `x`, results at R, 256 bytes apart."""
    form, (rows, columns) = FORMATS[name], matrix.codes.shape
    scale, minimum = (None if x is None else per_block(form, x, columns) for x in (matrix.scale, matrix.minimum))
    lanes = CHIP.tile.matrix.lanes
    weight = pack_blocks(form, matrix.codes, scale, minimum, 8, lanes, matrix.factor).reshape(-1)
    common = {"tokens": len(x), "columns": columns}
    load = MicroOp(Op.OPERAND, a=P, s0=columns // 32 * 34, **common)
    flags, size = (Flag.STREAM, weight.size) if streamed else (Flag.NONE, 0)
    multiply = MicroOp(
        Op.MATMUL, dst=R, s0=256, b=W, rows=rows, format=FORMAT_IDS.index(name), flags=flags, s4=size, **common
    )
    chip = CHIP.with_fields({"tile.stream_kib": "4"}, "chip")
    program = assemble(
        in_turn(load, multiply), chip=chip, descriptors=[read(weight.size, address=64)] if streamed else []
    )
    program = replace(program, external_image=np.concatenate([np.zeros(64, np.uint8), weight]))
    data = np.frombuffer(b"".join(packet(group) for groups in x for group in groups), np.uint8)
    return run(program, {P: data} if streamed else {P: data, W: weight})


def product(name: str, matrix: Matrix, x: list[scalar.Group]) -> list[float]:
    """The same in plain integers."""
    form, columns = FORMATS[name], matrix.shape[1]
    scales = block_bits(form, matrix.scale, columns)
    minima = [None] * len(scales) if matrix.minimum is None else block_bits(form, matrix.minimum, columns)
    rest = (form.offset, form.scale.name, form.block, matrix.factor)
    return [
        scalar.matmul_row(x, codes.reshape(-1, form.block).tolist(), scale, low, *rest)
        for codes, scale, low in zip(matrix.codes, scales, minima, strict=True)
    ]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", FORMAT_IDS)
def test_matmul(name: str, streamed: bool, seed: int):
    rng = np.random.default_rng(seed)
    matrix = random_matrix(rng, 16, 96, FORMATS[name])
    x = [scalar.quantize(row.tolist()) for row in vector(rng, 96, 2)]
    engine = multiplied(name, matrix, x, streamed)
    for t in range(2):
        assert held(engine, R + 256 * t, 64) == f32(product(name, matrix, x[t])), f"token {t}"


ONE = {"binary16": np.float16(1), "e8m0": np.uint8(128), "e4m3": np.uint8(0x40), "wide": np.uint32(1024 | 15 << 18)}
"""By kind: a scale of 1."""


@pytest.mark.parametrize("name", FORMAT_IDS)
def test_matmul_of_the_greatest_terms(name: str):
    """Above 2^53 where scales have 18 bits: nothing may be lost on the way to int64."""
    form, rng = FORMATS[name], np.random.default_rng(1)
    matrix = random_matrix(rng, 16, 96, form)
    matrix.codes[:] = np.where(np.arange(96) % 7, form.high, form.low)
    matrix.scale[:] = GREATEST[form.scale.name]
    x = [scalar.quantize([1016.0] * 95 + [rng.random()])]
    assert held(multiplied(name, matrix, x, False), R, 64) == f32(product(name, matrix, x[0]))


@pytest.mark.parametrize(
    ("name", "of_minimum"), [*((name, False) for name in FORMAT_IDS), ("int4m", True), ("q5_k", True)]
)
def test_a_term_shifted_out_is_floored(name: str, of_minimum: bool):
    """The first group's term is far below the last bit, the second group's is zero: minus one stays minus one."""
    form = FORMATS[name]
    one, shape = ONE[form.scale.name], (8, 64 // form.group)
    codes = np.full((8, 64), -form.offset, np.int8)
    codes[:, 0] += not of_minimum
    if form.name == "binary":  # has no zero code
        codes[:] = 1
    minimum = np.full(shape, 0, one.dtype) if form.has_minimum else None
    if of_minimum:
        minimum[:, 0] = one
    matrix = Matrix(form, codes, np.full(shape, one), minimum)
    x = scalar.quantize([-(2.0**-60)] + [0.0] * 31 + [1.0] + [0.0] * 31)
    if form.name == "binary":
        x[1] = ([0] * 32, *x[1][1:])
    wanted = product(name, matrix, x)
    assert wanted[0] < 0
    assert held(multiplied(name, matrix, [x], streamed=False), R, 32) == f32(wanted)


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("columns", [64, 40])
def test_norm(add: bool, columns: int):
    rng = np.random.default_rng(columns)
    x, y, weight = vector(rng, columns, 2), vector(rng, columns, 2), vector(rng, columns)[0]
    flags = Flag.ADD if add else Flag.NONE
    op = MicroOp(
        Op.NORM, a=V, s0=4 * columns, b=V + 0x1000, c=W, dst=P, s1=68, columns=columns, tokens=2, flags=flags,
        s2=bits32(EPS), s3=bits32(reciprocal_of_width(columns)),
    )  # fmt: skip
    engine = run(assemble([op]), {V: x, V + 0x1000: y, W: weight})
    for t in range(2):
        added = [scalar.add(a, b) for a, b in zip(x[t].tolist(), y[t].tolist(), strict=True)] if add else x[t].tolist()
        assert held(engine, P + 68 * t, 68) == packets(scalar.rmsnorm(added, weight.tolist(), EPS))
        assert held(engine, V + 4 * columns * t, 4 * columns) == f32(added)


def test_norm_of_zeros():
    op = MicroOp(Op.NORM, a=V, c=W, dst=P, columns=32, tokens=1, s2=bits32(EPS), s3=bits32(1 / 32))
    engine = run(assemble([op]), {W: np.ones(32, np.float32)})
    assert held(engine, P, 34) == bytes(32) + np.array([8, -100], np.int8).tobytes()


def test_rope_by_position():
    rng, dim, position = np.random.default_rng(0), 16, 3
    x, increments = vector(rng, 2 * dim, 2), rope_increments(10_000.0, dim)
    op = MicroOp(Op.ROPE, a=V, s0=8 * dim, c=W, dst=P, s1=18, s2=64, heads=2, columns=dim, tokens=2)
    engine = run(assemble([op]), {V: x, W: increments}, position)
    for t in range(2):
        for h in range(2):
            head = x[t, dim * h : dim * h + dim].tolist()
            turned = [
                y
                for k in range(dim // 2)
                for y in scalar.rope_pair(head[2 * k], head[2 * k + 1], position + t, int(increments[k]))
            ]
            assert held(engine, P + 18 * t + 64 * h, dim + 2) == packet(scalar.quantize_group(turned)), (t, h)


def test_quant_pads_the_last_group():
    x = vector(np.random.default_rng(1), 70, 2)
    op = MicroOp(Op.QUANT, a=V, s0=280, dst=P, s1=128, columns=70, group=32, tokens=2)
    engine = run(assemble([op]), {V: x})
    for t in range(2):
        assert held(engine, P + 128 * t, 102) == packets(x[t].tolist())


def test_quant_writes_the_scale_twice_with_aux():
    x = vector(np.random.default_rng(2), 16, 2)
    op = MicroOp(
        Op.QUANT, a=V, s0=64, dst=P, s1=18, b=P + 0x1000, s2=20, columns=16, group=16, tokens=2, flags=Flag.AUX
    )
    engine = run(assemble([op]), {V: x})
    for t in range(2):
        wanted = packet(scalar.quantize_group(x[t].tolist()))
        assert held(engine, P + 18 * t, 18) == wanted
        assert held(engine, P + 0x1000 + 20 * t, 2) == wanted[-2:]


def test_swiglu():
    rng, columns = np.random.default_rng(3), 40
    gate, up = vector(rng, columns, 2), vector(rng, columns, 2)
    op = MicroOp(Op.SWIGLU, a=V, b=V + 0x1000, s0=160, dst=P, s1=68, columns=columns, tokens=2)
    engine = run(assemble([op]), {V: gate, V + 0x1000: up})
    for t in range(2):
        made = [scalar.swiglu(g, u) for g, u in zip(gate[t].tolist(), up[t].tolist(), strict=True)]
        assert held(engine, P + 68 * t, 68) == packets(made)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", FORMAT_IDS)
def test_embed(name: str, streamed: bool):
    rng, form, ids = np.random.default_rng(4), FORMATS[name], [5, 2]
    matrix = random_matrix(rng, 8, 64, form)
    scale, minimum = (None if x is None else per_block(form, x, 64) for x in (matrix.scale, matrix.minimum))
    table = pack_rows(form, matrix.codes, scale, minimum, matrix.factor)
    size = table.shape[1]
    flags, total = (Flag.STREAM, 2 * size) if streamed else (Flag.NONE, 0)
    op = MicroOp(
        Op.EMBED,
        dst=V,
        s1=256,
        b=W,
        s0=size,
        s3=8,
        tokens=2,
        columns=64,
        format=FORMAT_IDS.index(name),
        flags=flags,
        s4=total,
    )
    rows = [(2, 0, t, 1, size, size, 0, 0, 0) for t in range(2)] if streamed else []
    program = assemble([op], descriptors=rows)
    loops = program.entries[0].loops
    entries = (Entry("chunk", 2, loops), Entry("chunk_head", 2, loops))
    program = replace(program, vocabulary=8, entries=entries, external_image=table.reshape(-1))
    engine = run(program, {} if streamed else {W: table}, ids=ids)
    scales = block_bits(form, matrix.scale, 64)
    minima = [[0] * 64] * 8 if matrix.minimum is None else block_bits(form, matrix.minimum, 64)
    for t, i in enumerate(ids):
        wanted = [
            scalar.embedding(
                int(matrix.codes[i, k]), scales[i][k // form.block], minima[i][k // form.block], form.offset, form.scale.name, matrix.factor
            )
            for k in range(64)
        ]  # fmt: skip
        assert held(engine, V + 256 * t, 256) == f32(wanted)


def test_argmax_takes_the_first_of_equals():
    x = np.array([-1, 3, 3, -0.0, 2], np.float32)
    engine = run(assemble([MicroOp(Op.ARGMAX, a=V, dst=R, columns=5, s0=100)]), {V: x})
    assert held(engine, R, 8) == f32([3]) + np.uint32(101).tobytes()


def test_argmax_of_pairs_keeps_their_ids():
    pairs = np.zeros(3, [("value", "<f4"), ("id", "<u4")])
    pairs["value"], pairs["id"] = [-2, 5, 5], [7, 40, 900]
    engine = run(assemble([MicroOp(Op.ARGMAX, a=V, dst=R, columns=3, flags=Flag.PAIRS)]), {V: pairs})
    assert held(engine, R, 8) == f32([5]) + np.uint32(40).tobytes()


def _group(rng: np.random.Generator, dim: int) -> scalar.Group:
    return scalar.quantize_group((rng.normal(0, 2.0 ** rng.integers(-3, 3), dim)).astype(np.float32).tolist())


@pytest.mark.parametrize("position", [0, 1, 7])
def test_attention_over_the_cache_and_the_step_itself(position: int):
    """Two query heads: `position` keys of a block in the cache (behind them garbage), then the token's own."""
    rng, dim = np.random.default_rng(position), 32
    heads = [_group(rng, dim) for _ in range(2)]
    keys, values = [_group(rng, dim) for _ in range(9)], [_group(rng, dim) for _ in range(9)]
    key_bytes = [packet(k) + packet(v)[-2:] for k, v in zip(keys, values, strict=True)]
    value_bytes = [packet(v) for v in values]
    score = MicroOp(
        Op.SCORE, a=P, s0=34, s1=34, b=V, dst=R, s2=64, heads=2, tokens=1, columns=dim, s3=bits32(score_constant(dim))
    )
    value = MicroOp(Op.VALUE, a=R, s2=64, b=V + 0x1000, heads=2, tokens=1, columns=dim)
    ops = in_turn(
        replace(score, rows=8, flags=Flag.FIRST),
        replace(score, rows=1, flags=Flag.RECENT, b=V + 0x800, dst=R + 32),
        replace(value, rows=8),
        replace(value, rows=1, flags=Flag.RECENT, b=V + 0x1800, a=R + 32),
        MicroOp(Op.ATTNOUT, dst=R + 0x1000, heads=2, tokens=1, columns=dim),
    )
    memory = {
        P: b"".join(packet(head) for head in heads), V: b"".join(key_bytes[:8]), V + 0x800: key_bytes[8],
        V + 0x1000: b"".join(value_bytes[:8]), V + 0x1800: value_bytes[8],
    }  # fmt: skip
    engine = run(assemble(ops), {at: np.frombuffer(data, np.uint8) for at, data in memory.items()}, position)
    seen = [*range(position), 8]
    for h, head in enumerate(heads):
        wanted = scalar.attention(head, [keys[i] for i in seen], [values[i] for i in seen])
        assert held(engine, R + 0x1000 + 4 * dim * h, 4 * dim) == f32(wanted), f"head {h}"


def test_a_chunk_is_causal():
    """Three tokens of one step, one head: each attends to itself and those before it."""
    rng, dim, tokens = np.random.default_rng(9), 16, 3
    q, keys, values = ([_group(rng, dim) for _ in range(tokens)] for _ in range(3))
    common = {"heads": 1, "tokens": tokens, "columns": dim}
    ops = in_turn(
        MicroOp(
            Op.SCORE, a=P, s0=54, s1=18, b=V, dst=R, s2=32, rows=tokens, flags=Flag.FIRST | Flag.RECENT,
            s3=bits32(score_constant(dim)), **common,
        ),
        MicroOp(Op.VALUE, a=R, s2=32, b=V + 0x1000, rows=tokens, flags=Flag.RECENT, **common),
        MicroOp(Op.ATTNOUT, dst=R + 0x1000, s1=64, **common),
    )  # fmt: skip
    memory = {
        P: b"".join(map(packet, q)), V: b"".join(packet(k) + packet(v)[-2:] for k, v in zip(keys, values, strict=True)),
        V + 0x1000: b"".join(map(packet, values)),
    }  # fmt: skip
    engine = run(assemble(ops), {at: np.frombuffer(data, np.uint8) for at, data in memory.items()})
    for t in range(tokens):
        wanted = scalar.attention(q[t], keys[: t + 1], values[: t + 1])
        assert held(engine, R + 0x1000 + 64 * t, 64) == f32(wanted), f"token {t}"


def test_send_copies_the_pieces_to_every_target():
    data = np.random.default_rng(5).integers(0, 256, 300).astype(np.uint8)
    op = MicroOp(Op.SEND, a=P, s0=100, dst=R, s1=64, rows=3, columns=34, s2=0b1010)
    engine = run(assemble([op]), {P: data})
    for tile in (1, 3):
        for r in range(3):
            assert held(engine, R + 64 * r, 34, tile) == data[100 * r : 100 * r + 34].tobytes()
    assert held(engine, R, 200, 2) == bytes(200), "tile 2 is no target"


def test_send_to_external_memory():
    data = np.arange(200, dtype=np.uint8)
    op = MicroOp(Op.SEND, a=P + 6, rows=1, columns=34, flags=Flag.EXTERNAL)
    program = assemble([op], descriptors=[(WRITE, 0, 0, 1, 34, 0, 0x80, 0, 0)])
    engine = run(program, {P: data})
    assert engine._chip.external[0x80 : 0x80 + 34].tobytes() == data[6:40].tobytes()


def test_base_registers_move_an_operand():
    """Outer turns 0, 1 and inner turns 0, 1 write beside one another."""
    x = np.array([1, 4], np.float32)
    op = MicroOp(Op.ARGMAX, a=V, dst=R, columns=2, dst_base=1)
    program = assemble([op], bases=(Base("zero"), Base("out", outer=64, inner=16)), count=2, repeat=2)
    engine = run(program, {V: x})
    for at in (0, 16, 64, 80):
        assert held(engine, R + at, 8) == f32([4]) + np.uint32(1).tobytes(), f"offset {at}"


def test_overflow_names_the_micro_op():
    op = MicroOp(
        Op.NORM, a=V, b=V + 0x1000, c=W, dst=P, columns=32, tokens=1, flags=Flag.ADD, s2=bits32(EPS), s3=bits32(1 / 32)
    )
    huge = np.full(32, 3e38, np.float32)
    with pytest.raises(Overflow) as caught:
        run(assemble([op]), {V: huge, V + 0x1000: huge})
    assert str(caught.value) == (
        f"segment 'seeded' (turn 0, block 0), cycle 0: [{' '.join(str(op).split())}]: a result is too large for binary32"
    )
