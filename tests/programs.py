"""Programs of one segment, put together by hand from a few micro-ops: what tests seed hazards with."""

from collections.abc import Sequence

import numpy as np

from chips import make_chip
from tapeout.chip.spec import ChipSpec
from tapeout.isa.opcodes import MicroOp, to_records
from tapeout.isa.program import DESCRIPTOR, READ, ZERO, Base, Entry, Loop, Program, Region, Segment
from tapeout.isa.timing import SEGMENT_MIN, latency

SRAM = (
    Region("weights", 0x0000, 0x2000, constant=True),
    Region("vectors", 0x2000, 0x2000),
    Region("packets", 0x4000, 0x2000),
    Region("results", 0x6000, 0x2000),
)
"""Four regions of two banks each; the rest of the SRAM belongs to nobody, and the host's result lies there."""
CHIP = make_chip("2x2", streamed=True, tile__sram__kib="64", tile__sram__banks="16", tile__stream_kib="1")
"""Four tiles, 16 banks of 4 KiB, a stream buffer of 1 KiB."""


def read(size: int, mask: int = 1, address: int = 0) -> tuple[int, ...]:
    """A descriptor that brings `size` bytes to the tiles in `mask`."""
    return (READ, 0, 0, mask, size, 0, address, 0, 0)


def assemble(
    ops: Sequence[MicroOp],
    *,
    chip: ChipSpec = CHIP,
    cycles: int | None = None,
    descriptors: Sequence[tuple[int, ...]] = (),
    bases: tuple[Base, ...] = (ZERO,),
    sram: tuple[Region, ...] = SRAM,
    repeat: int = 1,
    count: int = 1,
    external_bytes: int = 1 << 16,
    context: int = 8,
) -> Program:
    """`ops`, issue cycles and all, as one segment named "seeded" that ends with its last micro-op, or after `cycles`.

    The segment runs `repeat` times in each of `count` turns of its loop.
    """
    end = max((op.issue + latency(op, chip) for op in ops), default=0)
    end = max(end, SEGMENT_MIN) if cycles is None else cycles
    segment = Segment("seeded", end, 0, len(ops), 0, len(descriptors), repeat)
    loops = (Loop("loop", count, (segment,)),)
    return Program(
        chip=chip, model="seeded", weights="int8", model_fingerprint="", vocabulary=1, context=context,
        block_keys=chip.tile.attention.block_keys, bases=bases,
        entries=(Entry("token", 1, loops), Entry("token_head", 1, loops), Entry("head", 1, ())),
        ops=to_records(list(ops)), descriptors=np.array(list(descriptors), DESCRIPTOR), sram=sram, external=(), images=(),
        external_image=np.zeros(0, np.uint8), external_bytes=external_bytes, logits=(), result_address=0x8000,
    )  # fmt: skip
