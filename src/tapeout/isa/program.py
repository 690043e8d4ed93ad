"""A program: what the compiler emits and simulator and RTL run.

An *entry* is a sequence of loops; a loop runs its segments `count` times (outer iteration i: the layers); a segment repeats a constant number of
times, or once per context block of the cache but the first (`BLOCKS`): inner iteration k = 0, 1, ... A segment lasts `cycles`; its micro-ops issue at
fixed offsets and all complete within it, so nothing is in flight where a segment begins. Units and tiles run in lockstep.

The cache holds ceil(POS / block_keys) context blocks. Block 0 is worked on in segments that run in every step, so that it overlaps with other work
(where POS is 0 none of its keys is valid); the others, j = k + 1, in segments that repeat `BLOCKS` times. In all other segments j = k.

Addresses: base register b holds outer*i + inner*k + pos*POS + last*LAST; an operand is at its base plus its offset. Base 0 is always 0. The same
bases serve external addresses in descriptors.

Descriptors belong to segments too: the streamer works through the same loops on its own, in order, ahead of compute. READ
brings `size` bytes from external memory to the stream buffers of the tiles in `mask`; ROW the same from address + TOKEN[token] *
row_bytes; WRITE takes `size` bytes from a tile's write buffer. Every STREAM micro-op uses exactly one descriptor of its tile (an
embedding one per token), in the order of issue.

A step: the host sets POS, TOKEN and LAST and starts an entry. Body entries ("chunk" of `tokens` tokens, "token" of 1) leave the
normalised vectors of all tokens in SRAM; entry "head" makes the logits of row LAST and finds the greatest; "token_head" and
"chunk_head" do both.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tapeout.base.errors import BadInput
from tapeout.base.files import atomic_write
from tapeout.base.reading import parse_json
from tapeout.chip.spec import ChipSpec
from tapeout.isa.opcodes import RECORD, MicroOp, from_record

BLOCKS = -1
"""Segment.repeat: once per context block in the cache, but for the first."""

MAGIC = b"tapeout program 1\n"
READ, WRITE, ROW = 0, 1, 2

DESCRIPTOR = np.dtype(
    [
        ("kind", "u1"), ("base", "u1"), ("token", "<u2"), ("mask", "<u4"), ("size", "<u4"), ("row_bytes", "<u4"),
        ("address", "<u8"), ("op", "<u4"), ("reserved", "<u4"),
    ]
)  # fmt: skip
"""One descriptor, 32 bytes. `op` is the first micro-op of the program that uses or makes the bytes (for reading; hardware ignores it)."""

assert DESCRIPTOR.itemsize == 32, "a descriptor is 32 bytes"


@dataclass(frozen=True, slots=True)
class Base:
    """An address register: outer*i + inner*k + pos*POS + last*LAST, in bytes."""

    name: str
    outer: int = 0
    inner: int = 0
    pos: int = 0
    last: int = 0

    def value(self, i: int, k: int, pos: int, last: int) -> int:
        """Its content in outer iteration i, inner iteration k."""
        return self.outer * i + self.inner * k + self.pos * pos + self.last * last


ZERO = Base("zero")


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of micro-ops with fixed issue offsets. Ops and descriptors are ranges of the program's arrays."""

    name: str
    cycles: int
    first_op: int
    ops: int
    first_descriptor: int
    descriptors: int
    repeat: int = 1

    def times(self, blocks: int) -> int:
        """How often it runs when the cache holds `blocks` context blocks."""
        return max(blocks - 1, 0) if self.repeat == BLOCKS else self.repeat

    def block(self, k: int) -> int:
        """The context block j that scores and values of inner iteration k are about."""
        return k + 1 if self.repeat == BLOCKS else k


@dataclass(frozen=True, slots=True)
class Loop:
    """Segments run in order, `count` times over."""

    name: str
    count: int
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing the host can start."""

    name: str
    tokens: int
    loops: tuple[Loop, ...]


@dataclass(frozen=True, slots=True)
class Region:
    """A named part of a memory: the same addresses in every tile's SRAM, or in external memory."""

    name: str
    start: int
    size: int
    constant: bool = False
    """Loaded before the first step and never written."""

    @property
    def end(self) -> int:
        """First byte behind it."""
        return self.start + self.size


@dataclass(frozen=True, slots=True)
class LogitSlice:
    """Where the host finds logits first_id .. first_id+rows-1 after entry "head"."""

    tile: int
    address: int
    rows: int
    first_id: int


