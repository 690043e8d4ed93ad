"""Every micro-op, defined once: fields, encoding, unit and meaning. All else about micro-ops derives from this table.

A micro-op is a 64-byte record. It names a tile, a unit (by its opcode), the cycle of its segment in which it issues, sizes, four
addresses (`dst`, `a`, `b`, `c`: bytes in the tile's SRAM, each an offset from one of the program's base registers) and five plain
numbers `s0`..`s4`. `FIELDS` of an opcode says what its slots mean; the text form and the documentation use those names.

Terms used in the meanings: a *packet* is 34 bytes: 32 int8 codes, then n (uint8), e (int8). A *head packet* is head_dim codes, then
n, e. `POS` is the position of token 0 of this step, `TOKEN[t]` its token ids, `LAST` the token row whose logits are wanted; they are
set by the host before the step. `j` is the context block (program.py). "f32[n]" is n little-endian binary32. Arithmetic: docs/numerics.md.
"""

from dataclasses import dataclass, fields
from enum import IntEnum, IntFlag

import numpy as np

from tapeout.numerics.formats import FORMATS


class Unit(IntEnum):
    """One in-order micro-op stream per unit and tile."""

    MATRIX = 0
    VECTOR = 1
    ATTENTION = 2
    LINK = 3


class Flag(IntFlag):
    """Modifiers of a micro-op."""

    NONE = 0
    STREAM = 1
    """The operand marked "or stream" is the next `stream_bytes` of the tile's stream buffer instead of SRAM."""
    ADD = 2
    """norm, layernorm: x += y first, and write x back."""
    AUX = 4
    """quant: write each token's (n, e) a second time, at `aux`."""
    FIRST = 8
    """score, nearscore: reset the query states first."""
    RECENT = 16
    """score, value, nearscore, nearvalue: the keys are this step's own tokens (causal), not a block of the cache."""
    PAIRS = 32
    """argmax: the input is `columns` pairs (f32 value, uint32 id) instead of f32 logits."""
    EXTERNAL = 64
    """send: into the tile's write buffer towards external memory."""
    NIBBLES = 128
    """rope, quant: codes -7..7, two to a byte, the even column's in the low half. score, value, nearscore, nearvalue: so are the
    records' codes, and a record is shorter by half its columns."""


class Op(IntEnum):
    """Opcodes."""

    OPERAND = 0
    MATMUL = 1
    NORM = 2
    ROPE = 3
    QUANT = 4
    SWIGLU = 5
    EMBED = 6
    ARGMAX = 7
    SCORE = 8
    VALUE = 9
    ATTNOUT = 10
    SEND = 11
    BIAS = 12
    HEADNORM = 13
    LAYERNORM = 14
    GELU = 15
    GEGLU = 16
    POSITION = 17
    SCALE = 18
    SOFTCAP = 19
    NEARSCORE = 20
    NEARVALUE = 21


SCORES, VALUES = (Op.SCORE, Op.NEARSCORE), (Op.VALUE, Op.NEARVALUE)
ON_STATES = (*SCORES, *VALUES, Op.ATTNOUT)
"""Attention micro-ops that work on query states."""


@dataclass(frozen=True, slots=True)
class OpDef:
    """One row of the table: the unit, the slots by meaning (in the order of the text form), the flags allowed, what it does."""

    unit: Unit
    slots: dict[str, str]
    flags: Flag
    meaning: str


