"""The matrix unit against the arithmetic contract, value by value and cycle by cycle."""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

pytest.importorskip("amaranth")

from bench import Bench

from chips import make_chip
from tapeout.chip.spec import ChipSpec
from tapeout.isa.footprint import footprints
from tapeout.isa.layout import block_bytes, pack_codes
from tapeout.isa.opcodes import FORMAT_IDS, Flag, MicroOp, Op, Unit
from tapeout.isa.timing import latency, occupancy
from tapeout.numerics.formats import BINARY16, E4M3, E8M0, FORMATS, Format, Scale
from tapeout.numerics.scalar import Group, matmul_row, row_plan
from tapeout.rtl.matrix_unit import MatrixUnit

X, WEIGHT, OUT = 0x102, 0x2000, 0x8000
FEW = ("int8", "int4m", "int3", "mxfp4", "nvfp4", "q4_k", "q6_k", "ternary")
"""Formats with scales of all kinds, with and without minima, factors and halves."""


@dataclass
class Matrix:
    """Random weights: codes [rows, groups, 32]; scales and minima [rows, blocks] as bits; factors [rows], 1 where the format has none."""

    form: Format
    codes: np.ndarray
    scales: np.ndarray
    minima: np.ndarray | None
    factors: np.ndarray

    def row(self, x: list[Group], r: int) -> float:
        form, floors = self.form, None if self.minima is None else self.minima[r].tolist()
        return matmul_row(
            x, self.blocks(r).tolist(), self.scales[r].tolist(), floors, form.offset, form.scale.name, form.block, float(self.factors[r])
        )  # fmt: skip

    def blocks(self, r: int) -> np.ndarray:
        return self.codes[r].reshape(-1, self.form.block)

    def packed(self, unit_rows: int, lanes: int) -> bytes:
        """The layout of isa/layout.py, written a second time."""
        out, each = bytearray(), 32 // self.form.block
        for first in range(0, len(self.codes), unit_rows):
            block = slice(first, first + unit_rows)
            out += bytes((f - e) & 255 for e, f in map(self.plan, range(first, first + unit_rows)))
            if self.form.has_factor:
                out += self.factors[block].astype("<f4").tobytes()
            for g in range(self.codes.shape[1]):
                for stored in (self.scales, self.minima):
                    of_group = () if stored is None else stored[block, g * each : (g + 1) * each].reshape(-1)
                    out += b"".join(int(bits).to_bytes(self.form.scale.bytes, "little") for bits in of_group)
                for k in range(0, 32, lanes):
                    for r in range(first, first + unit_rows):
                        out += pack_codes(self.codes[r, g, k : k + lanes].astype(np.int8), self.form).tobytes()
        return bytes(out)

    def plan(self, r: int) -> tuple[int, int]:
        sizes = np.abs(self.blocks(r) + self.form.offset).sum(axis=1).tolist()
        floors = None if self.minima is None else self.minima[r].tolist()
        return row_plan(self.scales[r].tolist(), sizes, floors, self.form.scale.name)


def random_scales(rng: np.random.Generator, kind: Scale, shape: tuple[int, int]) -> np.ndarray:
    """Stored scales of all kinds: near one another, of any size, the least ones, zeros of both signs."""
    if kind == BINARY16:
        return random_halves(rng, shape)
    if kind == E8M0:
        return np.where(rng.random(shape) < 0.2, rng.integers(0, 140, shape), 128 + rng.integers(-12, 8, shape))
    if kind == E4M3:
        return np.where(rng.random(shape) < 0.5, rng.integers(0x30, 0x50, shape), rng.integers(0, 127, shape))
    size = np.where(rng.random(shape) < 0.1, 0, rng.integers(0, 1 << 18, shape) >> rng.integers(0, 18, shape))
    field = np.where(rng.random(shape) < 0.7, rng.integers(8, 16, shape), rng.integers(0, 31, shape))
    return size | field << 18 | rng.integers(0, 2, shape) << 23


