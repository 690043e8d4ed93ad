"""The quick twin of the reference executor: the same bits, fast enough to talk to.

`FastEngine` runs a quantized `Model` op by op; each op is one compiled loop over the tokens of a chunk, cut into pieces
where several threads share it. It keeps the KV cache as int8 codes with their (n, e). `flow` generates text and
measures perplexity with it. It shares its scalar kernels with `sim`, and nothing with `graph/reference.py`.
"""

import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from tapeout.base.errors import BadInput, Overflow
from tapeout.graph import loops
from tapeout.graph.packing import LANES, Packed, pack
from tapeout.graph.types import Add, Attention, Embed, Linear, Matrix, Model, Op, RMSNorm, Rope, SwiGLU, op_inputs
from tapeout.numerics.scales import scale_values
from tapeout.numerics.tables import reciprocal_of_width, rope_increments, score_constant

F32 = NDArray[np.float32]

CHUNK = 64
"""Tokens run through the ops at a time; longer steps are cut. Bits do not depend on it."""
PIECE = 200_000
"""Multiplications below which a piece of work is not worth handing to another thread."""


class Team:
    """Threads that take pieces of work from one list. A thread that the system does not run holds nobody up: the others
    take its pieces, and nobody waits for it but for a piece it has begun. One thread is the caller itself: no pool.
    """

    def __init__(self, threads: int):
        self.threads = threads
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._started = False

    def run(self, pieces: list[Callable[[], int]]) -> int:
        """Do all pieces; the sum of what they return."""
        if self.threads == 1 or len(pieces) == 1:
            return sum(piece() for piece in pieces)
        self._start()
        job = _Job(pieces)
        for _ in range(min(self.threads, len(pieces)) - 1):
            self._jobs.put(job)
        job.help()
        total = 0
        for _ in pieces:
            bad = job.done.get()
            assert bad is not None, "a piece of work failed in another thread, which printed why"
            total += bad
        return total

    def _start(self) -> None:
        if self._started:
            return
        self._started = True
        for _ in range(self.threads - 1):
            threading.Thread(target=_work, args=(self._jobs,), daemon=True).start()
        weakref.finalize(self, _dismiss, self._jobs, self.threads - 1)


class _Job:
    """Pieces of work that any thread may take."""

    def __init__(self, pieces: list[Callable[[], int]]):
        self._left = pieces[::-1]
        self.done: SimpleQueue[int | None] = SimpleQueue()

    def help(self) -> None:
        """Take pieces and do them until none is left."""
        while True:
            try:
                piece = self._left.pop()  # one step of the interpreter: no two threads get the same piece
            except IndexError:
                return
            result = None
            try:
                result = piece()
            finally:
                self.done.put(result)


def _work(jobs: "SimpleQueue[_Job | None]") -> None:
    while (job := jobs.get()) is not None:
        job.help()


def _dismiss(jobs: "SimpleQueue[_Job | None]", workers: int) -> None:
    for _ in range(workers):
        jobs.put(None)


@dataclass(frozen=True, slots=True)
class _Packets:
    """A quantized vector per token, groups of 32: what `loops.matrix_loop` reads."""

    codes: NDArray[np.int8]
    """[tokens, groups, 32]."""
    factor: NDArray[np.float64]
    """[tokens, groups]: n * 2^(e - e_max), exact."""
    total: NDArray[np.int64]
    """[tokens, groups]: A, the sum of the codes."""
    e_max: NDArray[np.int64]
    """[tokens]."""