OPCODES: dict[Op, OpDef] = {
    Op.OPERAND: OpDef(
        Unit.MATRIX,
        {"x": "a", "x_stride": "s0", "tokens": "tokens", "columns": "columns"},
        Flag.NONE,
        "Load `tokens` vectors of columns/32 packets from x + t*x_stride into the operand buffer, and each one's e_max.",
    ),
    Op.MATMUL: OpDef(
        Unit.MATRIX,
        {
            "out": "dst", "out_stride": "s0", "weight": "b", "rows": "rows", "columns": "columns", "tokens": "tokens",
            "format": "format", "stream_bytes": "s4",
        },
        Flag.STREAM,
        "f32[rows] at out + t*out_stride = weight (blocks as in layout.py; SRAM or stream) times operand vector t.",
    ),
    Op.NORM: OpDef(
        Unit.VECTOR,
        {
            "x": "a", "x_stride": "s0", "y": "b", "weight": "c", "out": "dst", "out_stride": "s1", "columns": "columns",
            "tokens": "tokens", "eps": "s2", "inverse_width": "s3", "stream_bytes": "s4",
        },
        Flag.STREAM | Flag.ADD,
        "RMSNorm of x + t*x_stride: f32[columns] with weight f32[columns] (SRAM or stream), quantized into ceil(columns/32) packets at "
        "out + t*out_stride. With ADD x = x + y (y has x's stride) is rounded, written back and normalised. eps, inverse_width: binary32 bits.",
    ),
    Op.ROPE: OpDef(
        Unit.VECTOR,
        {
            "x": "a", "x_stride": "s0", "increments": "c", "out": "dst", "out_stride": "s1", "out_head_stride": "s2",
            "heads": "heads", "columns": "columns", "tokens": "tokens",
        },
        Flag.NIBBLES,
        "Rotate head h of token t, f32[columns] at x + t*x_stride + 4*h*columns, by position POS+t with uint32[columns/2] increments; "
        "quantize per head into a head packet at out + t*out_stride + h*out_head_stride.",
    ),
    Op.QUANT: OpDef(
        Unit.VECTOR,
        {
            "x": "a", "x_stride": "s0", "out": "dst", "out_stride": "s1", "aux": "b", "aux_stride": "s2", "columns": "columns",
            "group": "group", "tokens": "tokens",
        },
        Flag.AUX | Flag.NIBBLES,
        "Quantize f32[columns] at x + t*x_stride in groups of `group` (the last padded with zero codes): each group's codes, then n, e, at "
        "out + t*out_stride. With AUX the group's n, e also at aux + t*aux_stride (one group only).",
    ),
    Op.SWIGLU: OpDef(
        Unit.VECTOR,
        {
            "gate": "a", "up": "b", "x_stride": "s0", "out": "dst", "out_stride": "s1", "columns": "columns", "tokens": "tokens",
        },
        Flag.NONE,
        "silu(gate)*up over f32[columns] at gate, up + t*x_stride, quantized into ceil(columns/32) packets at out + t*out_stride.",
    ),
    Op.EMBED: OpDef(
        Unit.VECTOR,
        {
            "out": "dst", "out_stride": "s1", "table": "b", "row_bytes": "s0", "table_rows": "s3", "token": "slot",
            "tokens": "tokens", "columns": "columns", "format": "format", "stream_bytes": "s4",
        },
        Flag.STREAM,
        "For t < tokens: dequantize the row at table + TOKEN[token+t]*row_bytes (or the next of the stream) into f32[columns] at "
        "out + t*out_stride. A row is columns/32 groups of packed codes, scales, minimum, behind a factor where the format has one.",
    ),
    Op.ARGMAX: OpDef(
        Unit.VECTOR,
        {"x": "a", "out": "dst", "columns": "columns", "first_id": "s0"},
        Flag.PAIRS,
        "Greatest of f32[columns] at x, ties to the smallest index: f32 value, uint32 first_id + index at out. With PAIRS of pairs.",
    ),
    Op.SCORE: OpDef(
        Unit.ATTENTION,
        {
            "q": "a", "q_head_stride": "s0", "q_stride": "s1", "keys": "b", "scores": "dst", "scores_stride": "s2", "heads": "heads",
            "tokens": "tokens", "rows": "rows", "columns": "columns", "slot": "slot", "constant": "s3", "stream_bytes": "s4",
        },
        Flag.STREAM | Flag.FIRST | Flag.RECENT | Flag.NIBBLES,
        "Query (h, t), state slot+h*tokens+t: head packet q + h*q_head_stride + t*q_stride against `rows` key records at keys (columns codes, "
        "n, e of K, n, e of V: columns+4 bytes each). Valid keys: RECENT i <= t, else j*rows+i < POS. Score i -> f32 at scores + state*scores_stride "
        "+ 4*i; state m = max(m, score), E = max(E, e of V). FIRST resets to m = -inf, E = -128, L = 0, N = 0. constant: binary32 bits.",
    ),
    Op.VALUE: OpDef(
        Unit.ATTENTION,
        {
            "scores": "a", "scores_stride": "s2", "values": "b", "heads": "heads", "tokens": "tokens", "rows": "rows",
            "columns": "columns", "slot": "slot", "stream_bytes": "s4",
        },
        Flag.STREAM | Flag.RECENT | Flag.NIBBLES,
        "For each state as in score: p from (m, score i), L += p, N += ((p*n) >> (E-e)) * codes over the valid ones of `rows` value records at "
        "values (columns codes, n, e: columns+2 bytes each).",
    ),
    Op.ATTNOUT: OpDef(
        Unit.ATTENTION,
        {"out": "dst", "out_stride": "s1", "heads": "heads", "tokens": "tokens", "columns": "columns", "slot": "slot"},
        Flag.NONE,
        "f32[columns] = N/L * 2^E of state slot+h*tokens+t at out + t*out_stride + 4*h*columns.",
    ),
    Op.SEND: OpDef(
        Unit.LINK,
        {"source": "a", "source_stride": "s0", "out": "dst", "out_stride": "s1", "rows": "rows", "columns": "columns", "targets": "s2"},
        Flag.EXTERNAL,
        "Copy `rows` pieces of `columns` bytes at source + r*source_stride to out + r*out_stride in every tile of bit mask `targets`, along "
        "the static tree. With EXTERNAL into the write buffer towards external memory (no targets).",
    ),
    Op.BIAS: OpDef(
        Unit.VECTOR,
        {"x": "a", "x_stride": "s0", "bias": "c", "columns": "columns", "tokens": "tokens", "stream_bytes": "s4"},
        Flag.STREAM,
        "x = x + bias over f32[columns] at x + t*x_stride, in place; bias f32[columns] (SRAM or stream).",
    ),
    Op.HEADNORM: OpDef(
        Unit.VECTOR,
        {
            "x": "a", "x_stride": "s0", "weight": "c", "heads": "heads", "columns": "columns", "tokens": "tokens", "eps": "s2",
            "inverse_width": "s3", "stream_bytes": "s4",
        },
        Flag.STREAM,
        "RMSNorm of each head, f32[columns] at x + t*x_stride + 4*h*columns, in place, with weight f32[columns] (SRAM or stream).",
    ),
    Op.LAYERNORM: OpDef(
        Unit.VECTOR,
        {
            "x": "a", "x_stride": "s0", "y": "b", "weight": "c", "out": "dst", "out_stride": "s1", "columns": "columns",
            "tokens": "tokens", "eps": "s2", "inverse_width": "s3", "stream_bytes": "s4",
        },
        Flag.STREAM | Flag.ADD,
        "LayerNorm, otherwise as norm; at weight stand f32[columns] weights, then f32[columns] biases.",
    ),
    Op.GELU: OpDef(
        Unit.VECTOR,
        {"x": "a", "x_stride": "s0", "out": "dst", "out_stride": "s1", "columns": "columns", "tokens": "tokens"},
        Flag.NONE,
        "gelu(x) over f32[columns] at x + t*x_stride, quantized into ceil(columns/32) packets at out + t*out_stride.",
    ),
    Op.GEGLU: OpDef(
        Unit.VECTOR,
        {
            "gate": "a", "up": "b", "x_stride": "s0", "out": "dst", "out_stride": "s1", "columns": "columns", "tokens": "tokens",
        },
        Flag.NONE,
        "gelu(gate)*up, otherwise as swiglu.",
    ),
    Op.POSITION: OpDef(
        Unit.VECTOR,
        {
            "out": "dst", "out_stride": "s1", "table": "b", "row_bytes": "s0", "table_rows": "s3", "tokens": "tokens",
            "columns": "columns", "format": "format", "stream_bytes": "s4",
        },
        Flag.STREAM,
        "For t < tokens: add the dequantized row at table + t*row_bytes (or the next of the stream) to f32[columns] at out + t*out_stride; "
        "rows as those of embed. The table's base register brings row POS.",
    ),
    Op.SCALE: OpDef(
        Unit.VECTOR,
        {"x": "a", "x_stride": "s0", "columns": "columns", "tokens": "tokens", "factor": "s2"},
        Flag.NONE,
        "x = x * factor over f32[columns] at x + t*x_stride, in place. factor: binary32 bits.",
    ),
    Op.SOFTCAP: OpDef(
        Unit.VECTOR,
        {"x": "a", "columns": "columns", "into": "s2", "back": "s3"},
        Flag.NONE,
        "x = tanh(x * into) * back over f32[columns], in place. into, back: binary32 bits.",
    ),
    Op.NEARSCORE: OpDef(
        Unit.ATTENTION,
        {
            "q": "a", "q_head_stride": "s0", "q_stride": "s1", "keys": "b", "scores": "dst", "scores_stride": "s2", "heads": "heads",
            "tokens": "tokens", "rows": "rows", "columns": "columns", "slot": "slot", "constant": "s3", "stream_bytes": "s4",
            "window": "group", "cap": "c",
        },
        Flag.STREAM | Flag.FIRST | Flag.RECENT | Flag.NIBBLES,
        "As score, for keys at positions above POS+t - window only (window 0: all), and where cap is not 0 the score is tanh(score) * cap. "
        "constant, cap: binary32 bits.",
    ),
    Op.NEARVALUE: OpDef(
        Unit.ATTENTION,
        {
            "scores": "a", "scores_stride": "s2", "values": "b", "heads": "heads", "tokens": "tokens", "rows": "rows",
            "columns": "columns", "slot": "slot", "stream_bytes": "s4", "window": "group",
        },
        Flag.STREAM | Flag.RECENT | Flag.NIBBLES,
        "As value, for the keys that nearscore takes with the same window.",
    ),
}  # fmt: skip

