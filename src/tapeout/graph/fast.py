"""The quick twin of the reference executor: the same bits, fast enough to talk to.

`FastEngine` runs a quantized `Model` chunk by chunk, by one of two paths of equal bits. `graph/native` is C, where it
was compiled at installation. Else each op is one numba loop over the tokens of a chunk, cut into pieces where several
threads share it. Both keep the KV cache as int8 codes with their (n, e). `flow` generates text and measures perplexity
with it. It shares its scalar kernels with `sim`, and nothing with `graph/reference.py`.
"""

import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, pairwise
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

from tapeout.base.errors import BadInput, Overflow
from tapeout.graph import loops
from tapeout.graph.native import library
from tapeout.graph.native.plan import NativePass, unsuited
from tapeout.graph.packing import LANES, Packed, pack
from tapeout.graph.types import (
    Add,
    AddBias,
    AddPosition,
    Attention,
    Embed,
    GeGLU,
    Gelu,
    HeadNorm,
    LayerNorm,
    Linear,
    Matrix,
    Model,
    Op,
    RMSNorm,
    Rope,
    Scale,
    SoftCap,
    SwiGLU,
    Turn,
    op_inputs,
)
from tapeout.numerics.formats import KV_FORMATS, greatest_code
from tapeout.numerics.scales import scale_values
from tapeout.numerics.tables import (
    cap_constants,
    capped_score_constants,
    reciprocal_of_width,
    rope_increments,
    score_constant,
)

F32 = NDArray[np.float32]

CHUNK = 64
"""Tokens run through the ops at a time; longer steps are cut. Bits do not depend on it."""
PATHS = ("best", "v4", "v3", "portable", "numba")
"""The quickest that this machine has; the variants of the C library; numba. Where C cannot be used, numba runs."""
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
        form = KV_FORMATS[op.kv]
        self.most = greatest_code(form.key_bits), greatest_code(form.value_bits)

    def store(self, position: int, k: F32, v: F32) -> None:
        """Quantize and hold k, v [tokens, kv_heads, head_dim] from `position` on."""
        loops.store_loop(k, position, self.most[0], self.keys, self.values[:, :0], self.nk, self.ek)
        loops.store_loop(v, position, self.most[1], self.keys[:, :0], self.values, self.nv, self.ev)


