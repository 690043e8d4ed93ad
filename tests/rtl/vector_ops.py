"""Random micro-ops of the vector unit on a memory of their own, and what they make of it, by the simulator's functions."""

from dataclasses import dataclass, field

import numpy as np

from strategies import random_matrix, stored_per_block
from tapeout.isa.layout import pack_rows, row_bytes
from tapeout.isa.opcodes import FORMAT_IDS, RECORD, Flag, MicroOp, Op
from tapeout.numerics.formats import FORMATS
from tapeout.sim.execute import argmax, embed, norm, quant, run_rope, run_swiglu
from tapeout.sim.state import Chip

KINDS = (Op.NORM, Op.ROPE, Op.QUANT, Op.SWIGLU, Op.EMBED, Op.ARGMAX)
VOCABULARY = 9
GROUPS = (2, 6, 8, 32, 34, 64, 128)


def bits(x: float) -> int:
    return int(np.float32(x).view(np.uint32))


@dataclass
class Maker:
    """Draws micro-ops whose operands are random and whose results lie apart; `tokens` are the ids of the step's tokens."""

    rng: np.random.Generator
    beat: int
    size: int = 1 << 18
    position: int | None = None
    ops: list[MicroOp] = field(default_factory=list)

    def __post_init__(self):
        self.memory, self.stream = np.zeros(self.size, np.uint8), np.zeros(self.size, np.uint8)
        self.used, self.stream_used = 0, 0
        self.tokens = self.rng.integers(0, VOCABULARY, 64)
        self.position = self.below(0, 5000) if self.position is None else self.position

    def below(self, low, high):
        return int(self.rng.integers(low, high))

    def place(self, size, align=4):
        """Room in the SRAM; a gap before it, so that addresses are of every kind."""
        at = -(-(self.used + self.below(0, 9)) // align) * align
        self.used = at + size
        assert self.used < self.size, "the memory is full"
        return at

    def values(self, count, spread=6):
        """Numbers of every size, among them zeros of both signs."""
        x = self.rng.normal(size=count) * 2.0 ** self.rng.uniform(-spread, spread, count)
        kind = self.rng.integers(0, 20, count)
        return np.where(kind == 0, 0.0, np.where(kind == 1, -0.0, x)).astype(np.float32)

    def numbers(self, rows, count, stride, spread=6):
        """`rows` rows of binary32 in SRAM: their address."""
        at, scale = self.place(rows * stride), np.float32(2.0 ** self.below(-120, 50))
        for row in range(rows):
            self.memory[at + row * stride : at + row * stride + 4 * count] = (self.values(count, spread) * scale).view(
                np.uint8
            )
        return at

    def bytes_at(self, data, streamed, align):
        """Data in SRAM or in the stream buffer: its address."""
        if not streamed:
            at = self.place(data.size, align)
            self.memory[at : at + data.size] = data
            return at
        at = -(-self.stream_used // self.beat) * self.beat
        self.stream[at : at + data.size] = data
        self.stream_used = at + data.size
        return at

    def flag(self, flag):
        return flag if self.rng.random() < 0.5 else Flag.NONE

    def add(self, kind: Op, **fixed) -> MicroOp:
        op = getattr(self, kind.name.lower())(**fixed)
        self.ops.append(op)
        return op

    def norm(self, columns=None, tokens=None):
        columns, tokens, flags = (
            columns or self.below(1, 140),
            tokens or self.below(1, 4),
            self.flag(Flag.ADD) | self.flag(Flag.STREAM),
        )
        stride, out = 4 * (columns + self.below(0, 4)), 34 * -(-columns // 32) + 2 * self.below(0, 3)
        weight = self.bytes_at(self.values(columns).view(np.uint8), bool(flags & Flag.STREAM), 4)
        return MicroOp(
            Op.NORM, flags=flags, columns=columns, tokens=tokens, a=self.numbers(tokens, columns, stride), s0=stride,
            b=self.numbers(tokens, columns, stride), c=weight, dst=self.place(tokens * out, 2), s1=out, s2=bits(1e-5), s3=bits(1 / columns),
        )  # fmt: skip

    def rope(self):
        heads, columns, tokens = self.below(1, 4), int(self.rng.choice([2, 6, 16, 32, 64, 128])), self.below(1, 4)
        stride, head, c = (
            4 * (heads * columns + self.below(0, 4)),
            columns + 2 + 2 * self.below(0, 2),
            self.place(2 * columns),
        )
        self.memory[c : c + 2 * columns] = self.rng.integers(0, 1 << 32, columns // 2, np.uint32).view(np.uint8)
        return MicroOp(
            Op.ROPE, columns=columns, heads=heads, tokens=tokens, a=self.numbers(tokens, heads * columns, stride), s0=stride, c=c,
            dst=self.place(tokens * heads * head, 2), s1=heads * head, s2=head,
        )  # fmt: skip

    def quant(self):
        group, tokens = int(self.rng.choice(GROUPS)), self.below(1, 4)
        columns = self.below(1, 3 * group)
        twice = self.flag(Flag.AUX) if columns <= group else Flag.NONE
        stride, out = 4 * (columns + self.below(0, 4)), -(-columns // group) * (group + 2) + 2 * self.below(0, 2)
        return MicroOp(
            Op.QUANT, flags=twice, columns=columns, group=group, tokens=tokens, a=self.numbers(tokens, columns, stride), s0=stride,
            dst=self.place(tokens * out, 2), s1=out, b=self.place(6 * tokens, 2), s2=6,
        )  # fmt: skip

    def swiglu(self):
        columns, tokens = self.below(1, 140), self.below(1, 4)
        stride, out = 4 * (columns + self.below(0, 4)), 34 * -(-columns // 32) + 2 * self.below(0, 3)
        gate = self.place(tokens * stride)
        for row in range(tokens):
            self.memory[gate + row * stride : gate + row * stride + 4 * columns] = (
                (self.values(columns, 2) * 3).astype(np.float32).view(np.uint8)
            )
        return MicroOp(
            Op.SWIGLU, columns=columns, tokens=tokens, a=gate, b=self.numbers(tokens, columns, stride), s0=stride,
            dst=self.place(tokens * out, 2), s1=out,
        )  # fmt: skip

    def embed(self):
        form, columns, tokens, slot = (
            self.below(0, len(FORMAT_IDS)),
            32 * self.below(1, 5),
            self.below(1, 4),
            self.below(0, 9),
        )
        flags, size = self.flag(Flag.STREAM), row_bytes(columns, FORMAT_IDS[form])
        rows = self.rows(FORMATS[FORMAT_IDS[form]], tokens if flags else VOCABULARY, columns)
        rows = np.pad(rows, ((0, 0), (0, -size % self.beat if flags else 0)))
        stride = 4 * (columns + self.below(0, 4))
        return MicroOp(
            Op.EMBED, flags=flags, columns=columns, tokens=tokens, slot=slot, format=form, b=self.bytes_at(rows.reshape(-1), bool(flags), 2),
            s0=size, s3=VOCABULARY, dst=self.place(tokens * stride), s1=stride,
        )  # fmt: skip

    def rows(self, form, rows, columns):
        """A table; no value is infinite, some scales and minima are zero, negative or subnormal."""
        matrix = random_matrix(self.rng, rows, columns, form)
        factor = matrix.factor * float(self.rng.choice([-1, 1])) if form.has_factor else 1.0
        return pack_rows(form, matrix.codes, *stored_per_block(matrix), factor)

    def argmax(self):
        columns, flags = self.below(1, 90), self.flag(Flag.PAIRS)
        x = self.values(columns) if self.rng.random() < 0.5 else -abs(self.values(columns, 0))
        x = np.where(self.rng.random(columns) < 0.3, x.max(), x).astype(np.float32)
        data = np.stack([x.view(np.uint32), self.rng.integers(0, 1 << 32, columns, np.uint32)], 1) if flags else x
        at = self.bytes_at(np.ascontiguousarray(data).reshape(-1).view(np.uint8), False, 4)
        return MicroOp(Op.ARGMAX, flags=flags, columns=columns, a=at, dst=self.place(8), s0=self.below(0, 1 << 20))

    def result(self) -> np.ndarray:
        """The memory after all micro-ops, by the simulator."""
        memory = self.memory.copy()
        for op in self.ops:
            assert execute(op, memory, self.stream, self.tokens, self.position, self.beat), f"{op} overflows"
        return memory


def execute(op: MicroOp, memory: np.ndarray, stream: np.ndarray, tokens: np.ndarray, position: int, beat: int) -> bool:
    """Run one micro-op on `memory`; False where something is infinite."""
    chip, row = as_chip(memory), np.array([int(getattr(op, name)) for name in RECORD.names] + [0, 0, 0], np.int64)
    streamed = bool(op.flags & Flag.STREAM)
    with np.errstate(all="ignore"):
        if op.op is Op.NORM:
            weight = (stream if streamed else memory)[op.c : op.c + 4 * op.columns].view(np.float32).copy()
            return norm(row, op.dst, op.a, op.b, weight, chip)
        if op.op is Op.ROPE:
            return run_rope(row, op.dst, op.a, op.c, position, chip)
        if op.op is Op.QUANT:
            return quant(row, op.dst, op.a, op.b, chip)
        if op.op is Op.SWIGLU:
            return run_swiglu(row, op.dst, op.a, op.b, chip)
        if op.op is Op.ARGMAX:
            return argmax(row, op.dst, op.a, chip)
        fine = True
        for t in range(op.tokens):
            at = op.b + t * -(-op.s0 // beat) * beat if streamed else op.b + int(tokens[op.slot + t]) * op.s0
            group = (stream if streamed else memory)[at : at + op.s0].view(np.int8).copy()
            fine &= bool(embed(row, op.dst, t, group, chip))
    return fine


def as_chip(memory: np.ndarray) -> Chip:
    """The simulator's view of one tile's memory."""
    one = memory.reshape(1, -1)
    views = {"signed": one.view(np.int8), "words": one.view(np.float32), "numbers": one.view(np.uint32)}
    nothing = {
        name: np.zeros(shape, kind)
        for names, shape, kind in (
            (("external",), 1, np.int8), (("codes",), (1, 1, 1), np.int8), (("n", "e", "sums"), (1, 1, 1), np.int64),
            (("e_max",), (1, 1), np.int64), (("greatest",), (1, 1), np.float32), (("e_values", "length"), (1, 1), np.int64),
            (("weighted",), (1, 1, 1), np.int64),
        )
        for name in names
    }  # fmt: skip
    return Chip(**views, **nothing)
