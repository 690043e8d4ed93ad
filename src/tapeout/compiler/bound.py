"""The least a decode step could take, from graph and chip alone: bytes that must move, multiplications that must happen."""

from dataclasses import dataclass

from tapeout.chip.spec import ChipSpec, WeightStore
from tapeout.compiler.decoder import read_decoder
from tapeout.graph.types import Graph


@dataclass(frozen=True, slots=True)
class Bound:
    """Cycles per resource if that resource were never idle; memory at its peak rate, refresh not counted."""

    cycles: dict[str, float]

    @property
    def scarcest(self) -> str:
        """The resource that takes longest."""
        return max(self.cycles, key=lambda name: self.cycles[name])

    @property
    def least(self) -> float:
        """Cycles that no schedule can beat."""
        return self.cycles[self.scarcest]


def decode_bound(graph: Graph, chip: ChipSpec, context: int, external_kv: bool) -> Bound:
    """One token with `context` tokens before it. `external_kv`: the KV cache does not fit in SRAM and must be read back."""
    decoder = read_decoder(graph)
    read = [w for w in graph.weights if w.name != decoder.embed or decoder.head == decoder.embed]
    macs = sum(w.parameters for w in read if len(w.shape) == 2 and w.name != decoder.positions)
    kv_width = decoder.kv_heads * decoder.head_dim
    attended = len(decoder.layers) * decoder.heads * decoder.head_dim * (context + 1)
    attention = chip.tile.attention
    cycles = {
        "matrix units": macs / chip.macs_per_cycle,
        "attention units": 2 * attended / (chip.grid.tiles * attention.keys * attention.lanes),
    }
    if chip.external:
        moved = 0.0
        if chip.weight_store is WeightStore.EXTERNAL:
            table = graph.weight(decoder.embed)
            moved += sum(w.stored_bytes for w in read if w.name != decoder.positions)
            moved += table.stored_bytes / decoder.vocabulary
        if external_kv:
            scales, bits = 2 * 2 * decoder.kv_heads, decoder.kv.key_bits + decoder.kv.value_bits
            moved += len(decoder.layers) * (context + 1) * (kv_width * bits / 8 + scales)
        cycles["external memory"] = moved / (chip.external.gb_per_s * 1e3 / chip.clock_mhz)
    return Bound(cycles)
