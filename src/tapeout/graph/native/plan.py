"""A model made ready for the C library: a list of ops over buffers, matrices in tiles, a KV cache per stream."""

import ctypes
import os
import weakref
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tapeout.graph.native.packing import Arena, lay_out, most_bytes
from tapeout.graph.native.structs import KINDS, SIZES, MatrixStruct, OpStruct, PacketsStruct, PlanStruct
from tapeout.graph.packing import Packed
from tapeout.graph.types import (
    AddBias,
    AddPosition,
    Attention,
    Embed,
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
    Turn,
    op_inputs,
)
from tapeout.numerics.formats import KV_FORMATS, greatest_code
from tapeout.numerics.scales import scale_values
from tapeout.numerics.tables import (
    EXP2,
    GELU,
    RECIPROCAL,
    SIGMOID,
    SINE,
    cap_constants,
    capped_score_constants,
    reciprocal_of_width,
    rope_increments,
    score_constant,
)  # fmt: skip

TOKENS = 64
"""Tokens of one pass at most."""
MOST_HEAD_DIM = 512
"""A score's integer, 512 * 127 * 127 * 15 * 15, still fits int32."""
F32 = NDArray[np.float32]


def unsuited(model: Model) -> str:
    """Why the library cannot run a model; empty where it can."""
    graph = model.graph
    tail = graph.ops[-2:] if isinstance(graph.ops[-1], SoftCap) else graph.ops[-1:]
    if not isinstance(tail[0], Linear) or tail[0].out != graph.head or tail[-1].out != graph.output:
        return "the output is not the last matrix's"
    wide = any(isinstance(op, Attention) and op.head_dim > MOST_HEAD_DIM for op in graph.ops)
    return f"heads wider than {MOST_HEAD_DIM}" if wide else ""


