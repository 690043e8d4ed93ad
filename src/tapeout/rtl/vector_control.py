"""What goes along with the words in the vector unit's lanes: which pass of which micro-op a word belongs to, and where it stands in it."""

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import data

from tapeout.rtl.ports import WORD_BITS

STEPS = 12
"""Cycles from a word's address to its result: LANE_PIPE."""


def control_layout(format_bits: int, factors: bool) -> data.StructLayout:
    """The control word, where formats have numbers of so many bits, and some a factor."""
    fields = {
        # One of these is set for a word, none for an idle cycle. The first three are the passes of norm.
        "residual": 1, "squares": 1, "scaled": 1, "rope": 1, "quant": 1, "swiglu": 1, "embed": 1, "argmax": 1,
        # norm's and argmax's flags.
        "add": 1, "pairs": 1,
        # The first and last word of a group (of a row where nothing is quantized); the micro-op's last word.
        "first": 1, "ends": 1, "final": 1,
        # Values that are there; the embedding row's format, the word's place in its group, whether its bytes begin in the middle of a word.
        "count": unsigned(6), "format": unsigned(format_bits), "place": unsigned(4), "odd": 1,
    }  # fmt: skip
    # Whether an embedding row's factor stands before the word's group.
    return data.StructLayout(fields | ({"leads": 1} if factors else {}))


PACKET = data.StructLayout(
    {
        # Where a group's codes go and its scale a second time, in half words; pairs of codes; the micro-op.
        "to": unsigned(WORD_BITS + 1), "pairs": unsigned(7), "twice": 1, "twice_to": unsigned(WORD_BITS + 1), "kind": unsigned(2),
    }
)  # fmt: skip

QUANTIZED = ("norm", "rope", "quant", "swiglu")
"""The micro-ops that write packets, in the order of their `kind`."""


def grouped(control: data.View) -> object:
    """Whether a word's results are quantized."""
    return control.scaled | control.rope | control.quant | control.swiglu


def chained(control: data.View) -> object:
    """Whether its second product takes the first one: (x*r)*weight and (gate*sigmoid)*up."""
    return control.scaled | control.swiglu


def along(m: Module, first: data.View, steps: int) -> list[data.View]:
    """`first` after 0, 1, ... `steps` cycles."""
    stages = [first]
    for step in range(1, steps + 1):
        stages.append(Signal(first.shape(), name=f"control{step}"))
        m.d.sync += stages[-1].eq(stages[-2])
    return stages
