"""`ChipSpec`: only what can be built. The compiler's limits, the simulator's widths, the RTL's parameters and the area all read it.

One YAML file makes a chip. Derived numbers are properties and are never stored.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tapeout.base.spec import Spec
from tapeout.numerics.formats import FORMATS

Kib = Annotated[int, Field(ge=1, le=2**22)]
"""An operand's address has 32 bits."""
Rate = Annotated[float, Field(gt=0, le=1e6)]
"""GB/s. A whole wafer of SRAM has 2.1e7, a stack of HBM4 2e3."""
Nanoseconds = Annotated[float, Field(ge=0, le=1e5)]
"""The harness keeps as many cycles of beats in flight."""

MAX_TILES = 32
LEAST_MHZ = 0.001
PACKET_BYTES = 34
"""32 codes and their scale (n, e): how activations travel."""


class Topology(StrEnum):
    """How tiles are wired: to their neighbours in a grid, or in one closed row."""

    MESH = "mesh"
    RING = "ring"


class Grid(Spec):
    """Tiles in rows and columns; tile number = row * columns + column."""

    columns: Annotated[int, Field(ge=1, le=8)]
    rows: Annotated[int, Field(ge=1, le=8)]
    topology: Topology = Topology.MESH

    @property
    def tiles(self) -> int:
        """How many tiles."""
        return self.columns * self.rows

    @model_validator(mode="after")
    def _buildable(self) -> "Grid":
        if self.tiles > MAX_TILES:
            raise ValueError(f"{self.columns} x {self.rows} is {self.tiles} tiles; at most {MAX_TILES} can be built")
        if self.topology is Topology.RING and self.rows != 1:
            raise ValueError(f"a ring has 1 row, not {self.rows}")
        return self


class MatrixUnit(Spec):
    """`rows` x `lanes` multipliers, int8 activations times the weight formats listed; one group of 32 takes 32/lanes cycles."""

    rows: Literal[4, 8, 16, 32]
    lanes: Literal[8, 16, 32]
    formats: tuple[str, ...] = ("int8", "int4", "int4m", "ternary")
    operand_kib: Kib = 8
    """Buffer for the activation vectors that a row block is multiplied with."""
    tokens: Annotated[int, Field(ge=1, le=64)] = 16
    """Accumulators per row: how many tokens share one reading of a weight."""

    @field_validator("formats")
    @classmethod
    def _known(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        for name in formats:
            if name not in FORMATS:
                raise ValueError(f"{name!r} is not one of {', '.join(FORMATS)}")
        return formats


class VectorUnit(Spec):
    """Binary32 lanes with function tables and the quantizer."""

    lanes: Literal[1, 2, 4, 8, 16, 32, 64]


class AttentionUnit(Spec):
    """`keys` x `lanes` multipliers over int8 K and V records; context is walked in blocks of `block_keys`."""

    keys: Literal[1, 2, 3, 4, 6, 8, 16]
    lanes: Literal[8, 16, 32, 64, 128]
    block_keys: Literal[8, 16, 32, 64, 128] = 32
    queries: Annotated[int, Field(ge=1, le=1024)] = 64
    """Query states (m, E, L and N[head_dim]) held at once."""

    @property
    def dividers(self) -> int:
        """Pipelined dividers: elements of the output per cycle."""
        return max(1, self.lanes // 16)


class Sram(Spec):
    """One read port and one write port per bank."""

    kib: Kib
    banks: Annotated[int, Field(ge=1, le=64)]

    @property
    def bank_bytes(self) -> int:
        """Bytes per bank."""
        return self.kib * 1024 // self.banks

    @model_validator(mode="after")
    def _divides(self) -> "Sram":
        if self.kib * 1024 % (self.banks * 64):
            raise ValueError(f"{self.kib} KiB do not divide into {self.banks} banks of whole 64-byte lines")
        return self


class Tile(Spec):
    """What one tile holds."""

    matrix: MatrixUnit
    vector: VectorUnit
    attention: AttentionUnit
    sram: Sram
    stream_kib: Annotated[int, Field(ge=0, le=2**22)] = 0
    """Input buffer filled by the streamer from external memory, beside the SRAM; needed where the chip has one."""
    micro_ops: Annotated[int, Field(ge=1, le=2**24)] = 4096
    """Instruction memory: micro-ops per tile."""


class Link(Spec):
    """Each directed link between neighbours."""

    bytes_per_cycle: Literal[4, 8, 16, 32, 64, 128]
    hop_cycles: Annotated[int, Field(ge=1, le=16)] = 1


class External(Spec):
    """External memory, streamed by a descriptor list. Rates are peak; refresh stops all transfers for its length."""

    kind: str
    gb_per_s: Rate
    latency_ns: Nanoseconds
    refresh_interval_ns: Annotated[float, Field(gt=0, le=1e12)]
    refresh_ns: Annotated[float, Field(ge=0)]
    capacity_gib: Annotated[float, Field(gt=0, le=2**18)]
    beat_bytes: Literal[16, 32, 64, 128, 256, 512, 1024] = 64
    write_buffer_kib: Kib = 16
    """Per tile: KV records on their way out."""

    @model_validator(mode="after")
    def _refresh_leaves_time(self) -> "External":
        if self.refresh_ns >= self.refresh_interval_ns:
            raise ValueError(f"a refresh of {self.refresh_ns} ns every {self.refresh_interval_ns} ns leaves no time")
        return self


class Host(Spec):
    """The host's interface: tokens in, tokens and logits out; off the critical path of greedy decode but for its latency."""

    kind: str = "PCIe 4.0 x4"
    gb_per_s: Rate = 8.0
    latency_us: Annotated[float, Field(ge=0, le=1e9)] = 1.0


class WeightStore(StrEnum):
    """Where the matrices live while the chip runs."""

    SRAM = "sram"
    EXTERNAL = "external"


class ChipSpec(Spec):
    """A statically scheduled transformer ASIC."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    note: str = ""
    node: Literal["45nm", "28nm", "16nm", "7nm", "5nm"] = "7nm"
    clock_mhz: Annotated[float, Field(gt=0, le=5000)]
    grid: Grid
    tile: Tile
    link: Link
    external: External | None = None
    weight_store: WeightStore = WeightStore.SRAM
    host: Host = Host()

    @model_validator(mode="after")
    def _consistent(self) -> "ChipSpec":
        if self.clock_mhz < LEAST_MHZ:
            raise ValueError(f"clock_mhz is {self.clock_mhz:g}, less than {LEAST_MHZ}")
        if self.external and not self.tile.stream_kib:
            raise ValueError(
                "tile.stream_kib is 0, but external memory needs a stream buffer in every tile; use 16 or more"
            )
        if self.weight_store is WeightStore.EXTERNAL and not self.external:
            raise ValueError("weight_store is external, but there is no external memory; describe it under external")
        if self.tile.stream_kib and not self.external:
            raise ValueError(
                f"tile.stream_kib is {self.tile.stream_kib}, but there is no external memory to stream from"
            )
        return self

    @property
    def macs_per_cycle(self) -> int:
        """Multiply-accumulates of all matrix units in one cycle."""
        return self.grid.tiles * self.tile.matrix.rows * self.tile.matrix.lanes
