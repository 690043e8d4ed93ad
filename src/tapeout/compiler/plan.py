"""`Schedule`: the compiler's decisions, readable on their own."""

from dataclasses import dataclass

from tapeout.chip.spec import ChipSpec
from tapeout.compiler.decoder import Decoder, Run
from tapeout.compiler.memory_map import MemoryMap
from tapeout.compiler.schedule import ScheduledLoop
from tapeout.compiler.shards import Shards
from tapeout.compiler.weights import Block


@dataclass(frozen=True, slots=True)
class Schedule:
    """Every decision, before emission: shards, cuts, addresses, and the cycle of every micro-op."""

    chip: ChipSpec
    decoder: Decoder
    shards: Shards
    runs: tuple[Run, ...]
    blocks: tuple[Block, ...]
    head: Block
    map: MemoryMap
    bodies: tuple[tuple[int, tuple[ScheduledLoop, ...]], ...]
    """(tokens, loops) of the chunk and of the single token."""
    logits: tuple[ScheduledLoop, ...]

    def __str__(self) -> str:
        lines = [
            f"schedule of {self.decoder.graph.name} for {self.chip.name}: context {self.map.sizes.context}, KV in {self.map.kv}"
        ]
        for tokens, loops in self.bodies:
            lines += [f"body of {tokens}", *(_loop_text(loop) for loop in loops)]
        lines += ["head", *(_loop_text(loop) for loop in self.logits)]
        return "\n".join(lines)


def _loop_text(loop: ScheduledLoop) -> str:
    stages = "\n".join(
        f"    {stage.name:<20} {stage.cycles:>7} cycles, {len(stage.ops)} micro-ops, "
        + ("once per context block" if stage.repeat < 0 else f"x {stage.repeat}")
        for stage in loop.stages
    )
    return f"  {loop.name} x {loop.count}\n{stages}"
