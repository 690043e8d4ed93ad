"""`Simulation`: the Verilated chip with a program in it, as an Engine's inside: load, run an entry, look at SRAM."""

import ctypes
import hashlib
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.ctypeslib import ndpointer
from numpy.typing import NDArray

from tapeout.chip.memory import memory_timing
from tapeout.chip.spec import ChipSpec
from tapeout.isa.footprint import footprints
from tapeout.isa.opcodes import Flag, Op, Unit
from tapeout.isa.program import Program
from tapeout.isa.trace import EVENT
from tapeout.rtl.banked import bank_shape
from tapeout.rtl.chip import STATUS
from tapeout.rtl.host import ANSWER_WORDS
from tapeout.rtl.microcode import Words, microcode, start, step_words
from tapeout.rtl.ports import BUILT
from tapeout.rtl.router import deliveries, source_bits
from tapeout.rtl.unit_sequencer import POINTER_BITS
from tapeout.rtl.verilate import library
from tapeout.rtl.verilog import TOP, modules

MARK = np.dtype(
    [(name, "i8") for name in ("tile", "base", "offset", "size", "outer", "outer_stride", "inner", "inner_stride")]
)
BASE = np.dtype([(name, "i8") for name in ("outer", "inner", "pos", "last")])


class _Program(ctypes.Structure):
    _fields_ = [
        ("index", ctypes.c_void_p), ("depth", ctypes.c_int64), ("op", ctypes.c_void_p), ("masks", ctypes.c_void_p), ("marks", ctypes.c_void_p),
        ("mark_at", ctypes.c_void_p), ("bases", ctypes.c_void_p), ("position", ctypes.c_int64), ("last", ctypes.c_int64),
    ]  # fmt: skip


def build(chip: ChipSpec, banked: bool = False, trace: bool = False) -> Path:
    """The chip's shared library, made once per chip, package and tool version. `banked`: with the SRAM's banks and crossbar instead of the flat
    memory,
    which is quicker. Raises `BadInput` where a tool is missing.
    """
    key = f"{sources_digest()}\0{chip.model_dump_json()}\0{banked}"
    return library(
        lambda: {f"{name}.sv": text for name, text in modules(chip, banked).items()},
        TOP,
        harness(chip, banked),
        trace,
        key,
    )


CHIP_SOURCES = ("spec.py", "memory.py", "routes.py")
"""Of the room `chip`, what a chip that is built is made from; its catalogue is not."""


@cache
def sources_digest() -> str:
    """Of everything that decides the Verilog: the rooms that this one stands on."""
    package = resources.files("tapeout")
    files = [path for room in ("rtl", "isa", "numerics") for path in sorted(package.joinpath(room).rglob("*.*"))]  # type: ignore[attr-defined]
    files += [package.joinpath("chip", name) for name in CHIP_SOURCES]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files if path.suffix in (".py", ".cc"))).hexdigest()


def harness(chip: ChipSpec, banked: bool = False) -> str:
    """The C++ around the model: this chip's numbers, then harness.cc."""
    shape, sram = bank_shape(chip), "tile{tile}__DOT__sram__DOT__cells__DOT__"
    places, rows, line_bytes, part_bytes = [f"m.rootp->{TOP}__DOT__{sram}words"], 1, 1, 1
    if banked:
        bank = f"m.rootp->__PVT__{TOP}__DOT__{sram}bank{{bank}}->__PVT__part{{part}}__DOT__cells"
        places = [
            bank.replace("{bank}", str(k)).replace("{part}", str(j))
            for k in range(shape.banks)
            for j in range(shape.parts)
        ]
        rows, line_bytes, part_bytes = shape.rows, 4 * shape.line_words, 4 * shape.part_words
    tiles = range(chip.grid.tiles)
    memories = ", ".join(
        f"reinterpret_cast<const uint8_t*>(&{place.format(tile=t)}[0])" for t in tiles for place in places
    )
    data = " : ".join(f"(t) == {t} ? &m.write_data{t}[0]" for t in tiles)
    numbers = {
        "TILES": len(tiles), "OPS": len(BUILT), "UNITS": len(Unit), "POINTER_BITS": POINTER_BITS, "SOURCE_BITS": source_bits(chip.grid),
        "PORTS": deliveries(chip), "EXTERNAL": int(chip.external is not None), "BEAT_BYTES": memory_timing(chip).beat_bytes,
        "MACROS": len(places), "ROWS": rows, "LINE_BYTES": line_bytes, "PART_BYTES": part_bytes,
        "MEMORIES(m)": f"{{{memories}}}", "WRITE_DATA(m, t)": f"({data} : nullptr)",
    }  # fmt: skip
    text = resources.files("tapeout.rtl").joinpath("harness.cc").read_text()
    return "\n".join([*(f"#define {name} {value}" for name, value in numbers.items()), text])