@dataclass(frozen=True, slots=True)
class Image:
    """Bytes that the host loads into a tile's SRAM before the first step."""

    tile: int
    address: int
    data: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Program:
    """See the module. Arrays are read-only; objects are made on access."""

    chip: ChipSpec
    model: str
    weights: str
    model_fingerprint: str
    vocabulary: int
    context: int
    """Positions 0 .. context-1 can be computed."""
    block_keys: int
    bases: tuple[Base, ...]
    entries: tuple[Entry, ...]
    ops: NDArray[np.void]
    descriptors: NDArray[np.void]
    sram: tuple[Region, ...]
    external: tuple[Region, ...]
    images: tuple[Image, ...]
    external_image: NDArray[np.uint8]
    external_bytes: int
    """External memory used: the image and, behind it, the KV cache."""
    logits: tuple[LogitSlice, ...]
    result_address: int
    """Tile 0: f32 greatest logit, uint32 its id, after entry "head"."""
    notes: tuple[str, ...] = ()
    extra: dict[str, str] = field(default_factory=dict)
    """Plain text that travels along (where the tokenizer is, the bound); not part of the fingerprint."""

    def entry(self, name: str) -> Entry:
        """An entry by name. Raises KeyError."""
        return {entry.name: entry for entry in self.entries}[name]

    def op(self, index: int) -> MicroOp:
        """Micro-op `index` as an object."""
        return from_record(self.ops[index])

    def segment_ops(self, segment: Segment) -> Iterator[MicroOp]:
        """The micro-ops of a segment, in order of issue."""
        return (self.op(segment.first_op + k) for k in range(segment.ops))

    def blocks(self, position: int) -> int:
        """Context blocks that the cache holds when POS is `position`."""
        return -(-position // self.block_keys)

    @property
    def chunk(self) -> int:
        """Tokens of the largest body entry."""
        return max(entry.tokens for entry in self.entries)

    def fingerprint(self) -> str:
        """16 hex digits over everything that decides bits and cycles."""
        digest = hashlib.sha256(json.dumps(_header(self), sort_keys=True).encode())
        for array in _arrays(self):
            digest.update(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)
        return digest.hexdigest()[:16]


def walk(program: Program, entry: Entry, position: int) -> Iterator[tuple[Segment, int, int]]:
    """(segment, i, k) in the order of time."""
    blocks = program.blocks(position)
    for loop in entry.loops:
        for i in range(loop.count):
            for segment in loop.segments:
                for k in range(segment.times(blocks)):
                    yield segment, i, k


def segment_times(program: Program, entry: Entry, position: int) -> Iterator[tuple[Segment, int]]:
    """(segment, how often it runs in one step), those that do not run left out: for sums that need no order of time."""
    blocks = program.blocks(position)
    for loop in entry.loops:
        for segment in loop.segments:
            times = loop.count * segment.times(blocks)
            if times:
                yield segment, times


def issue_cycles(program: Program, entry: Entry, position: int) -> int:
    """Compute-domain cycles of an entry: what it takes when nothing is ever held."""
    return sum(times * segment.cycles for segment, times in segment_times(program, entry, position))


def cut_into_bodies(program: Program, tokens: int) -> Iterator[tuple[Entry, int, int]]:
    """How a step over `tokens` tokens is cut into body entries: (entry, offset of its first token, real tokens).

    The smallest body that holds what is left, else the largest.
    """
    bodies = sorted((e for e in program.entries if e.name in ("token", "chunk")), key=lambda entry: entry.tokens)
    done = 0
    while done < tokens:
        left = tokens - done
        body = next((entry for entry in bodies if entry.tokens >= left), bodies[-1])
        count = min(left, body.tokens)
        yield body, done, count
        done += count


@dataclass(frozen=True, slots=True)
class Transfers:
    """A step's descriptor list, loops unrolled and addresses worked out."""

    kinds: NDArray[np.int64]
    masks: NDArray[np.int64]
    sizes: NDArray[np.int64]
    addresses: NDArray[np.int64]


def transfers(
    program: Program, entry: Entry, position: int, token_ids: tuple[int, ...] = (), last: int = 0
) -> Transfers:
    """Unroll the descriptors of one step. Without `token_ids` ROW addresses are those of token 0 (sizes and order do not depend on them)."""
    pieces: list[NDArray[np.void]] = []
    addresses: list[NDArray[np.int64]] = []
    tokens = np.zeros(max(entry.tokens, 1), np.int64)
    tokens[: len(token_ids)] = token_ids
    for segment, i, k in walk(program, entry, position):
        if not segment.descriptors:
            continue
        part = program.descriptors[segment.first_descriptor : segment.first_descriptor + segment.descriptors]
        values = np.array([base.value(i, k, position, last) for base in program.bases], np.int64)
        where = part["address"].astype(np.int64) + values[part["base"]]
        where += np.where(
            part["kind"] == ROW, tokens[part["token"] % tokens.size] * part["row_bytes"].astype(np.int64), 0
        )
        pieces.append(part)
        addresses.append(where)
    if not pieces:
        none = np.zeros(0, np.int64)
        return Transfers(none, none, none, none)
    joined = np.concatenate(pieces)
    kinds = np.where(joined["kind"] == WRITE, WRITE, READ).astype(np.int64)
    return Transfers(kinds, joined["mask"].astype(np.int64), joined["size"].astype(np.int64), np.concatenate(addresses))


# --- the bytes form ---------------------------------------------------------------------------------


def _header(program: Program) -> dict:
    return {
        "chip": program.chip.model_dump(mode="json"),
        "model": program.model,
        "weights": program.weights,
        "model_fingerprint": program.model_fingerprint,
        "vocabulary": program.vocabulary,
        "context": program.context,
        "block_keys": program.block_keys,
        "bases": [asdict(base) for base in program.bases],
        "entries": [asdict(entry) for entry in program.entries],
        "sram": [asdict(region) for region in program.sram],
        "external": [asdict(region) for region in program.external],
        "images": [[image.tile, image.address, int(image.data.size)] for image in program.images],
        "external_bytes": program.external_bytes,
        "logits": [asdict(piece) for piece in program.logits],
        "result_address": program.result_address,
        "notes": list(program.notes),
    }


def _arrays(program: Program) -> list[NDArray]:
    return [program.ops, program.descriptors, *(image.data for image in program.images), program.external_image]


def save(program: Program, path: str | Path) -> None:
    """Write the bytes form: a line of magic, a line of JSON, then the arrays, each on a 64-byte boundary."""
    arrays = _arrays(program)
    header = {**_header(program), "extra": program.extra, "sizes": [int(array.nbytes) for array in arrays]}
    head = MAGIC + json.dumps(header).encode() + b"\n"
    with atomic_write(path) as file:
        file.write(head + b"\0" * (-len(head) % 64))
        for array in arrays:
            file.write(np.ascontiguousarray(array).view(np.uint8).reshape(-1).data)
            file.write(b"\0" * (-array.nbytes % 64))


def is_program(path: Path) -> bool:
    """Whether a file starts like a program."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):  # unreadable, or no name of a file
        return False


def load(path: str | Path) -> Program:
    """Read the bytes form (arrays stay memory-mapped). Raises `BadInput`."""
    from tapeout.isa.form import check_form  # it is about what is defined here

    path = Path(path)
    if not is_program(path):
        raise BadInput(str(path), "is not a compiled program", "make one with tapeout compile MODEL --chip C -o FILE")
    data = np.memmap(path, np.uint8, "r")
    newline = bytes(data[len(MAGIC) : len(MAGIC) + (1 << 24)]).find(b"\n")
    try:
        header = parse_json(bytes(data[len(MAGIC) : len(MAGIC) + newline]))
        arrays = _cut(data, len(MAGIC) + newline + 1, header["sizes"], str(path))
        program = _from_header(header, arrays, path.name)
        check_form(program)
        return program
    except (LookupError, TypeError, ValueError, RecursionError) as error:
        raise BadInput(str(path), f"is a damaged program ({error})", "compile it again") from error


def _cut(data: NDArray[np.uint8], at: int, sizes: list[int], where: str) -> list[NDArray[np.uint8]]:
    arrays = []
    for size in sizes:
        at += -at % 64
        if size < 0 or at + size > data.size:
            raise BadInput(
                where, f"ends after {data.size:,} bytes; its header promises {at + size:,}", "compile it again"
            )
        arrays.append(data[at : at + size])
        at += size
    return arrays


def _from_header(header: dict, arrays: list[NDArray[np.uint8]], name: str) -> Program:
    ops, descriptors, *images, external = arrays
    entries = tuple(
        Entry(e["name"], e["tokens"], tuple(
            Loop(lp["name"], lp["count"], tuple(Segment(**segment) for segment in lp["segments"])) for lp in e["loops"]
        ))
        for e in header["entries"]
    )  # fmt: skip
    return Program(
        chip=ChipSpec.from_data(header["chip"], f"{name}: chip"),
        bases=tuple(Base(**base) for base in header["bases"]),
        entries=entries,
        ops=ops.view(RECORD),
        descriptors=descriptors.view(DESCRIPTOR),
        sram=tuple(Region(**region) for region in header["sram"]),
        external=tuple(Region(**region) for region in header["external"]),
        images=tuple(
            Image(tile, address, data) for (tile, address, _), data in zip(header["images"], images, strict=True)
        ),
        external_image=external,
        logits=tuple(LogitSlice(**piece) for piece in header["logits"]),
        notes=tuple(header["notes"]),
        extra=header["extra"],
        **{
            name: header[name]
            for name in (
                "model", "weights", "model_fingerprint", "vocabulary", "context", "block_keys", "external_bytes", "result_address",
            )
        },
    )  # fmt: skip
