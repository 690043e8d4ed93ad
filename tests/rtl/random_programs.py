"""Random legal programs on random chips: every micro-op, with random sizes, flags, formats, tokens and addresses, many of them in flight at once.

Same seeds, same chip and program. Every SRAM area holds values of one kind (binary32, packets, heads, key records, ...), so that whatever a micro-op
reads is what the contract lets it read; the compiler's board of rules finds the cycles, each unit resting for a random time before each micro-op.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chips import make_chip
from strategies import random_matrix, stored_per_block
from tapeout.chip.memory import memory_timing
from tapeout.chip.spec import ChipSpec
from tapeout.compiler.schedule import _Board
from tapeout.isa.footprint import region_finder
from tapeout.isa.layout import block_bytes, pack_blocks, pack_rows, row_bytes
from tapeout.isa.opcodes import FORMAT_IDS, Flag, MicroOp, Op, to_records
from tapeout.isa.predict import stream_beats
from tapeout.isa.program import (
    BLOCKS,
    DESCRIPTOR,
    READ,
    ROW,
    WRITE,
    ZERO,
    Base,
    Entry,
    Image,
    Loop,
    Program,
    Region,
    Segment,
)
from tapeout.isa.timing import SEGMENT_MIN, latency
from tapeout.numerics.formats import FORMATS
from tapeout.rtl.ports import TABLE_FORMATS, tables_of

VOCABULARY = 6
STATES = 8
MICRO_OPS = 2048
"""Per tile, a quarter of it per unit: more than any program here has."""


def random_rtl_chip(seed: int, **fixed: Any) -> ChipSpec:
    """A chip that the RTL can build, small enough to be Verilated quickly. `fixed`: fields as in `make_chip`, and grid, topology, streamed."""
    rng = np.random.default_rng([seed, 1])

    def draw(*choices: int | float | str) -> str:
        return str(rng.choice(choices))

    columns, rows = int(rng.choice([1, 2, 2, 3, 4])), int(rng.choice([1, 1, 2, 2, 3, 4]))
    ring = rng.random() < 0.25
    grid = fixed.pop("grid", {"columns": columns, "rows": 1 if ring else rows, "topology": "ring" if ring else "mesh"})
    streamed = fixed.pop("streamed", bool(rng.random() < 0.6))
    small = grid["columns"] * grid["rows"] > 4
    changes = {
        "tile__matrix__rows": draw(4, 8) if small else draw(4, 8, 16),
        "tile__matrix__lanes": draw(8, 16) if small else draw(8, 16, 32),
        "tile__matrix__tokens": draw(1, 2, 3, 4, 8),
        "tile__matrix__operand_kib": draw(1, 4, 8),
        "tile__vector__lanes": draw(2, 4) if small else draw(2, 4, 8, 16, 32),
        "tile__attention__keys": draw(1, 2) if small else draw(1, 2, 3, 4, 8),
        "tile__attention__lanes": draw(8, 16) if small else draw(8, 16, 32, 64),
        "tile__attention__block_keys": draw(8, 8, 16),
        "tile__attention__queries": draw(8, 16, 32),
        "tile__sram__kib": draw(96, 128, 192),
        "tile__sram__banks": draw(16, 32, 64),
        "tile__micro_ops": str(MICRO_OPS),
        "link__bytes_per_cycle": draw(4, 8, 16) if small else draw(4, 8, 16, 32, 64),
        "link__hop_cycles": draw(1, 1, 2, 3),
    }
    formats = [str(name) for name in rng.permutation(TABLE_FORMATS)[: rng.integers(1, 5)]]
    formats += _other_formats(seed)
    if streamed:
        beat = int(rng.choice([16, 32, 64]))
        interval = int(rng.choice([40, 300, 900]))
        changes |= {
            "external__beat_bytes": str(beat),
            "external__gb_per_s": str(round(beat * float(rng.choice([0.1, 0.3, 0.7, 0.999])), 3)),
            "external__latency_ns": draw(0, 1, 7, 60, 200),
            "external__refresh_interval_ns": str(interval),
            "external__refresh_ns": str(int(rng.choice([0, 1, interval // 10, interval // 3]))),
            "external__write_buffer_kib": draw(1, 2, 8),
            "tile__stream_kib": draw(2, 4, 16),
        }
    data = make_chip("2x2", streamed, **{**changes, **fixed}).model_dump(mode="json")
    data["grid"], data["name"], data["tile"]["matrix"]["formats"] = grid, f"random{seed}", formats
    return ChipSpec.from_data(data, "random")


def _other_formats(seed: int) -> list[str]:
    """One to three that not every chip's embedding takes; drawn apart, so that nothing else of a seed's chip depends on which there are."""
    rng, others = np.random.default_rng([seed, 17]), [name for name in FORMATS if name not in TABLE_FORMATS]
    return [str(name) for name in rng.permutation(others)[: rng.integers(1, 4)]]


@dataclass(frozen=True, slots=True)
class Area:
    """A region of values of one kind, `unit` bytes each."""

    name: str
    kind: str
    unit: int
    start: int
    size: int
    constant: bool = False


@dataclass(frozen=True, slots=True)
class Weights:
    """A packed matrix at `start` of an area or of external memory."""

    start: int
    rows: int
    columns: int
    format: int


@dataclass(slots=True)
class _Segment:
    """A segment in the making, and what its loops do to base registers."""

    count: int
    repeat: int
    board: _Board
    placed: list[tuple[int, int, MicroOp]] = field(default_factory=list)
    reads: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    writes: list[tuple[int, tuple[int, ...]]] = field(default_factory=list)
    sent: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    gap: int = 0


def random_program(seed: int, chip: ChipSpec) -> Program:
    """A legal program for `chip`."""
    return _Maker(np.random.default_rng([seed, 2]), chip, seed).program()


class _Maker:
    """Draws everything. Kinds of areas: see `_areas`. turn: whose turn it is among the formats of tables, where a chip has many."""

    def __init__(self, rng: np.random.Generator, chip: ChipSpec, turn: int):
        self.turn = turn
        self.rng, self.chip, self.tiles = rng, chip, chip.grid.tiles
        self.dim = self.draw(*[d for d in (2, 6, 8, 12, 16, 24, 32, 48, 64, 128) if d <= chip.tile.attention.lanes])
        self.context, self.chunk = self.draw(20, 33, 40), self.draw(2, 3, 5)
        self.most_tokens = min(4, chip.tile.matrix.tokens)
        room = chip.tile.matrix.operand_kib * 1024 // 34
        self.columns = [c for c in (32, 64, 96, 128) if c // 32 * self.most_tokens <= room][:4]
        self.bases: list[Base] = [ZERO]
        self.areas: list[Area] = []
        self.used: set[tuple[int, str]] = set()
        self._areas()
        self._registers()
        self.external: list[NDArray[np.uint8]] = []
        self.external_size = 0
        self.ops: list[MicroOp] = []
        self.descriptors: list[tuple[int, ...]] = []
        self.segments = 0
        self.now: _Segment = None  # type: ignore[assignment]
        if chip.external:
            self._external()

    # --- drawing ---

    def draw(self, *choices: int) -> int:
        return int(self.rng.choice(choices))

    def upto(self, most: int, least: int = 1) -> int:
        """least .. most, small ones more often."""
        return (
            int(min(self.rng.integers(least, most + 1), self.rng.integers(least, most + 1))) if most >= least else least
        )

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    # --- memory ---

    def _areas(self) -> None:
        """f32, packets (34 bytes), heads (D + 2), keys (D + 4) and values (D + 2) in step, scores, pairs, raw (nobody reads them as numbers)."""
        d, records, bank = self.dim, self.context + 8, self.chip.tile.sram.bank_bytes
        states, block = min(STATES, self.chip.tile.attention.queries), self.chip.tile.attention.block_keys
        self.scores_stride = 4 * (2 * block + 12)
        kinds = [("f32", 4, 1536)] * 5 + [("packet", 34, 34 * 40)] * 2 + [("head", d + 2, (d + 2) * 20)] * 2
        kinds += [("key", d + 4, (d + 4) * records), ("value", d + 2, (d + 2) * records)] * 2
        kinds += [("scores", 4, self.scores_stride * states)] + [("pair", 8, 400)] + [("raw", 2, 1536)] * 2
        self._formats()
        kinds += [
            ("weights", 1, sum(block_bytes(w.rows, w.columns, FORMAT_IDS[w.format]) for w in self.weights)), ("norm", 4, 800),
            ("increments", 4, 4 * 200), ("table", 1, VOCABULARY * row_bytes(self.table.columns, FORMAT_IDS[self.table.format])),
        ]  # fmt: skip
        at = 0
        for number in self.rng.permutation(len(kinds)):
            kind, unit, size = kinds[number]
            at += -at % (bank if self.chance(0.6) and bank <= 4096 else self.draw(4, 64))
            constant = kind in ("weights", "norm", "increments", "table")
            self.areas.append(Area(f"{kind}{number}", kind, unit, at, size + -size % 4, constant))
            at += size + -size % 4
        self.result = at + -at % 64
        assert self.result + 64 <= self.chip.tile.sram.kib * 1024, f"areas of {at} bytes"

    def _formats(self) -> None:
        rows = self.chip.tile.matrix.rows
        ids = [FORMAT_IDS.index(name) for name in self.chip.tile.matrix.formats]
        self.weights, at = [], 0
        for columns in self.columns[:2] if self.chance(0.5) else self.columns[-2:]:
            made = Weights(at, rows * self.draw(1, 2, 3), columns, self.draw(*ids))
            at += block_bytes(made.rows, columns, FORMAT_IDS[made.format])
            self.weights.append(made)
        tables = tables_of(self.chip)
        columns, drawn = self.draw(32, 64, 96), self.draw(*tables)
        many = len(tables) > len(TABLE_FORMATS)
        self.table = Weights(
            0,
            VOCABULARY,
            columns,
            list(tables)[(self.turn + self.turn // len(tables)) % len(tables)] if many else drawn,
        )

    def _registers(self) -> None:
        """Two registers per unit of bytes; key and value registers move in step."""
        self.by_unit: dict[int, list[int]] = {}
        steps = [(self.draw(0, 1, 3), self.draw(0, 1, 2), self.draw(0, 0, 1), self.draw(0, 0, 1)) for _ in range(2)]
        for unit in sorted({area.unit for area in self.areas if not area.constant} - {1}):
            self.by_unit[unit] = []
            for outer, inner, pos, last in steps:
                self.by_unit[unit].append(len(self.bases))
                self.bases.append(Base(f"u{unit}", unit * outer, unit * inner, unit * pos, unit * last))
        self.at_pos = [self._base("pos_key", pos=self.dim + 4), self._base("pos_value", pos=self.dim + 2)]
        keys = self.chip.tile.attention.block_keys
        self.at_block = [
            self._base("block_key", inner=keys * (self.dim + 4)),
            self._base("block_value", inner=keys * (self.dim + 2)),
        ]
        self.away = self._base("away", outer=64, inner=128)

    def _base(self, name: str, **steps: int) -> int:
        self.bases.append(Base(name, **steps))
        return len(self.bases) - 1

    def high(self, base: int) -> int:
        """Greatest content of a register in this segment."""
        blocks = -(-self.context // self.chip.tile.attention.block_keys)
        turns = max(blocks - 1, 0) if self.now.repeat == BLOCKS else self.now.repeat
        return self.bases[base].value(self.now.count - 1, max(turns - 1, 0), self.context - 1, self.chunk - 1)

    def areas_of(self, *kinds: str) -> list[Area]:
        return [area for area in self.areas if area.kind in kinds]

    def spot(self, tile: int, kind: str | Area, count: int, but: Area | None = None) -> tuple[int, int, Area] | None:
        """(base, offset, area) of `count` values of a kind; None where they do not fit."""
        choices = [kind] if isinstance(kind, Area) else [area for area in self.areas_of(kind) if area is not but]
        area = choices[self.rng.integers(len(choices))]
        base = self.draw(0, *self.by_unit.get(area.unit, [0])) if not area.constant else 0
        room = (area.size - self.high(base)) // area.unit - count
        if room < 0:
            base, room = 0, area.size // area.unit - count
        if room < 0:
            return None
        self.used.add((tile, area.name))
        return base, area.start + area.unit * int(self.rng.integers(room + 1)), area

    def images(self) -> tuple[Image, ...]:
        made = []
        for tile, name in sorted(self.used):
            area = next(area for area in self.areas if area.name == name)
            data = self._content(area)
            if data is not None:
                made.append(Image(tile, area.start, data))
        return tuple(made)

    def _content(self, area: Area) -> NDArray[np.uint8] | None:
        count = area.size // area.unit
        content: dict[str, Callable[[], NDArray]] = {
            "f32": lambda: self.floats(area.size // 4), "norm": lambda: self.floats(area.size // 4),
            "packet": lambda: self.packets(count, 32), "head": lambda: self.packets(count, self.dim), "key": lambda: self.records(count)[0],
            "value": lambda: self.records(count)[1], "increments": lambda: self.rng.integers(0, 1 << 32, area.size // 4, np.uint32),
            "pair": lambda: np.stack([self.floats(count).view(np.uint32), self.rng.integers(0, 1 << 20, count, np.uint32)], 1),
            "weights": lambda: np.concatenate([self.packed(w) for w in self.weights]), "table": lambda: self.rows(self.table),
        }  # fmt: skip
        if area.kind not in content:
            return None
        data = np.ascontiguousarray(content[area.kind]()).view(np.uint8).reshape(-1)
        return np.concatenate([data, np.zeros(area.size - data.size, np.uint8)])

    def floats(self, count: int) -> NDArray[np.float32]:
        """Moderate binary32 of either sign, some zero, some small."""
        x = self.rng.normal(0.0, 1.0, count) * np.exp2(self.rng.integers(-8, 4, count))
        pick = self.rng.random(count)
        x[pick < 0.05], x[pick > 0.98] = 0.0, x[pick > 0.98] * 2.0**-60
        return x.astype(np.float32)

    def packets(self, count: int, width: int) -> NDArray[np.uint8]:
        data = self.rng.integers(-127, 128, (count, width + 2)).astype(np.int8)
        data[:, width] = self.rng.integers(8, 16, count)
        data[:, width + 1] = self.rng.integers(-16, -5, count)
        return data.view(np.uint8)

    def records(self, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Key and value records; a value's scale stands in its key record too, or a coarser one does."""
        keys, values = self.packets(count, self.dim + 2), self.packets(count, self.dim)
        keys[:, self.dim] = self.rng.integers(8, 16, count)
        keys[:, self.dim + 1] = self.rng.integers(-16, -5, count).astype(np.int8).view(np.uint8)
        # Images of one tile's two areas are drawn apart, so the key's copy is the coarsest that any value has.
        keys[:, self.dim + 3] = np.int8(-6).view(np.uint8)
        return keys, values

    def packed(self, w: Weights) -> NDArray[np.uint8]:
        form = FORMATS[FORMAT_IDS[w.format]]
        matrix = random_matrix(self.rng, w.rows, w.columns, form, float(np.exp2(self.draw(-2, 0, 1))))
        unit = self.chip.tile.matrix
        scale, minimum = stored_per_block(matrix)
        return pack_blocks(form, matrix.codes, scale, minimum, unit.rows, unit.lanes, matrix.factor).reshape(-1)

    def rows(self, w: Weights) -> NDArray[np.uint8]:
        form = FORMATS[FORMAT_IDS[w.format]]
        matrix = random_matrix(self.rng, w.rows, w.columns, form, float(w.columns) ** 0.5)
        return pack_rows(form, matrix.codes, *stored_per_block(matrix), matrix.factor).reshape(-1)

    # --- external memory ---

    def _external(self) -> None:
        """Weights, norm weights, a table, key and value records that nobody writes, per tile a cache that grows, and room for anything."""
        self.x_weights = [replace(w, start=self._append(self.packed(w))) for w in self.weights]
        self.x_norm = self._append(self.floats(200).view(np.uint8))
        self.x_table = self._append(self.rows(self.table))
        keys, values = self.records(self.context + 8)
        self.x_keys, self.x_values = self._append(keys.reshape(-1)), self._append(values.reshape(-1))
        self.x_cache = [
            tuple(self._append(part.reshape(-1)) for part in self.records(self.context + 8)) for _ in range(self.tiles)
        ]
        self.x_image = self.external_size
        self.x_away = [self._append(np.zeros(2048, np.uint8)) for _ in range(self.tiles)]

    def _append(self, data: NDArray[np.uint8]) -> int:
        at = self.external_size
        pad = self.draw(0, 2, 6, 64)
        self.external.append(np.concatenate([data, np.zeros(pad, np.uint8)]))
        self.external_size += data.size + pad
        return at

    # --- placing ---

    def add(self, ops: Sequence[MicroOp], reads: Sequence[tuple[int, ...]] = ()) -> None:
        """Place micro-ops that issue together, after a random rest; `reads`: descriptors that bring what they stream."""
        board, order = self.now.board, len(self.now.placed)
        for op in ops:
            board.unit_free[op.tile, op.unit] += self.upto(self.now.gap, 0)
        issue = board.place(tuple(ops))
        self.now.placed += [(issue, order + k, replace(op, issue=issue)) for k, op in enumerate(ops)]
        self.now.reads += [(order, row) for row in reads]

    def streams(self, op: MicroOp) -> bool:
        """Whether its operand fits the stream buffer."""
        return self.chip.external is not None and stream_beats(op, self.chip) <= memory_timing(self.chip).buffer_beats

    def fed(self, op: MicroOp, *reads: tuple[int, int, int]) -> None:
        """Add a STREAM micro-op, in several tiles at once now and then; reads: (base, address, size) each."""
        tiles = [op.tile]
        if op.op in (Op.MATMUL, Op.NORM) and self.chance(0.4):
            loaded = [
                t for t in range(self.tiles) if op.op is Op.NORM or self.operand.get(t) == self.operand.get(op.tile)
            ]
            tiles += [t for t in loaded if t != op.tile and self.chance(0.6)]
        mask = sum(1 << t for t in tiles)
        for slot in ("dst", "a", "b"):
            for area in self.areas:
                if area.start <= getattr(op, slot) < area.start + area.size:
                    self.used |= {(t, area.name) for t in tiles}
        ops = [replace(op, tile=t) for t in tiles]
        self.add(ops, [(READ, base, 0, mask, size, 0, address, 0, 0) for base, address, size in reads])

    # --- micro-ops ---

    def tokens(self) -> int:
        return self.upto(self.most_tokens)

    def matrix(self, tile: int) -> None:
        """An operand, or a product with the one loaded."""
        if tile not in self.operand or self.chance(0.4):
            wide = self.draw(*{w.columns for w in self.weights})
            tokens, groups = self.tokens(), wide // 32
            stride = self.draw(groups, groups + 1)
            at = self.spot(tile, "packet", (tokens - 1) * stride + groups)
            if at is None:
                return
            self.operand[tile] = (tokens, wide)
            self.add([MicroOp(Op.OPERAND, tile, columns=wide, tokens=tokens, a_base=at[0], a=at[1], s0=34 * stride)])
        tokens, wide = self.operand[tile]
        stream = self.chip.external is not None and self.chance(0.6)
        w = next(w for w in (self.x_weights if stream else self.weights) if w.columns == wide)
        unit = self.chip.tile.matrix.rows
        rows = unit * self.upto(w.rows // unit)
        name = FORMAT_IDS[w.format]
        skip = block_bytes(unit, wide, name) * int(self.rng.integers((w.rows - rows) // unit + 1))
        size, stride = block_bytes(rows, wide, name), rows + self.draw(0, 0, 1, 5)
        out = self.spot(tile, "f32", (tokens - 1) * stride + rows)
        if out is None:
            return
        op = MicroOp(
            Op.MATMUL, tile, format=w.format, rows=rows, columns=wide, tokens=tokens, dst_base=out[0], dst=out[1], s0=4 * stride, s4=size
        )  # fmt: skip
        streamed = replace(op, flags=Flag.STREAM)
        if stream and self.streams(streamed):
            self.fed(streamed, (0, w.start + skip, size))
        elif not stream:
            area = self.areas_of("weights")[0]
            self.used.add((tile, area.name))
            self.add([replace(op, b=area.start + w.start + skip)])

    def norm(self, tile: int) -> None:
        tokens, wide = self.tokens(), self.upto(100)
        groups = -(-wide // 32)
        stride, out_stride = wide + self.draw(0, 1, 7), groups + self.draw(0, 1)
        x = self.spot(tile, "f32", (tokens - 1) * stride + wide)
        out = self.spot(tile, "packet", (tokens - 1) * out_stride + groups)
        if x is None or out is None:
            return
        bits = [int(np.float32(v).view(np.uint32)) for v in (self.rng.choice([1e-5, 1e-6]), 1.0 / wide)]
        op = MicroOp(
            Op.NORM, tile, columns=wide, tokens=tokens, a_base=x[0], a=x[1], s0=4 * stride, dst_base=out[0], dst=out[1], s1=34 * out_stride,
            s2=bits[0], s3=bits[1], s4=4 * wide,
        )  # fmt: skip
        if self.chance(0.5):
            y = self.spot(tile, "f32", (tokens - 1) * stride + wide, but=x[2])
            if y is not None:
                op = replace(op, flags=Flag.ADD, b_base=y[0], b=y[1])
        streamed = replace(op, flags=op.flags | Flag.STREAM)
        if self.chance(0.5) and self.streams(streamed):
            self.fed(streamed, (0, self.x_norm + 4 * int(self.rng.integers(200 - wide + 1)), 4 * wide))
            return
        weight = self.spot(tile, "norm", wide)
        if weight is not None:
            self.add([replace(op, c=weight[1])])

    def rope(self, tile: int) -> None:
        tokens, heads = self.tokens(), self.upto(3)
        wide = self.dim if self.chance(0.7) else 2 * self.upto(min(64, 50))
        size = heads * wide
        stride = size + self.draw(0, 1, 4)
        x = self.spot(tile, "f32", (tokens - 1) * stride + size)
        increments = self.spot(tile, "increments", wide // 2)
        if wide == self.dim:
            inner, outer = (1, heads + self.draw(0, 1)) if self.chance(0.5) else (tokens, 1)
            out, unit = self.spot(tile, "head", (tokens - 1) * outer + (heads - 1) * inner + 1), self.dim + 2
        else:
            inner, unit = wide // 2 + 1 + self.draw(0, 2), 2
            outer = heads * inner + self.draw(0, 3)
            out = self.spot(tile, "raw", (tokens - 1) * outer + heads * inner)
        if x is None or increments is None or out is None:
            return
        self.add(
            [
                MicroOp(
                    Op.ROPE, tile, columns=wide, heads=heads, tokens=tokens, a_base=x[0], a=x[1], s0=4 * stride, c=increments[1],
                    dst_base=out[0], dst=out[1], s1=unit * outer, s2=unit * inner,
                )
            ]
        )  # fmt: skip

    def quant(self, tile: int) -> None:
        """Into packets, or into groups of any size that nobody reads as numbers."""
        tokens, aux = self.tokens(), None
        if self.chance(0.5):
            group, kind, unit, wide = 32, "packet", 34, self.upto(100)
            each = -(-wide // 32)
        else:
            group, kind, unit = 2 * self.upto(64), "raw", 2
            wide = self.upto(min(2 * group + 3, 120))
            each = -(-wide // group) * (group + 2) // 2
            if wide <= group and self.chance(0.5):
                areas = self.areas_of("raw")
                aux = self.spot(tile, areas[0], tokens * 2)
                kind = areas[1]
        stride, out_stride = wide + self.draw(0, 1, 4), each + self.draw(0, 1)
        x = self.spot(tile, "f32", (tokens - 1) * stride + wide)
        out = self.spot(tile, kind, (tokens - 1) * out_stride + each)
        if x is None or out is None:
            return
        op = MicroOp(
            Op.QUANT, tile, columns=wide, group=group, tokens=tokens, a_base=x[0], a=x[1], s0=4 * stride, dst_base=out[0], dst=out[1],
            s1=unit * out_stride,
        )  # fmt: skip
        self.add([replace(op, flags=Flag.AUX, b_base=aux[0], b=aux[1], s2=self.draw(2, 4)) if aux else op])

    def swiglu(self, tile: int) -> None:
        tokens, wide = self.tokens(), self.upto(100)
        groups = -(-wide // 32)
        stride, out_stride = wide + self.draw(0, 1, 4), groups + self.draw(0, 1)
        gate, up = (self.spot(tile, "f32", (tokens - 1) * stride + wide) for _ in range(2))
        out = self.spot(tile, "packet", (tokens - 1) * out_stride + groups)
        if gate is None or up is None or out is None:
            return
        self.add(
            [
                MicroOp(
                    Op.SWIGLU, tile, columns=wide, tokens=tokens, a_base=gate[0], a=gate[1], b_base=up[0], b=up[1], s0=4 * stride,
                    dst_base=out[0], dst=out[1], s1=34 * out_stride,
                )
            ]
        )  # fmt: skip

    def embed(self, tile: int) -> None:
        if not self.entry_tokens:
            return
        first = int(self.rng.integers(self.entry_tokens))
        tokens, wide = self.upto(self.entry_tokens - first), self.table.columns
        stride, size = wide + self.draw(0, 1, 4), row_bytes(wide, FORMAT_IDS[self.table.format])
        out = self.spot(tile, "f32", (tokens - 1) * stride + wide)
        if out is None:
            return
        op = MicroOp(
            Op.EMBED, tile, format=self.table.format, columns=wide, tokens=tokens, slot=first, dst_base=out[0], dst=out[1], s1=4 * stride, s0=size,
            s3=VOCABULARY, s4=tokens * size,
        )  # fmt: skip
        streamed = replace(op, flags=Flag.STREAM)
        if self.chance(0.5) and self.streams(streamed):
            rows = [(ROW, 0, first + t, 1 << tile, size, size, self.x_table, 0, 0) for t in range(tokens)]
            self.add([streamed], rows)
            return
        area = self.areas_of("table")[0]
        self.used.add((tile, area.name))
        self.add([replace(op, b=area.start)])

    def argmax(self, tile: int) -> None:
        pairs, wide = self.chance(0.4), self.upto(30)
        x, out = self.spot(tile, "pair" if pairs else "f32", wide), self.spot(tile, "pair", 1)
        if x is None or out is None:
            return
        flags = Flag.PAIRS if pairs else Flag.NONE
        first = 0 if pairs else int(self.rng.integers(1000))
        self.add(
            [
                MicroOp(
                    Op.ARGMAX,
                    tile,
                    flags=flags,
                    columns=wide,
                    a_base=x[0],
                    a=x[1],
                    dst_base=out[0],
                    dst=out[1],
                    s0=first,
                )
            ]
        )

    def send(self, tile: int) -> None:
        if self.tiles == 1 or (self.chip.external and self.chance(0.3)):
            self.send_out(tile)
            return
        kind = str(self.rng.choice(["f32", "f32", "packet", "head", "pair", "raw", "key", "value"]))
        area = self.areas_of(kind)[self.rng.integers(len(self.areas_of(kind)))]
        into = {"key": "raw", "value": "head"}.get(kind, kind)
        unit, scale = area.unit, area.unit // 2 if into == "raw" and kind != "raw" else 1
        rows, each = self.upto(5), self.upto(max(1, min(6, 160 // unit)) * (4 if unit <= 8 else 1))
        stride, out_stride = each + self.draw(0, 1, 3), each * scale + self.draw(0, 1, 2)
        targets = int(sum(1 << t for t in range(self.tiles) if t != tile and self.chance(0.4)))
        targets = targets or 1 << int(self.rng.choice([t for t in range(self.tiles) if t != tile]))
        source = self.spot(tile, area, (rows - 1) * stride + each)
        out = self.spot(tile, into, (rows - 1) * out_stride + each * scale)
        if source is None or out is None:
            return
        self.used |= {(t, out[2].name) for t in range(self.tiles) if targets >> t & 1}
        self.add(
            [
                MicroOp(
                    Op.SEND, tile, rows=rows, columns=each * unit, a_base=source[0], a=source[1], s0=stride * unit, dst_base=out[0], dst=out[1],
                    s1=out_stride * out[2].unit, s2=targets,
                )
            ]
        )  # fmt: skip

    def send_out(self, tile: int) -> None:
        """Anything to where nobody reads, or a new key and value record into the cache."""
        if self.chip.external is None:
            return
        if self.chance(0.5):
            size = 2 * self.upto(150)
            base = self.draw(0, self.away)
            room = 2048 - self.high(base) - size
            source = self.spot(tile, str(self.rng.choice(["f32", "packet", "raw", "head"])), 1)
            if source is None or room < 0:
                return
            left = source[2].start + source[2].size - source[1] - self.high(source[0])
            self._out(
                tile, source, min(size, left & ~1), base, self.x_away[tile] + 2 * int(self.rng.integers(room // 2 + 1))
            )
            return
        pair = self.draw(0, 1)
        slot = int(self.rng.integers(self.context))
        for part, kind in enumerate(("key", "value")):
            area = self.areas_of(kind)[pair]
            self.used.add((tile, area.name))
            source = (0, area.start + slot * area.unit, area)
            self._out(tile, source, area.unit, self.at_pos[part], self.x_cache[tile][part])

    def _out(self, tile: int, source: tuple[int, int, Area], size: int, base: int, address: int) -> None:
        if self.now.sent[tile] + size > memory_timing(self.chip).write_bytes:
            return
        self.now.sent[tile] += size
        self.now.writes.append((len(self.now.placed), (WRITE, base, 0, 1 << tile, size, 0, address, 0, 0)))
        self.add([MicroOp(Op.SEND, tile, flags=Flag.EXTERNAL, rows=1, columns=size, a_base=source[0], a=source[1])])

    # --- attention ---

    def cache(self, tile: int) -> None:
        """New key and value records: rope writes the key, quant the value and its scale into the key record."""
        pair, tokens = self.draw(0, 1), self.tokens()
        keys, values = self.areas_of("key")[pair], self.areas_of("value")[pair]
        x = [self.spot(tile, "f32", tokens * self.dim) for _ in range(2)]
        increments = self.spot(tile, "increments", self.dim // 2)
        if None in x or increments is None:
            return
        at_pos = self.chance(0.5)
        slot = 0 if at_pos else int(self.rng.integers(self.context))
        key_base, value_base = self.at_pos if at_pos else (0, 0)
        self.used |= {(tile, keys.name), (tile, values.name)}
        k, v = keys.start + slot * keys.unit, values.start + slot * values.unit
        self.add([MicroOp(
            Op.ROPE, tile, columns=self.dim, heads=1, tokens=tokens, a_base=x[0][0], a=x[0][1], s0=4 * self.dim, c=increments[1],
            dst_base=key_base, dst=k, s1=keys.unit, s2=keys.unit,
        )])  # fmt: skip
        self.add([MicroOp(
            Op.QUANT, tile, flags=Flag.AUX, columns=self.dim, group=self.dim, tokens=tokens, a_base=x[1][0], a=x[1][1], s0=4 * self.dim,
            dst_base=value_base, dst=v, s1=values.unit, b_base=key_base, b=k + self.dim + 2, s2=keys.unit,
        )])  # fmt: skip

    def attend(self, tile: int) -> None:
        """Query states from first score to output, here and there with a block of the cache before this step's own tokens."""
        states = min(STATES, self.chip.tile.attention.queries)
        heads = self.upto(min(3, states))
        tokens = self.upto(min(self.most_tokens, states // heads))
        slot = int(self.rng.integers(states - heads * tokens + 1))
        q_stride, h_stride = (1, tokens) if self.chance(0.5) else (heads, 1)
        q = self.spot(tile, "head", (heads - 1) * h_stride + (tokens - 1) * q_stride + 1)
        out_stride = heads * self.dim + self.draw(0, 1, 4)
        out = self.spot(tile, "f32", (tokens - 1) * out_stride + heads * self.dim)
        if q is None or out is None:
            return
        state = {"heads": heads, "tokens": tokens, "columns": self.dim, "slot": slot}
        constant = int(np.float32(self.rng.choice([0.35, 0.05, 0.002])).view(np.uint32))
        head = self.dim + 2
        score = MicroOp(
            Op.SCORE, tile, **state, a_base=q[0], a=q[1], s0=h_stride * head, s1=q_stride * head, s3=constant
        )
        value = MicroOp(Op.VALUE, tile, **state)
        kinds = ["block"] * self.chance(0.5) + ["recent"] + ["block"] * self.chance(0.2)
        pairs = [self._keys(tile, kind, replace(score), value, n) for n, kind in enumerate(kinds)]
        pairs[0] = (replace(pairs[0][0], flags=pairs[0][0].flags | Flag.FIRST), *pairs[0][1:])
        late = self.chance(0.5)
        for score, value, read_keys, read_values in pairs:
            self._feed(score, read_keys)
            if not late:
                self._feed(value, read_values)
        for _, value, _, read_values in pairs if late else []:
            self._feed(value, read_values)
        self.add([MicroOp(Op.ATTNOUT, tile, **state, dst_base=out[0], dst=out[1], s1=4 * out_stride)])

    def _keys(
        self, tile: int, kind: str, score: MicroOp, value: MicroOp, number: int
    ) -> tuple[MicroOp, MicroOp, tuple, tuple]:
        """A score and its value, their keys from SRAM or from the stream: (score, value, read, read)."""
        block, d = self.chip.tile.attention.block_keys, self.dim
        rows = block if kind == "block" else self.upto(min(6, block))
        pair, records = self.draw(0, 1), self.context + 8
        areas = self.areas_of("key")[pair], self.areas_of("value")[pair]
        scores = self.areas_of("scores")[0]
        self.used |= {(tile, areas[0].name), (tile, areas[1].name), (tile, scores.name)}
        stride = self.scores_stride
        at = scores.start + (4 * self.draw(0, 1, 3) if kind == "block" else stride - 24)
        score = replace(
            score, rows=rows, dst=at + number % 2 * 4 * block * (kind == "block"), s2=stride, s4=rows * (d + 4)
        )
        value = replace(value, rows=rows, a=score.dst, s2=stride, s4=rows * (d + 2))
        flags = Flag.RECENT if kind == "recent" else Flag.NONE
        high = max(self.high(base) for base in (self.at_block[0], 0))
        moves = kind == "block" and self.chance(0.5) and high + rows * (d + 4) <= areas[0].size
        first = 0 if moves else int(self.rng.integers(records - rows + 1))
        bases = self.at_block if moves else (0, 0)
        stream = (
            self.chance(0.5)
            and self.streams(replace(score, flags=Flag.STREAM))
            and self.streams(replace(value, flags=Flag.STREAM))
        )
        if stream:
            score, value = replace(score, flags=flags | Flag.STREAM), replace(value, flags=flags | Flag.STREAM)
            # The cache that grows is read from its block: only keys before POS count, and this step writes at POS or behind.
            grown = moves and self.now.repeat != BLOCKS and self.chance(0.7)
            keys, values = self.x_cache[tile] if grown else (self.x_keys, self.x_values)
            return (
                score, value, (bases[0], keys + first * (d + 4), rows * (d + 4)), (bases[1], values + first * (d + 2), rows * (d + 2)),
            )  # fmt: skip
        score = replace(score, flags=flags, b_base=bases[0], b=areas[0].start + first * (d + 4))
        value = replace(value, flags=flags, b_base=bases[1], b=areas[1].start + first * (d + 2))
        return score, value, (), ()

    def _feed(self, op: MicroOp, read: tuple) -> None:
        self.fed(op, read) if read else self.add([op])

    # --- segments, loops, entries ---

    def segment(self, count: int, first: bool) -> Segment:
        """The first of a loop runs at every position: a step is never empty."""
        blocks = not first and self.chance(0.4)
        self.now = now = _Segment(
            count,
            BLOCKS if blocks else self.draw(1, 1, 2, 3),
            _Board(self.chip, self.region_of),
            gap=self.draw(0, 0, 3, 40),
        )
        kinds = [
            self.matrix, self.matrix, self.matrix, self.norm, self.rope, self.quant, self.swiglu, self.embed, self.argmax, self.send, self.send,
            self.cache, self.attend, self.attend,
        ]  # fmt: skip
        self.operand: dict[int, tuple[int, int]] = {}
        favourites = [kinds[k] for k in self.rng.integers(0, len(kinds), 4)] if self.chance(0.4) else kinds
        for _ in range(self.upto(8 * min(self.tiles, 4), 3)):
            favourites[self.rng.integers(len(favourites))](int(self.rng.integers(self.tiles)))
        if not now.placed:
            self.operand_only()
        return self._close()

    def operand_only(self) -> None:
        """So that no segment is empty."""
        area = self.areas_of("packet")[0]
        self.used.add((0, area.name))
        self.add([MicroOp(Op.OPERAND, 0, columns=32, tokens=1, a=area.start, s0=34)])

    def _close(self) -> Segment:
        now = self.now
        ordered = sorted(now.placed, key=lambda item: item[:2])
        place = {order: at for at, (_, order, _) in enumerate(ordered)}
        ops = [op for _, _, op in ordered]
        # Stable: descriptors of one micro-op keep their order.
        rows = [row for _, row in sorted(now.reads, key=lambda item: place[item[0]])]
        rows += [row for _, row in sorted(now.writes, key=lambda item: place[item[0]])]
        cycles = max(op.issue + latency(op, self.chip) for op in ops) + self.draw(0, 0, 0, 5)
        made = Segment(
            f"s{self.segments}",
            max(cycles, SEGMENT_MIN),
            len(self.ops),
            len(ops),
            len(self.descriptors),
            len(rows),
            now.repeat,
        )
        self.segments += 1
        self.ops += ops
        self.descriptors += rows
        return made

    def loops(self, most: int) -> tuple[Loop, ...]:
        made = []
        for number in range(self.upto(most)):
            count = self.draw(1, 1, 2, 3)
            made.append(
                Loop(f"loop{number}", count, tuple(self.segment(count, k == 0) for k in range(self.draw(1, 2, 2))))
            )
        return tuple(made)

    def program(self) -> Program:
        regions = tuple(Region(area.name, area.start, area.size, area.constant) for area in self.areas)
        self.region_of = region_finder(regions)
        entries = []
        bodies = {"token": 1} if self.chance(0.5) else {"token": 1, "chunk": self.chunk}
        self.chunk = max(bodies.values())
        self.entry_tokens = 0
        head = self.loops(1)
        for name, tokens in bodies.items():
            self.entry_tokens = tokens
            body = self.loops(2)
            entries += [Entry(name, tokens, body), Entry(f"{name}_head", tokens, (*body, *head))]
        entries.append(Entry("head", 1, head))
        image = np.concatenate(self.external) if self.external else np.zeros(0, np.uint8)
        return Program(
            chip=self.chip, model="random", weights="random", model_fingerprint="", vocabulary=VOCABULARY, context=self.context,
            block_keys=self.chip.tile.attention.block_keys, bases=tuple(self.bases), entries=tuple(entries), ops=to_records(self.ops),
            descriptors=np.array(self.descriptors, DESCRIPTOR), sram=regions, external=(), images=self.images(), external_image=image,
            external_bytes=self.external_size, logits=(), result_address=self.result,
        )  # fmt: skip


def random_steps(seed: int, program: Program) -> list[tuple[list[int], int, bool]]:
    """Calls of `step`, in order of position: (token ids, position, every)."""
    rng = np.random.default_rng([seed, 3])
    steps, position = [], 0
    for _ in range(int(rng.integers(2, 4))):
        count = int(rng.integers(1, 2 * program.chunk + 1))
        if position + count > program.context:
            break
        steps.append(([int(i) for i in rng.integers(0, VOCABULARY, count)], position, bool(rng.random() < 0.2)))
        position += count
    return steps