@dataclass(slots=True)
class _Chunk:
    """One pass over the ops: up to CHUNK tokens, in runs of neighbours of one stream."""

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    streams: NDArray[np.int64]
    values: dict[str, F32] = field(default_factory=dict)
    turns: dict[Turn, tuple[F32, F32]] = field(default_factory=dict)
    """`Rope.turn` -> cosines and sines [tokens, head_dim / 2] of its positions."""

    def last(self, count: int) -> "_Chunk":
        """The last `count` tokens of it."""
        first = len(self.ids) - count
        cut = (self.ids[first:], self.positions[first:], self.streams[first:])
        return _Chunk(*cut, {name: x[first:] for name, x in self.values.items()})

    def runs(self) -> list[tuple[int, int]]:
        """Ranges of tokens that follow one another in one stream."""
        breaks = np.flatnonzero(np.diff(self.streams) | (np.diff(self.positions) - 1)) + 1
        edges = [0, *breaks.tolist(), len(self.ids)]
        return list(pairwise(edges))

    def turned(self, op: Rope) -> tuple[F32, F32]:
        """Cosines and sines, made once for all layers."""
        if op.turn not in self.turns:
            cosines, sines = (np.empty((len(self.ids), op.head_dim // 2), np.float32) for _ in range(2))
            loops.turns_loop(self.positions, rope_increments(*op.turn), cosines, sines)
            self.turns[op.turn] = (cosines, sines)
        return self.turns[op.turn]


class FastEngine:
    """`base.engine.Engine` by compiled loops. More than one of `threads` share matrices and attention.

    streams: texts held side by side, each with a KV cache of `context` positions; `step_batch` runs one token of each
    and reads every weight once for all. path: "best", or a name of `PATHS` for tests and measurements.
    """

    def __init__(
        self, model: Model, context: int | None = None, threads: int = 1, streams: int = 1, path: str = "best"
    ):  # fmt: skip
        if threads < 1:
            raise BadInput("threads", f"{threads} is less than 1")
        self.model = model
        wanted = model.graph.context if context is None else context
        self.context = min([wanted, *_learned_positions(model)])
        self._team = Team(threads)
        self._held = [0] * streams
        self._head = model.graph.head
        self._stages = _stages(model)
        self._width = dict(model.graph.values)
        self._spent = _spent(self._stages, model.graph.output)
        self._packed: dict[str, Packed] = {}
        self._caches: dict[tuple[str, int], _Cache] = {}
        for name in [op.weight if isinstance(op, Linear) else op.table for op in _with_matrices(model)]:
            self._matrix(name)
        self._native, self.path = self._choose(path)
        if self._native is None:
            for op in model.graph.ops:
                self._prepare(op)

    def _choose(self, path: str) -> tuple[NativePass | None, str]:
        """The C path and its name, or None and why the numba loops run."""
        assert path in PATHS, f"{path} is none of {', '.join(PATHS)}"
        if path == "numba":
            return None, "numba loops, as asked"
        variant, found = library.best() if path == "best" else (path, library.load(path))
        refusal = found if isinstance(found, str) else unsuited(self.model)
        if isinstance(found, str) or refusal:
            return None, f"numba loops, slower than C: {refusal}"
        threads, streams = self._team.threads, len(self._held)
        native = NativePass(found, self.model, self._stages, self._spent, self._pack, self.context, streams, threads)
        if native.refusal:
            return None, f"numba loops, slower than C: {native.refusal}"
        return native, f"compiled C ({variant})"

    def _pack(self, name: str) -> Packed:
        return pack(self._matrix(name), name)

    def _prepare(self, op: Op) -> None:
        if isinstance(op, Linear) and op.weight not in self._packed:
            self._packed[op.weight] = self._pack(op.weight)
        elif isinstance(op, Attention):
            for stream in range(len(self._held)):
                self._caches[op.out, stream] = _Cache(op, self.context)

    def _matrix(self, name: str) -> Matrix:
        weight = self.model.weights.get(name)
        if not isinstance(weight, Matrix):
            raise BadInput(name, "is not a quantized matrix", "quantize the model, or use float mode")
        return weight

    def step(self, token_ids: Sequence[int], position: int, every: bool = False, stream: int = 0) -> F32:
        """Logits of the last token [vocabulary], or of all [tokens, vocabulary]; see base.engine.Engine.

        Raises `BadInput` for an id outside the vocabulary or a full context, `Overflow` naming the op's value.
        """
        ids = np.array(token_ids, np.int64)
        assert ids.ndim == 1, "token ids are one list"
        assert len(ids) > 0, "step needs at least one token"
        self._check(ids, position, stream)
        positions, streams = np.arange(position, position + len(ids)), np.full(len(ids), stream)
        logits = self._steps(_Chunk(ids, positions, streams), len(ids) if every else 1)
        self._held[stream] = position + len(ids)
        return logits if every else logits[-1]

    def step_batch(self, token_ids: Sequence[int], positions: Sequence[int], streams: Sequence[int]) -> F32:
        """One token of each of some streams, no stream twice; all arguments [tokens]. Logits [tokens, vocabulary].

        The bits of each are those of `step` on its stream alone. Raises as `step` does, before anything is run.
        """
        ids, at, of = (np.array(x, np.int64) for x in (token_ids, positions, streams))
        assert ids.ndim == 1, "token ids are one list"
        assert ids.shape == at.shape == of.shape, "each has a token, a position and a stream"
        assert len(ids) > 0, "step_batch needs at least one token"
        assert len(set(of.tolist())) == len(of), "a stream stands twice in a batch"
        for i, stream in enumerate(of.tolist()):
            self._check(ids[i : i + 1], int(at[i]), stream)
        logits = self._steps(_Chunk(ids, at, of), len(ids))
        for i, stream in enumerate(of.tolist()):
            self._held[stream] = int(at[i]) + 1
        return logits

    def _steps(self, tokens: _Chunk, wanted: int) -> F32:
        """Any number of tokens, CHUNK at a time; logits of the last `wanted` of them, 1 or all."""
        parts, count = [], len(tokens.ids)
        for first in range(0, count, CHUNK):
            cut = slice(first, first + CHUNK)
            chunk = _Chunk(tokens.ids[cut], tokens.positions[cut], tokens.streams[cut])
            last = first + CHUNK >= count
            parts.append(self._pass(chunk, len(chunk.ids) if wanted == count else int(last)))
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def _pass(self, chunk: _Chunk, wanted: int) -> F32:
        """Run the ops on a chunk, the output only for its last `wanted` tokens."""
        if self._native is None:
            return self._pass_by_loops(chunk, wanted)
        logits = np.empty((wanted, self._width[self.model.graph.output]), np.float32)
        overflowed = self._native.run(chunk.ids, chunk.positions, chunk.streams, logits)
        if overflowed is not None:
            raise Overflow(overflowed)
        return logits

    def _pass_by_loops(self, chunk: _Chunk, wanted: int) -> F32:
        output = self.model.graph.output
        for ops, spent in zip(self._stages, self._spent, strict=True):
            if ops[0].out == self._head and wanted < len(chunk.ids):
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
            case RMSNorm() | HeadNorm() | LayerNorm():
                return self._norm(op, values[op.x], out)
            case Rope():
                return loops.rope_loop(values[op.x], *chunk.turned(op), out)
            case Attention():
                return self._attention(op, chunk, out)
            case SwiGLU():
                return loops.swiglu_loop(values[op.gate], values[op.up], out)
            case Add():
                return loops.add_loop(values[op.a], values[op.b], out)
            case Embed():
                return self._embed(op.table, chunk.ids, out)
            case AddBias():
                return loops.add_bias_loop(values[op.x], self.model.weights[op.bias], out)
            case AddPosition():
                rows = np.empty_like(out)
                self._embed(op.table, chunk.positions, rows)
                return loops.add_loop(values[op.x], rows, out)
            case Scale():
                return loops.scale_loop(values[op.x], np.float32(op.factor), out)
            case Gelu():
                return loops.gelu_loop(values[op.x], out)
            case GeGLU():
                return loops.geglu_loop(values[op.gate], values[op.up], out)
            case SoftCap():
                return loops.softcap_loop(values[op.x], *cap_constants(op.cap), out)

    def _norm(self, op: RMSNorm | HeadNorm | LayerNorm, x: F32, out: F32) -> int:
        weight, eps = self.model.weights[op.weight], np.float32(op.eps)
        inverse = reciprocal_of_width(weight.shape[0])
        if isinstance(op, LayerNorm):
            return loops.layernorm_loop(x, weight, self.model.weights[op.bias], inverse, eps, out)
        each = (-1, weight.shape[0])
        return loops.rmsnorm_loop(x.reshape(each), weight, inverse, eps, out.reshape(each))

    def _embed(self, name: str, ids: NDArray[np.int64], out: F32) -> int:
        table = self._matrix(name)
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
        pieces = []
        constant, cap = score_constant(op.scale_of), np.float32(0)
        if op.softcap:
            constant, cap = capped_score_constants(op.scale_of, op.softcap)
        for start, end in chunk.runs():
            tokens, position = end - start, int(chunk.positions[start])
            c = self._caches[op.out, int(chunk.streams[start])]
            q, k, v = (chunk.values[name][start:end].reshape(tokens, -1, op.head_dim) for name in (op.q, op.k, op.v))
            c.store(position, k, v)
            rest = (position, constant, op.window, cap, q, c.keys, c.nk, c.ek, c.values, c.nv, c.ev, out[start:end])
            pairs, keys = tokens * op.heads, position + tokens
            work = 8 * pairs * keys * op.head_dim  # a key costs some 8 times a weight's multiplication
            pieces += [partial(loops.attention_loop, first, last, *rest) for first, last in self._cuts(pairs, work)]
        return self._team.run(pieces)

    def _cuts(self, count: int, work: int) -> list[tuple[int, int]]:
        """Ranges of `count` things that cost `work` multiplications, as many as threads can use."""
        pieces = 1 if self._team.threads == 1 else max(1, min(work // PIECE, 4 * self._team.threads, count))
        return [(count * i // pieces, count * (i + 1) // pieces) for i in range(pieces)]

    def _check(self, ids: NDArray[np.int64], position: int, stream: int) -> None:
        assert 0 <= stream < len(self._held), f"stream {stream} is none of {len(self._held)}"
        held = self._held[stream]
        assert 0 <= position <= held, f"position {position} leaves a gap: {held} positions are held"
        vocabulary = self.model.graph.vocabulary
        outside = ids[(ids < 0) | (ids >= vocabulary)]
        if outside.size:
            raise BadInput("token id", f"{outside[0]} is outside the vocabulary", f"ids are 0..{vocabulary - 1}")
        if position + len(ids) > self.context:
            raise BadInput("context", f"{position + len(ids)} tokens do not fit {self.context} positions")


def _with_matrices(model: Model) -> list[Linear | Embed | AddPosition]:
    return [op for op in model.graph.ops if isinstance(op, Linear | Embed | AddPosition)]


def _learned_positions(model: Model) -> list[int]:
    """How many positions each table of them holds."""
    return [model.graph.weight(op.table).shape[0] for op in model.graph.ops if isinstance(op, AddPosition)]


def _stages(model: Model) -> list[tuple[Op, ...]]:
    """The ops in order; neighbouring matrices that read one vector stand together, so that it is quantized once."""

    head = model.graph.head

    def key(op: Op) -> tuple[str, str]:
        return ("reads", op.x) if isinstance(op, Linear) and op.out != head else ("is", op.out)

    return [tuple(ops) for _, ops in groupby(model.graph.ops, key)]


def _spent(stages: list[tuple[Op, ...]], output: str) -> list[list[str]]:
    """Per stage, the values that nobody reads after it."""
    last = {name: i for i, ops in enumerate(stages) for op in ops for name in op_inputs(op)}
    return [[name for name, at in last.items() if at == i and name != output] for i in range(len(stages))]


def _first_overflow(ops: tuple[Op, ...], outs: list[F32]) -> str:
    """The value that holds an infinity; an attention's scores may overflow and leave none."""
    return next((op.out for op, out in zip(ops, outs, strict=True) if not np.isfinite(out).all()), ops[0].out)