def _packets(x: F32) -> _Packets:
    tokens, width = x.shape
    groups = -(-width // 32)
    codes, e_max = np.zeros((tokens, groups, 32), np.int8), np.empty(tokens, np.int64)
    factor, total = np.empty((tokens, groups), np.float64), np.empty((tokens, groups), np.int64)
    loops.quantize_loop(x, codes, factor, total, e_max)
    return _Packets(codes, factor, total, e_max)


def _halved(p: _Packets) -> _Packets:
    """The same vectors in groups of 16, for weights that have a scale per 16."""
    codes = p.codes.reshape(len(p.codes), -1, 16)
    return _Packets(codes, np.repeat(p.factor, 2, axis=1), codes.sum(axis=2, dtype=np.int64), p.e_max)


class _Cache:
    """Keys and values of one attention op: int8 codes and their scales n * 2^e per head and position."""

    def __init__(self, op: Attention, context: int):
        blocks, dim = -(-context // LANES), -(-op.head_dim // 8) * 8
        self.keys = np.zeros((op.kv_heads, blocks, dim, LANES), np.int8)
        self.values = np.zeros((op.kv_heads, -(-context // 8) * 8, op.head_dim), np.int8)
        self.nk, self.ek, self.nv, self.ev = (np.zeros((op.kv_heads, context), np.int32) for _ in range(4))

    def store(self, position: int, k: F32, v: F32) -> None:
        """Quantize and hold k, v [tokens, kv_heads, head_dim] from `position` on."""
        loops.store_loop(k, position, self.keys, self.values[:, :0], self.nk, self.ek)
        loops.store_loop(v, position, self.keys[:, :0], self.values, self.nv, self.ev)


@dataclass(slots=True)
class _Chunk:
    """One pass over the ops: up to CHUNK tokens."""

    ids: NDArray[np.int64]
    position: int
    values: dict[str, F32] = field(default_factory=dict)
    turns: dict[tuple[float, int], tuple[F32, F32]] = field(default_factory=dict)
    """(theta, head_dim) -> cosines and sines [tokens, head_dim / 2] of its positions."""

    def last(self, count: int) -> "_Chunk":
        """The last `count` tokens of it."""
        first = len(self.ids) - count
        return _Chunk(self.ids[first:], self.position + first, {name: x[first:] for name, x in self.values.items()})

    def turned(self, theta: float, head_dim: int) -> tuple[F32, F32]:
        """Cosines and sines, made once for all layers."""
        key = (theta, head_dim)
        if key not in self.turns:
            cosines, sines = (np.empty((len(self.ids), head_dim // 2), np.float32) for _ in range(2))
            loops.turns_loop(self.position, rope_increments(theta, head_dim), cosines, sines)
            self.turns[key] = (cosines, sines)
        return self.turns[key]


class FastEngine:
    """`base.engine.Engine` by compiled loops. More than one of `threads` share matrices and attention."""

    def __init__(self, model: Model, context: int | None = None, threads: int = 1):
        if threads < 1:
            raise BadInput("threads", f"{threads} is less than 1")
        self.model = model
        self.context = model.graph.context if context is None else context
        self._team = Team(threads)
        self._held = 0
        self._stages = _stages(model)
        self._width = dict(model.graph.values)
        self._spent = _spent(self._stages, model.graph.output)
        self._packed: dict[str, Packed] = {}
        self._caches: dict[str, _Cache] = {}
        for op in model.graph.ops:
            self._prepare(op)

    def _prepare(self, op: Op) -> None:
        if isinstance(op, Linear) and op.weight not in self._packed:
            self._packed[op.weight] = pack(self._matrix(op.weight), op.weight)
        elif isinstance(op, Embed):
            self._matrix(op.table)
        elif isinstance(op, Attention):
            self._caches[op.out] = _Cache(op, self.context)

    def _matrix(self, name: str) -> Matrix:
        weight = self.model.weights.get(name)
        if not isinstance(weight, Matrix):
            raise BadInput(name, "is not a quantized matrix", "quantize the model, or use float mode")
        return weight

    def step(self, token_ids: Sequence[int], position: int, every: bool = False) -> F32:
        """Logits of the last token [vocabulary], or of all [tokens, vocabulary]; see base.engine.Engine.

        Raises `BadInput` for an id outside the vocabulary or a full context, `Overflow` naming the op's value.
        """
        ids = np.asarray(token_ids, np.int64)
        self._check(ids, position)
        parts = []
        for first in range(0, len(ids), CHUNK):
            chunk = _Chunk(ids[first : first + CHUNK], position + first)
            wanted = len(chunk.ids) if every else int(first + CHUNK >= len(ids))
            parts.append(self._pass(chunk, wanted))
        self._held = position + len(ids)
        return np.concatenate(parts) if every else parts[-1][-1]

    def _pass(self, chunk: _Chunk, wanted: int) -> F32:
        """Run the ops on a chunk, the output only for its last `wanted` tokens."""
        output = self.model.graph.output
        for ops, spent in zip(self._stages, self._spent, strict=True):
            if ops[0].out == output and wanted < len(chunk.ids):
                chunk = chunk.last(wanted)
            outs = [np.empty((len(chunk.ids), self._width[op.out]), np.float32) for op in ops]
            if self._run(ops, chunk, outs):
                raise Overflow(_first_overflow(ops, outs))
            for op, out in zip(ops, outs, strict=True):
                chunk.values[op.out] = out
            for name in spent:
                del chunk.values[name]
        return chunk.values[output]

    def _run(self, ops: tuple[Op, ...], chunk: _Chunk, outs: list[F32]) -> int:
        """Write the value of one op, or of several `Linear` of one vector; how many numbers overflowed on the way."""
        values, op, out = chunk.values, ops[0], outs[0]
        match op:
            case Linear():
                return self._linear(ops, values[op.x], outs)
            case RMSNorm():
                inverse = reciprocal_of_width(out.shape[1])
                return loops.rmsnorm_loop(values[op.x], self.model.weights[op.weight], inverse, np.float32(op.eps), out)
            case Rope():
                return loops.rope_loop(values[op.x], *chunk.turned(op.theta, op.head_dim), out)
            case Attention():
                return self._attention(op, chunk, out)
            case SwiGLU():
                return loops.swiglu_loop(values[op.gate], values[op.up], out)
            case Add():
                return loops.add_loop(values[op.a], values[op.b], out)
            case Embed():
                return self._embed(op, chunk.ids, out)

    def _embed(self, op: Embed, ids: NDArray[np.int64], out: F32) -> int:
        table = self._matrix(op.table)
        form, factor = table.format, np.float32(table.factor)
        scale = scale_values(form.scale, table.scale[ids])
        minimum = np.zeros_like(scale) if table.minimum is None else scale_values(form.scale, table.minimum[ids])
        return loops.embed_loop(ids, table.codes, form.offset, scale, minimum, form.group, factor, out)

    def _linear(self, ops: tuple[Op, ...], x: F32, outs: list[F32]) -> int:
        p, pieces = _packets(x), []
        for op, out in zip(ops, outs, strict=True):
            assert isinstance(op, Linear), "only matrices share a stage"
            w = self._packed[op.weight]
            q = p if w.codes.shape[2] == 32 else _halved(p)
            weights = (w.kind, w.offset, w.codes, w.scale, w.minimum, w.exponent, w.spill, w.factor)
            rest = (*weights, q.codes, q.factor, q.total, q.e_max, out)
            for first, last in self._cuts(len(w.codes), w.codes.size * len(x)):
                pieces.append(partial(loops.matrix_loop, first, last, *rest))
        return self._team.run(pieces)

    def _attention(self, op: Attention, chunk: _Chunk, out: F32) -> int:
        c, tokens = self._caches[op.out], len(chunk.ids)
        q, k, v = (chunk.values[name].reshape(tokens, -1, op.head_dim) for name in (op.q, op.k, op.v))
        c.store(chunk.position, k, v)
        rest = (chunk.position, score_constant(op.head_dim), q, c.keys, c.nk, c.ek, c.values, c.nv, c.ev, out)
        pairs, keys = tokens * op.heads, chunk.position + tokens
        cuts = self._cuts(pairs, 8 * pairs * keys * op.head_dim)  # a key costs some 8 times a weight's multiplication
        return self._team.run([partial(loops.attention_loop, first, last, *rest) for first, last in cuts])

    def _cuts(self, count: int, work: int) -> list[tuple[int, int]]:
        """Ranges of `count` things that cost `work` multiplications, as many as threads can use."""
        pieces = 1 if self._team.threads == 1 else max(1, min(work // PIECE, 4 * self._team.threads, count))
        return [(count * i // pieces, count * (i + 1) // pieces) for i in range(pieces)]

    def _check(self, ids: NDArray[np.int64], position: int) -> None:
        assert ids.ndim == 1, "token ids are one list"
        assert len(ids) > 0, "step needs at least one token"
        assert 0 <= position <= self._held, f"position {position} leaves a gap: {self._held} positions are held"
        vocabulary = self.model.graph.vocabulary
        outside = ids[(ids < 0) | (ids >= vocabulary)]
        if outside.size:
            raise BadInput("token id", f"{outside[0]} is outside the vocabulary", f"ids are 0..{vocabulary - 1}")
        if position + len(ids) > self.context:
            raise BadInput("context", f"{position + len(ids)} tokens do not fit {self.context} positions")


def _stages(model: Model) -> list[tuple[Op, ...]]:
    """The ops in order; neighbouring matrices that read one vector stand together, so that it is quantized once."""

    def key(op: Op) -> tuple[str, str]:
        return ("reads", op.x) if isinstance(op, Linear) and op.out != model.graph.output else ("is", op.out)

    return [tuple(ops) for _, ops in groupby(model.graph.ops, key)]


def _spent(stages: list[tuple[Op, ...]], output: str) -> list[list[str]]:
    """Per stage, the values that nobody reads after it."""
    last = {name: i for i, ops in enumerate(stages) for op in ops for name in op_inputs(op)}
    return [[name for name, at in last.items() if at == i and name != output] for i in range(len(stages))]


def _first_overflow(ops: tuple[Op, ...], outs: list[F32]) -> str:
    """The value that holds an infinity; an attention's scores may overflow and leave none."""
    return next((op.out for op, out in zip(ops, outs, strict=True) if not np.isfinite(out).all()), ops[0].out)
