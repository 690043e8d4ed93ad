"""Micro-ops of the attention unit as a layer issues them, on random records, and what they make of a memory by the simulator's functions."""

from dataclasses import dataclass, field, replace

import numpy as np

from tapeout.isa.opcodes import RECORD, Flag, MicroOp, Op
from tapeout.isa.timing import occupancy
from tapeout.numerics.tables import score_constant
from tapeout.rtl.attention_unit import ATTNOUT_PIPE, SCORE_PIPE, VALUE_PIPE
from tapeout.sim.execute import attnout, run_score, run_value
from tapeout.sim.state import Chip

SIZE = 1 << 17
PIPES = {Op.SCORE: SCORE_PIPE, Op.VALUE: VALUE_PIPE, Op.ATTNOUT: ATTNOUT_PIPE}


def latency(op, chip):
    return occupancy(op, chip) + PIPES[op.op]


@dataclass
class Maker:
    """Places records and micro-ops; `steps` are (issue cycle, micro-op, j), as early as the checker's rules let them issue."""

    chip: object
    rng: np.random.Generator
    position: int
    constant: float | None = None
    wild: bool = False
    used: int = 0
    stream_used: int = 0
    steps: list[tuple[int, MicroOp, int]] = field(default_factory=list)

    def __post_init__(self):
        self.memory = self.rng.integers(0, 256, SIZE, dtype=np.uint8)
        self.stream = self.rng.integers(0, 256, SIZE // 2, dtype=np.uint8)

    def below(self, low, high):
        return int(self.rng.integers(low, high))

    def place(self, size, align):
        at = -(-(self.used + self.below(0, 9)) // align) * align
        self.used = at + size
        assert self.used < SIZE, "the memory is full"
        return at

    def records(self, count, dim, tail, streamed=False):
        """`count` records of `dim` codes and pairs n, e: their address."""
        data = self.rng.integers(-127, 128, (count, dim + tail)).astype(np.int8).view(np.uint8)
        data[self.rng.random((count, dim + tail)) < 0.02] = 0x81
        data[:, dim::2] = self.rng.integers(8, 16, (count, tail // 2))
        exponents = (-100, 20) if self.wild else (-13, -8)
        data[:, dim + 1 :: 2] = self.rng.integers(*exponents, (count, tail // 2)).astype(np.int8).view(np.uint8)
        size = count * (dim + tail)
        if streamed:
            at = self.stream_used
            self.stream_used += -(-size // 2) * 2 + 2 * self.below(0, 2)
            self.stream[at : at + size] = data.reshape(-1)
            return at
        at = self.place(size, 2)
        self.memory[at : at + size] = data.reshape(-1)
        return at

    def add(self, op, j=0):
        """Issue at the earliest: unit order, and query states in flight."""
        first = self.below(1, 4) if not self.steps else 0
        for cycle, old, _ in self.steps:
            first = max(first, cycle + occupancy(old, self.chip))
            apart = op.slot >= old.slot + old.heads * old.tokens or old.slot >= op.slot + op.heads * op.tokens
            if not apart and not (old.op == op.op and not op.flags & Flag.FIRST):
                first = max(first, cycle + latency(old, self.chip))
        self.steps.append((first + (self.below(0, 4) if self.rng.random() < 0.2 else 0), op, j))


@dataclass
class Head:
    """One KV head of a layer: its queries' states, its recent records and its blocks."""

    maker: Maker
    slot: int
    heads: int
    tokens: int
    dim: int
    blocks: int
    block: int
    streamed: bool

    def __post_init__(self):
        make = self.maker
        stride = 4 * (self.blocks * self.block + self.tokens + make.below(0, 3))
        states = self.slot + self.heads * self.tokens
        scores = make.place(states * stride, 4)
        q = make.records(self.heads * self.tokens, self.dim, 2)
        self.common = MicroOp(
            Op.SCORE, heads=self.heads, tokens=self.tokens, columns=self.dim, slot=self.slot, s2=stride
        )
        constant = make.constant or float(score_constant(self.dim))
        bits = int(np.float32(constant).view(np.uint32))
        self.query = {"a": q, "s0": self.tokens * (self.dim + 2), "s1": self.dim + 2, "s3": bits}
        self.parts = [self._part(scores + 4 * self.blocks * self.block, self.tokens, Flag.RECENT, 0)]
        flags = Flag.STREAM if self.streamed else Flag.NONE
        self.parts += [self._part(scores + 4 * j * self.block, self.block, flags, j) for j in range(self.blocks)]

    def _part(self, scores, rows, flags, j):
        streamed = bool(flags & Flag.STREAM)
        keys = self.maker.records(rows, self.dim, 4, streamed)
        values = self.maker.records(rows, self.dim, 2, streamed)
        self._copy_exponents(rows, keys, values, self.maker.stream if streamed else self.maker.memory)
        return scores, rows, flags, j, keys, values

    def _copy_exponents(self, rows, keys, values, memory):
        """A K record carries its V's n and e."""
        for i in range(rows):
            k, v = keys + i * (self.dim + 4), values + i * (self.dim + 2)
            memory[k + self.dim + 2 : k + self.dim + 4] = memory[v + self.dim : v + self.dim + 2]

    def score(self, part):
        scores, rows, flags, j, keys, _ = self.parts[part]
        flags |= Flag.FIRST if part == 0 else Flag.NONE
        size = rows * (self.dim + 4)
        self.maker.add(replace(self.common, **self.query, dst=scores, b=keys, rows=rows, flags=flags, s4=size), j)

    def value(self, part):
        scores, rows, flags, j, _, values = self.parts[part]
        size = rows * (self.dim + 2)
        self.maker.add(replace(self.common, op=Op.VALUE, a=scores, b=values, rows=rows, flags=flags, s4=size), j)

    def out(self):
        stride = 4 * self.heads * self.dim + 4 * self.maker.below(0, 5)
        self.maker.add(replace(self.common, op=Op.ATTNOUT, dst=self.maker.place(self.tokens * stride, 4), s1=stride))


def layer(maker, kv_heads, heads, tokens, dim, blocks, block, streamed=False, leave=True):
    """A layer's attention: every KV head's scores part by part, then its values, then (with `leave`) the output."""
    made = [Head(maker, k * heads * tokens, heads, tokens, dim, blocks, block, streamed) for k in range(kv_heads)]
    for part in range(blocks + 1):
        for head in made:
            head.score(part)
    for part in range(blocks + 1):
        for head in made:
            head.value(part)
    for head in made if leave else ():
        head.out()


def simulated(maker, queries, dim):
    """The memory after all micro-ops, in order of issue, and whether all results were finite."""
    memory = maker.memory.copy()[None]
    none = np.zeros((1, 1), np.int64)
    chip = Chip(
        memory.view(np.int8), memory.view(np.float32), memory.view(np.uint32), np.zeros(1, np.int8), np.zeros((1, 1, 1), np.int8),
        none[None], none[None], none[None], none, np.zeros((1, queries), np.float32), np.zeros((1, queries), np.int64),
        np.zeros((1, queries), np.int64), np.zeros((1, queries, dim), np.int64),
    )  # fmt: skip
    fine = True
    for _, op, j in maker.steps:
        row = np.array([int(getattr(op, name)) for name in RECORD.names] + [0, 0, 0], np.int64)
        records = (maker.stream if op.flags & Flag.STREAM else memory[0])[op.b :].view(np.int8)
        match op.op:
            case Op.SCORE:
                fine &= bool(run_score(row, op.dst, op.a, records, maker.position, j, chip))
            case Op.VALUE:
                fine &= bool(run_value(row, op.a, records, maker.position, j, chip))
            case _:
                fine &= bool(attnout(row, op.dst, chip))
    return memory[0], fine