def random_halves(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Finite binary16 of all kinds: near one another, of any size, subnormal, zeros of both signs."""
    near = (rng.integers(8, 16, shape) << 10) | rng.integers(0, 1024, shape)
    wild = rng.integers(0, 31 << 10, shape)
    kinds = [near, near, wild, rng.integers(0, 1024, shape), np.zeros(shape, np.int64)]
    return (np.choose(rng.integers(0, len(kinds), shape), kinds) | rng.integers(0, 2, shape) << 15).astype(np.uint16)


def random_matrix(rng: np.random.Generator, name: str, rows: int, groups: int) -> Matrix:
    form, blocks = FORMATS[name], (rows, groups * 32 // FORMATS[name].block)
    codes = rng.integers(form.low, form.high + 1, (rows, groups, 32))
    if form.values:
        codes = rng.choice(np.array(form.values), (rows, groups, 32))
    codes[rng.random(rows) < 0.1] = form.low
    minima = random_scales(rng, form.scale, blocks) if form.has_minimum else None
    factors = rng.normal(size=rows).astype(np.float32) if form.has_factor else np.ones(rows, np.float32)
    return Matrix(form, codes, random_scales(rng, form.scale, blocks), minima, factors)


def random_vector(rng: np.random.Generator, groups: int) -> list[Group]:
    """Packets of like and of unlike size, all codes at the limit, all-zero ones."""
    return [random_packet(rng) for _ in range(groups)]


def random_packet(rng: np.random.Generator) -> Group:
    kind = rng.integers(0, 8)
    if kind == 0:
        return [0] * 32, 8, -100
    codes = rng.integers(-127, 128, 32) if kind > 1 else np.full(32, rng.choice((-127, 127)))
    e = rng.integers(-8, 8) if kind > 2 else rng.integers(-100, 40)
    return codes.tolist(), int(rng.integers(8, 16)), int(e)


def put_vectors(memory: bytearray, vectors: list[list[Group]], at: int, stride: int) -> None:
    for t, vector in enumerate(vectors):
        raw = b"".join(struct.pack("32bBb", *codes, n, e) for codes, n, e in vector)
        memory[at + t * stride : at + t * stride + len(raw)] = raw


def chip_of(rows: int = 4, lanes: int = 16, formats: Sequence[str] = FEW) -> ChipSpec:
    size = {"tile__matrix__rows": str(rows), "tile__matrix__lanes": str(lanes), "tile__matrix__tokens": "4"}
    return make_chip("1x1", tile__matrix__operand_kib="1", tile__matrix__formats=json.dumps(formats), **size)


def operand(tokens: int, groups: int, at: int = X, stride: int = 0) -> MicroOp:
    return MicroOp(Op.OPERAND, a=at, s0=stride, tokens=tokens, columns=32 * groups)


def matmul(
    matrix: Matrix, tokens: int, weight: int = WEIGHT, out: int = OUT, stride: int = 0, flags: Flag = Flag.NONE
) -> MicroOp:
    rows, groups, _ = matrix.codes.shape
    form = FORMAT_IDS.index(matrix.form.name)
    sizes = {"rows": rows, "columns": 32 * groups, "tokens": tokens, "format": form}
    return MicroOp(Op.MATMUL, b=weight, dst=out, s0=stride, flags=flags, **sizes)


def schedule(ops: list[MicroOp], chip: ChipSpec) -> tuple[list[tuple[int, MicroOp]], int]:
    """Each as early as the unit allows: at the end of the one before, or, a product, when its operand is there. And a cycle behind all."""
    at, busy, loaded = [], 2, 0
    for op in ops:
        issue = max(busy, loaded if op.op is Op.MATMUL else 0)
        at.append((issue, op))
        busy, loaded = issue + occupancy(op, chip), issue + latency(op, chip) if op.op is Op.OPERAND else loaded
    return at, max(issue + latency(op, chip) for issue, op in at) + 2


def value_at(memory: bytearray, address: int) -> float:
    return struct.unpack_from("<f", memory, address)[0]


def assert_products(
    memory: bytearray, matrix: Matrix, vectors: list[list[Group]], out: int = OUT, stride: int = 0
) -> None:
    for t, vector in enumerate(vectors):
        for r in range(len(matrix.codes)):
            assert value_at(memory, out + t * stride + 4 * r) == matrix.row(vector, r), f"row {r} of vector {t}"


def run(
    chip: ChipSpec, ops: list[MicroOp], memory: bytearray, stream: bytes = b""
) -> tuple[Bench, list[tuple[int, MicroOp]]]:
    plan, cycles = schedule(ops, chip)
    bench = Bench(MatrixUnit(chip, gated=False), Unit.MATRIX, memory, bytearray(stream.ljust(1 << 14, b"\xa5")))
    bench.run(plan, cycles)
    promised = sorted((at + latency(op, chip), op.op.name.lower()) for at, op in plan)
    assert sorted((cycle, name) for name, cycle in bench.done) == promised
    return bench, plan


@pytest.mark.parametrize(("rows", "lanes", "seed"), [(4, 8, 1), (4, 16, 2), (4, 32, 3), (8, 16, 4), (8, 32, 5)])
@pytest.mark.parametrize("name", FORMATS)
def test_products_are_those_of_the_contract(name: str, rows: int, lanes: int, seed: int) -> None:
    rng = np.random.default_rng([seed, FORMAT_IDS.index(name)])
    chip, memory = chip_of(rows, lanes, tuple(dict.fromkeys((name, "int4m")))), bytearray(rng.bytes(1 << 16))
    ops, wanted = [], []
    for k in range(4):
        tokens, groups, blocks = (int(rng.integers(1, most + 1)) for most in (4, 3, 3))
        x, weight, out, stride = (
            X + 0x200 * k,
            WEIGHT + 0x1000 * k,
            OUT + 0x1000 * k,
            34 * groups + 2 * int(rng.integers(0, 5)),
        )
        matrix, vectors = (
            random_matrix(rng, name, rows * blocks, groups),
            [random_vector(rng, groups) for _ in range(tokens)],
        )
        put_vectors(memory, vectors, x, stride)
        packed = matrix.packed(rows, lanes)
        assert len(packed) == block_bytes(rows * blocks, 32 * groups, name)
        memory[weight : weight + len(packed)] = packed
        ops += [operand(tokens, groups, x, stride), matmul(matrix, tokens, weight, out, 0x400)]
        wanted.append((matrix, vectors, out))
    bench, _ = run(chip, ops, memory)
    assert not bench.overflow
    for matrix, vectors, out in wanted:
        assert_products(memory, matrix, vectors, out, 0x400)


@pytest.mark.parametrize("lanes", [8, 16, 32])
def test_micro_ops_follow_each_other_without_a_gap(lanes: int) -> None:
    rng = np.random.default_rng(lanes)
    chip, memory, ops, wanted = chip_of(4, lanes), bytearray(1 << 16), [], []
    for k in range(8):
        tokens, groups = (int(rng.integers(1, most + 1)) for most in (3, 2))
        vectors, at = [random_vector(rng, groups) for _ in range(tokens)], 0x100 + 0x200 * k
        put_vectors(memory, vectors, at, 34 * groups)
        ops.append(operand(tokens, groups, at, 34 * groups))
        for j in range(int(rng.integers(1, 3))):
            matrix = random_matrix(rng, str(rng.choice(FEW)), 4 * int(rng.integers(1, 3)), groups)
            weight, out = 0x2000 + 0x1000 * k + 0x800 * j, 0xA000 + 0x800 * k + 0x400 * j
            memory[weight : weight + 0x800] = matrix.packed(4, lanes).ljust(0x800, b"\x5a")
            ops.append(matmul(matrix, tokens, weight, out, 0x40))
            wanted.append((matrix, vectors, out))
    run(chip, ops, memory)
    for matrix, vectors, out in wanted:
        assert_products(memory, matrix, vectors, out, 0x40)


def test_an_operand_may_load_while_results_still_leave() -> None:
    """The next vector has another e_max: it must not reach the last results of the product before."""
    rng = np.random.default_rng(9)
    chip, memory, matrix = chip_of(4, 32), bytearray(1 << 16), random_matrix(rng, "int8", 8, 1)
    first, second = ([random_packet(rng)[0], 9, -5],), ([random_packet(rng)[0], 15, 30],)
    put_vectors(memory, [first], X, 0)
    put_vectors(memory, [second], X + 64, 0)
    memory[WEIGHT : WEIGHT + 0x800] = matrix.packed(4, 32).ljust(0x800)
    run(chip, [operand(1, 1), matmul(matrix, 1), operand(1, 1, X + 64), matmul(matrix, 1, out=OUT + 256)], memory)
    assert_products(memory, matrix, [list(first)])
    assert_products(memory, matrix, [list(second)], OUT + 256)


def test_weights_may_come_from_the_stream() -> None:
    rng = np.random.default_rng(11)
    chip, memory, matrix, vector = (
        chip_of(),
        bytearray(1 << 16),
        random_matrix(rng, "int4m", 8, 2),
        random_vector(rng, 2),
    )
    put_vectors(memory, [vector], X, 0)
    stream = bytes(0x40) + matrix.packed(4, 16)
    bench, _ = run(chip, [operand(1, 2), matmul(matrix, 1, weight=0x40, flags=Flag.STREAM)], memory, stream)
    assert_products(memory, matrix, [vector])
    assert len([1 for port, *_ in bench.reads if port == "w"]) == 8


def test_reads_and_writes_keep_to_their_windows() -> None:
    rng = np.random.default_rng(12)
    chip, memory, matrix = chip_of(4, 8), bytearray(1 << 16), random_matrix(rng, "ternary", 12, 2)
    bench, plan = run(chip, [operand(3, 2, stride=68), matmul(matrix, 3, stride=0x40)], memory)
    for at, op in plan:
        for mark in footprints(op, chip):
            runs = [mark.offset + i * mark.outer_stride for i in range(mark.outer)]
            port = {True: "y", False: {Op.OPERAND: "x", Op.MATMUL: "w"}[op.op]}[mark.write]
            seen = [
                (cycle - at, first)
                for name, cycle, first, _ in (bench.writes if mark.write else bench.reads)
                if name == port
            ]
            assert all(mark.start <= cycle < mark.end for cycle, _ in seen)
            assert all(any(start - 2 <= first < start + mark.size for start in runs) for _, first in seen)
    assert len([1 for port, *_ in bench.reads if port == "x"]) == 6
    assert len([1 for port, *_ in bench.reads if port == "w"]) == occupancy(plan[1][1], chip)


def test_a_product_with_a_factor_that_binary32_cannot_hold_is_reported() -> None:
    for factor in (2.0**100, 1.0):
        chip, memory = chip_of(formats=("nvfp4",)), bytearray(1 << 16)
        matrix = Matrix(FORMATS["nvfp4"], np.full((4, 1, 32), 12), np.full((4, 2), 0x7E), None, np.full(4, factor))
        put_vectors(memory, [[([127] * 32, 15, 20)]], X, 0)
        memory[WEIGHT : WEIGHT + 0x400] = matrix.packed(4, 16).ljust(0x400)
        assert run(chip, [operand(1, 1), matmul(matrix, 1)], memory)[0].overflow == (factor > 1.0)


def test_a_result_that_binary32_cannot_hold_is_reported() -> None:
    chip, memory = chip_of(formats=("int8",)), bytearray(1 << 16)
    matrix = Matrix(FORMATS["int8"], np.full((4, 1, 32), 127), np.full((4, 1), 0x7BFF, np.uint16), None, np.ones(4))
    put_vectors(memory, [[([127] * 32, 15, 104)]], X, 0)
    memory[WEIGHT : WEIGHT + 0x400] = matrix.packed(4, 16).ljust(0x400)
    assert run(chip, [operand(1, 1), matmul(matrix, 1)], memory)[0].overflow
