"""How far real machines stay behind their datasheets: three numbers per family of chips and eight shared, and constants that were never fitted."""

from functools import cache
from importlib import resources
from typing import Annotated

from pydantic import Field

from tapeout.base.spec import Spec

Share = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class Family(Spec):
    """What is fitted per family. `rows`: what it was fitted on; "none" where the numbers come from a source or an assumption alone."""

    memory_efficiency: Share
    compute_efficiency: Share
    layer_us: Annotated[float, Field(ge=0)]
    layer_us_range: tuple[float, float] | None = None
    """Where it is an assumption: what it may also be."""
    hop_us: Annotated[float, Field(gt=0)] | None = None
    """Of the family's own links, from a source; the shared one where None."""
    step_us: Annotated[float, Field(ge=0)] | None = None
    """Engine and host per decode step, however many sequences, from a source; the shared numbers where None."""
    rows: str
    source: str


class Shared(Spec):
    """What is fitted once for all. Each absorbs more than its name says: docs/accuracy.md lists what."""

    narrow_efficiency: Share
    """Of what 16-bit multipliers reach of their peak, how much those of 8 and 4 bits do."""
    step_us: Annotated[float, Field(ge=0)]
    """Engine and host per decode step."""
    sequence_us: Annotated[float, Field(ge=0)]
    """Sampling and bookkeeping per sequence and step."""
    hop_us: Annotated[float, Field(ge=0)]
    """A collective's latency, times the square root of the chips in it."""
    emulation: Share
    """Expert weights in a format that the chip has no multipliers for: share of the 16-bit rate that is left."""
    expert_spread: Share
    """Tokens of a batch choose alike: each brings so much of a token's independent choices of experts."""
    queue_prefills: Annotated[float, Field(ge=0)]
    """Prefills that a request waits for, times the square root of the concurrency."""
    first_token_steps: Annotated[float, Field(ge=0)]
    """Decode steps between a prompt's arrival and its first token's, beside its prefill: joining, streaming interval."""


class Fixed(Spec):
    """Constants with sources; none was fitted here."""

    attention_efficiency: Share
    link_efficiency: Share
    memory_usable: Share
    elementwise_passes: Positive
    prefill_tokens: Positive
    most_sequences: Positive
    idle_watts: Share
    server_watts: Positive
    sources: dict[str, str]


class Calibration(Spec):
    """The file data/estimate/calibration.yaml."""

    families: dict[str, Family]
    shared: Shared
    fixed: Fixed

    def with_layers(self, slow: bool) -> "Calibration":
        """Every assumed layer time at the slow end of its range, or at the quick one."""
        changed = {
            name: family.model_copy(update={"layer_us": family.layer_us_range[slow]})
            for name, family in self.families.items()
            if family.layer_us_range
        }
        return self.model_copy(update={"families": self.families | changed})


@cache
def calibration(name: str = "fitted") -> Calibration:
    """`fitted`, or `sourced`: with nothing fitted on any serving row."""
    text = (resources.files("tapeout") / "data" / "estimate" / f"{name}.yaml").read_text()
    return Calibration.from_text(text, name)