class NativePass:
    """Runs up to `TOKENS` tokens, of one stream or of several, through all ops of a model.

    stages: the ops in order, neighbouring matrices of one vector together; spent: per stage, the values that nobody
    reads after it. `refusal` says why the library cannot multiply a matrix; it is empty where all is well.
    """

    def __init__(
        self, library: ctypes.CDLL, model: Model, stages: Sequence[tuple[Op, ...]], spent: Sequence[Sequence[str]],
        pack: Callable[[str], Packed], context: int, streams: int, threads: int,
    ):  # fmt: skip
        assert [library.size_of(i) for i in range(len(SIZES))] == list(SIZES), "structs.py and engine.h differ"
        self._library, self._model, self._context, self._streams = library, model, context, streams
        self._kept: list[object] = []
        """Arrays and structs that the plan points into."""
        self._width = dict(model.graph.values)
        self._logits = {model.graph.head, model.graph.output}
        """The values that stand in the array of logits."""
        self.values: dict[str, F32] = {}
        """Buffers [TOKENS, width] of the values; those of spent values are used again."""
        self.refusal = ""
        self._matrices = self._lay_out(pack)
        if self.refusal:
            return
        self._names: list[str] = []
        self._turns: dict[Turn, tuple[F32, F32]] = {}
        self._ops = self._list_ops(stages, spent)
        self._plan = self._make_plan(threads)
        self._team = library.team_new(threads)
        assert self._team, "no memory for the threads"
        weakref.finalize(self, _dismiss, library, self._team, os.getpid())

    def run(
        self, ids: NDArray[np.int64], position: NDArray[np.int64], stream: NDArray[np.int64], logits: F32
    ) -> str | None:
        """One pass: ids, their positions and streams, all [tokens]. Writes the logits of the last `len(logits)` tokens.
        Returns the name of the first value that overflowed, or None. Positions of one stream are held before they are
        read, so a stream's tokens may stand in one pass.
        """
        assert len(ids) <= TOKENS, "more tokens than a pass takes"
        assert all(x.dtype == np.int64 and x.flags.c_contiguous for x in (ids, position, stream)), "int64 rows"
        plan, bad = self._plan, np.zeros(len(self._names), np.int64)
        plan.tokens, plan.wanted, plan.logits = len(ids), len(logits), logits.ctypes.data
        plan.ids, plan.position, plan.stream = ids.ctypes.data, position.ctypes.data, stream.ctypes.data
        at = self._library.run(self._team, ctypes.addressof(plan), bad.ctypes.data)
        return None if at < 0 else self._names[at]

    @property
    def weight_bytes(self) -> int:
        """Bytes of all matrices, which a token reads once."""
        return self._arena.used

    def read_weights(self) -> None:
        """Read them with the engine's threads and compute nothing: what bounds a token's time from below."""
        room = self._arena.room
        self._library.read_all(self._team, room.ctypes.data + -room.ctypes.data % 64, self._arena.used)

    def _matrix(self, name: str) -> Matrix:
        matrix = self._model.weights[name]
        assert isinstance(matrix, Matrix), "the engine has looked"
        return matrix

    def _keep(self, array: NDArray) -> int:
        """The address of an array that now lives as long as the plan."""
        self._kept.append(array)
        return array.ctypes.data

    def _lay_out(self, pack: Callable[[str], Packed]) -> dict[str, MatrixStruct]:
        """Every matrix in one arena."""
        names = dict.fromkeys(op.weight for op in self._model.graph.ops if isinstance(op, Linear))
        kinds = {name: self._matrix(name) for name in names}
        room = sum(most_bytes(*kind.shape, _bits(kind)) for kind in kinds.values())
        arena, found = Arena.of(room), {}
        for name, kind in kinds.items():
            packed = pack(name)
            matrix = lay_out(self._library, packed, _bits(kind), arena)
            if isinstance(matrix, str):
                self.refusal = f"{name}: {matrix}"
                break
            self._kept += [packed.exponent, matrix]
            found[name] = matrix
        self._arena = arena
        return found

    def _list_ops(self, stages: Sequence[tuple[Op, ...]], spent: Sequence[Sequence[str]]) -> ctypes.Array:
        free: dict[int, list[F32]] = {}
        ops = [self._make_turns(key) for key in _turn_keys(self._model)]
        for stage, done in zip(stages, spent, strict=True):
            for i, op in enumerate(stage):
                for name in (*op_inputs(op), op.out):
                    self._buffer(name, free)
                ops.append(self._make_op(op, len(stage) if i == 0 else 0))
                self._names.append(op.out)
            for name in set(done) - self._logits:
                free.setdefault(self._width[name], []).append(self.values[name])
        return (OpStruct * len(ops))(*ops)

    def _buffer(self, name: str, free: dict[int, list[F32]]) -> None:
        if name in self.values or name in self._logits:
            return
        width = self._width[name]
        again = free.get(width)
        self.values[name] = again.pop() if again else np.zeros((TOKENS, width), np.float32)

    def _make_turns(self, key: Turn) -> OpStruct:
        self._names.append("cosines")
        turns = tuple(np.zeros((TOKENS, key[1] // 2), np.float32) for _ in range(2))
        self._turns[key] = (turns[0], turns[1])
        increments = self._keep(np.ascontiguousarray(rope_increments(*key), np.int64))
        out, out2 = (self._keep(x) for x in turns)
        return OpStruct(kind=KINDS["Turns"], width=key[1], head_dim=key[1], weight=increments, out=out, out2=out2)

    def _make_op(self, op: Op, stage: int) -> OpStruct:
        last = op.out in self._logits
        made = OpStruct(kind=KINDS[type(op).__name__], stage=stage, width=self._width[op.out], last_only=int(last))
        made.out = None if last else self.values[op.out].ctypes.data
        for field, name in zip(("a", "b", "c"), op_inputs(op), strict=False):
            setattr(made, field, None if name in self._logits else self.values[name].ctypes.data)
        match op:
            case Linear():
                made.x_width, made.weight = self._width[op.x], ctypes.addressof(self._matrices[op.weight])
            case RMSNorm() | HeadNorm() | LayerNorm():
                self._make_norm(op, made)
            case Rope():
                made.head_dim = op.head_dim
                made.b, made.c = (x.ctypes.data for x in self._turns[op.turn])
            case Attention():
                self._make_cache(op, made)
            case Embed() | AddPosition():
                self._make_table(op, made)
            case AddBias():
                made.b = self._vector(op.bias)
            case Scale():
                made.factor = np.float32(op.factor)
            case SoftCap():
                made.constant, made.factor = cap_constants(op.cap)
            case _:
                pass
        return made

    def _vector(self, name: str) -> int:
        """The address of a weight of floats."""
        return self._keep(np.ascontiguousarray(self._model.weights[name], np.float32))

    def _make_norm(self, op: RMSNorm | HeadNorm | LayerNorm, made: OpStruct) -> None:
        made.weight = self._vector(op.weight)
        made.head_dim = op.head_dim if isinstance(op, HeadNorm) else made.width
        made.eps, made.inverse = np.float32(op.eps), reciprocal_of_width(made.head_dim)
        if isinstance(op, LayerNorm):
            made.b = self._vector(op.bias)

    def _make_cache(self, op: Attention, made: OpStruct) -> None:
        context = -(-(self._context + 8) // 32) * 32
        shape, dim = (self._streams, op.kv_heads, context), -(-op.head_dim // 32) * 32
        made.heads, made.kv_heads, made.head_dim, made.context = op.heads, op.kv_heads, op.head_dim, context
        made.constant, made.window = score_constant(op.scale_of), op.window
        form = KV_FORMATS[op.kv]
        made.most_key, made.most_value = greatest_code(form.key_bits), greatest_code(form.value_bits)
        if op.softcap:
            made.constant, made.factor = capped_score_constants(op.scale_of, op.softcap)
        made.keys, made.values = (self._keep(np.zeros((*shape, dim), np.int8)) for _ in range(2))
        made.n_keys, made.n_values, made.e_values = (self._keep(np.zeros(shape, np.int32)) for _ in range(3))
        made.power_keys = self._keep(np.zeros(shape, np.float64))

    def _make_table(self, op: Embed | AddPosition, made: OpStruct) -> None:
        table = self._matrix(op.table)
        made.group, made.offset = table.format.group, table.format.offset
        made.weight = self._keep(np.ascontiguousarray(table.codes))
        made.scale, made.factor = self._keep(scale_values(table.format.scale, table.scale, np.float32)), table.factor
        if table.minimum is not None:
            made.minimum = self._keep(scale_values(table.format.scale, table.minimum, np.float32))

    def _make_plan(self, threads: int) -> PlanStruct:
        packets = -(-max(self._width.values()) // 32) * TOKENS
        context = -(-self._context // 32) * 32

        def zeros(count: int, kind: type) -> int:
            return self._keep(np.zeros(count, kind))

        return PlanStruct(
            ops=ctypes.addressof(self._ops), count=len(self._ops), context=context,
            sine=self._keep(SINE.astype(np.int32)), exp2=self._keep(EXP2.astype(np.int32)),
            sigmoid=self._keep(SIGMOID.astype(np.int32)), gelu=self._keep(GELU.astype(np.int32)),
            reciprocal=self._keep(RECIPROCAL.astype(np.float32)),
            packets=PacketsStruct(
                codes=zeros(packets * 32, np.int8), factor=zeros(packets, np.float64),
                sums=zeros(packets, np.int32), half_sums=zeros(packets * 2, np.int32), scaled=zeros(packets, np.float64),
                half_scaled=zeros(packets * 2, np.float64), e_max=zeros(TOKENS, np.int32),
            ),
            scores=zeros(threads * context, np.float32), weights=zeros(threads * context, np.int32),
        )  # fmt: skip


def _dismiss(library: ctypes.CDLL, team: int, process: int) -> None:
    """End the threads; a forked process has none of them to wait for."""
    if os.getpid() == process:
        library.team_free(team)


def _bits(matrix: Matrix) -> int:
    """What a code takes in memory."""
    return 4 if matrix.format.low >= -8 and matrix.format.high <= 7 else 8


def _turn_keys(model: Model) -> list[Turn]:
    return list(dict.fromkeys(op.turn for op in model.graph.ops if isinstance(op, Rope)))