class Simulation:
    """One chip with one program. `run` returns (cycles, held, events); `events` are in the order of issue."""

    def __init__(self, program: Program, library_path: Path):
        self.program, self._code = program, microcode(program)
        self._c = _functions(library_path)
        timing = memory_timing(program.chip)
        numbers = np.array([timing.rate_millibytes, timing.latency, timing.interval, timing.refresh], np.int64)
        self.external = np.zeros(max(program.external_bytes, 1), np.uint8)
        self.external[: program.external_image.size] = program.external_image
        self._chip = self._c.chip_new(numbers, self.external.ctypes.data, self.external.size)
        self._tables = _tables(program, self._code.index)
        self.talk(self._code.loads)

    def __del__(self) -> None:
        if getattr(self, "_chip", None):
            self._c.chip_delete(self._chip)

    def talk(self, words: Words, answers: int = 0) -> Words:
        """Give the host's words, take `answers` words."""
        out = np.zeros(max(answers, 1), np.uint32)
        words = np.ascontiguousarray(words, np.uint32)
        late = self._c.chip_talk(self._chip, words, words.size, out, answers, 64 * (words.size + answers) + 1_000_000)
        assert late == 0, f"the chip did not take {words.size} words and give {answers}"
        return out[:answers]

    def run(
        self, entry: str, position: int, token_ids: tuple[int, ...], last: int, events: int, limit: int
    ) -> tuple[int, int, NDArray[np.void]]:
        """Start an entry and wait for its end. `events`: micro-ops that it will issue; `limit`: cycles after which something is wrong."""
        self.talk(step_words(position, last, token_ids))
        words, answer, counted = start(self._code.rows[entry]), np.zeros(ANSWER_WORDS, np.uint32), np.zeros(4, np.int64)
        self._tables.structure.position, self._tables.structure.last = position, last
        trace = np.zeros(events + 64, EVENT)
        got = self._c.chip_run(
            self._chip, ctypes.byref(self._tables.structure), words, words.size, answer, ANSWER_WORDS, trace.ctypes.data, trace.size, limit, counted
        )  # fmt: skip
        stuck = f"compute cycle {counted[0]:,}, {counted[1]:,} held, memory cycle {counted[2]:,}, {'held' if counted[3] else 'not held'}"
        assert got != -1, f"entry {entry!r} did not end within {limit:,} cycles: {stuck}"
        assert got != -2, f"entry {entry!r} issued more than {events} micro-ops"
        assert got >= 0, f"chip and harness disagree (fault {-10 - got})"
        faults = [name for bit, name in enumerate(STATUS) if int(answer[0]) >> bit & 1]
        assert not faults, f"entry {entry!r}: the chip reports {', '.join(faults)}"
        cycles, held = (int(answer[k]) | int(answer[k + 1]) << 32 for k in (1, 3))
        return cycles, held, trace[:got]

    def sram(self, tile: int, address: int, count: int) -> NDArray[np.uint8]:
        """`count` bytes of a tile's SRAM as they are now."""
        out = np.zeros(count, np.uint8)
        self._c.chip_sram(self._chip, tile, address, count, out.ctypes.data)
        return out

    def cycles(self) -> int:
        """Wall cycles since power on."""
        return self._c.chip_cycles(self._chip)

    def trace_to(self, path: str, first: int, end: int) -> None:
        """Dump wall cycles first..end-1, counted from now, to an FST file."""
        now = self.cycles()
        self._c.chip_trace(self._chip, path.encode(), now + first, now + end)

    def end_trace(self) -> None:
        """Close the file."""
        self._c.chip_end_trace(self._chip)


class _tables:
    """The program's tables as C takes them; the arrays are kept alive here."""

    def __init__(self, program: Program, index: NDArray[np.int32]):
        ops = [program.op(k) for k in range(program.ops.size)]
        marks, at = [], [0]
        for op in ops:
            marks += [
                (f.tile, f.base, f.offset, f.size, f.outer, f.outer_stride, f.inner, f.inner_stride) for f in footprints(op, program.chip) if f.write
            ]  # fmt: skip
            at.append(len(marks))
        masks = [op.s2 if op.op is Op.SEND and not op.flags & Flag.EXTERNAL else 0 for op in ops]
        self.arrays = [
            np.ascontiguousarray(index), np.array([int(op.op) for op in ops], np.int32), np.array(masks, np.uint32), np.array(marks, MARK),
            np.array(at, np.int64), np.array([(b.outer, b.inner, b.pos, b.last) for b in program.bases], BASE),
        ]  # fmt: skip
        index_at, op_at, masks_at, marks_at, mark_at, bases_at = (array.ctypes.data for array in self.arrays)
        self.structure = _Program(index_at, index.shape[2], op_at, masks_at, marks_at, mark_at, bases_at, 0, 0)


def _functions(path: Path) -> ctypes.CDLL:
    """The library's functions with their types."""
    c, words, numbers = ctypes.CDLL(str(path)), ndpointer(np.uint32), ndpointer(np.int64)
    i64, pointer = ctypes.c_int64, ctypes.c_void_p
    types: dict[str, tuple[list, object]] = {
        "chip_new": ([numbers, pointer, i64], pointer), "chip_delete": ([pointer], None),
        "chip_talk": ([pointer, words, i64, words, i64, i64], i64),
        "chip_run": ([pointer, pointer, words, i64, words, i64, pointer, i64, i64, numbers], i64),
        "chip_sram": ([pointer, i64, i64, i64, pointer], None), "chip_cycles": ([pointer], i64),
        "chip_trace": ([pointer, ctypes.c_char_p, i64, i64], None), "chip_end_trace": ([pointer], None),
    }  # fmt: skip
    for name, (arguments, result) in types.items():
        getattr(c, name).argtypes, getattr(c, name).restype = arguments, result
    return c


__all__ = ["Simulation", "build", "harness"]
