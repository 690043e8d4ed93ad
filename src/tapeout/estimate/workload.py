"""What is asked of the machines: how many at once, how long, in which format; and how they share the work."""

from dataclasses import dataclass, fields, replace

import numpy as np

from tapeout.chip.machine import Value


@dataclass(frozen=True, slots=True)
class Workload:
    """`concurrency` requests are always open, each of `prompt_tokens` and then `output_tokens`; a new one begins when one ends.

    `recipe` names how the client and the engine measure: see `estimate.recipes`.
    """

    concurrency: Value = 1.0
    prompt_tokens: Value = 512.0
    output_tokens: Value = 128.0
    weights: str = "bf16"
    kv_bytes: float | None = None
    """Bytes per K or V number; by the weights' format where None."""
    recipe: str = "steady"
    slot_tokens: Value | None = None
    """What an engine with slots of fixed length reads of every sequence, however long it is."""
    density: float = 1.0
    """Share of the layers' weights that pruning left, in blocks of `block` x `block`: see `estimate.sparsity`."""
    block: float = 1.0

    def chunk(self, rows: slice) -> "Workload":
        """A run of designs: every array cut, every number kept."""
        cut = {
            f.name: getattr(self, f.name)[rows] for f in fields(self) if isinstance(getattr(self, f.name), np.ndarray)
        }
        return replace(self, **cut)


@dataclass(frozen=True, slots=True)
class Plan:
    """`tensor` chips share every matrix, `pipeline` such groups share the layers, `data` replicas share the requests.

    `expert`: into how many parts the experts are dealt among the tensor group; 1 cuts every expert instead.
    """

    tensor: float = 1
    pipeline: float = 1
    data: float = 1
    expert: float = 1

    @property
    def chips(self) -> float:
        """All of them."""
        return self.tensor * self.pipeline * self.data

    def __str__(self) -> str:
        parts = [
            f"{name} {getattr(self, name):g}"
            for name in ("tensor", "pipeline", "data", "expert")
            if getattr(self, name) != 1
        ]
        return ", ".join(parts) or "one chip"