RECORD = np.dtype(
    [
        ("op", "u1"), ("tile", "u1"), ("format", "u1"), ("flags", "u1"), ("issue", "<u4"),
        ("rows", "<u4"), ("columns", "<u4"), ("tokens", "<u2"), ("heads", "<u2"), ("group", "<u2"), ("slot", "<u2"),
        ("dst_base", "u1"), ("a_base", "u1"), ("b_base", "u1"), ("c_base", "u1"),
        ("dst", "<u4"), ("a", "<u4"), ("b", "<u4"), ("c", "<u4"),
        ("s0", "<u4"), ("s1", "<u4"), ("s2", "<u4"), ("s3", "<u4"), ("s4", "<u4"),
    ]
)  # fmt: skip
"""The encoding: 64 bytes, little-endian, fields in this order."""

assert RECORD.itemsize == 64, "a micro-op is 64 bytes"

ADDRESSES = ("dst", "a", "b", "c")
FORMAT_IDS = tuple(FORMATS)
"""The `format` byte: position in this tuple."""


@dataclass(frozen=True, slots=True)
class MicroOp:
    """One micro-op as an object; the fields of `RECORD`."""

    op: Op
    tile: int = 0
    format: int = 0
    flags: Flag = Flag.NONE
    issue: int = 0
    rows: int = 0
    columns: int = 0
    tokens: int = 0
    heads: int = 0
    group: int = 0
    slot: int = 0
    dst_base: int = 0
    a_base: int = 0
    b_base: int = 0
    c_base: int = 0
    dst: int = 0
    a: int = 0
    b: int = 0
    c: int = 0
    s0: int = 0
    s1: int = 0
    s2: int = 0
    s3: int = 0
    s4: int = 0

    @property
    def unit(self) -> Unit:
        """The unit it runs on."""
        return OPCODES[self.op].unit

    @property
    def stream_bytes(self) -> int:
        """Bytes it takes from the stream buffer; 0 where its operands are in SRAM."""
        return self.s4 if self.flags & Flag.STREAM else 0

    def named(self, name: str) -> int:
        """The value of a field by its meaning in `OPCODES`, e.g. `out_stride`."""
        return getattr(self, OPCODES[self.op].slots[name])

    def __str__(self) -> str:
        parts = [f"{self.issue:>7} tile{self.tile:<2} {self.op.name.lower():<8}"]
        for name, slot in OPCODES[self.op].slots.items():
            value = getattr(self, slot)
            base = getattr(self, f"{slot}_base") if slot in ADDRESSES else 0
            if slot == "format":
                parts.append(f"{name}={FORMAT_IDS[value]}")
            elif slot in ADDRESSES:
                parts.append(f"{name}={value:#x}" + (f"+B{base}" if base else ""))
            else:
                parts.append(f"{name}={value}")
        parts += [flag.name.lower() for flag in Flag if flag & self.flags and flag.name]
        return " ".join(parts)


RECORD_FIELDS = tuple(field.name for field in fields(MicroOp))


def to_records(ops: list[MicroOp]) -> np.ndarray:
    """Objects to records."""
    return np.array([tuple(int(getattr(op, name)) for name in RECORD.names or ()) for op in ops], dtype=RECORD)


def from_record(record: np.void) -> MicroOp:
    """One record to an object."""
    values = {name: int(record[name]) for name in RECORD_FIELDS}
    return MicroOp(**{**values, "op": Op(values["op"]), "flags": Flag(values["flags"])})
