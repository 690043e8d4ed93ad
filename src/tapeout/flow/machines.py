"""A chip of either kind as machines: how many there are, where its weights may live, how far a tensor-parallel group reaches."""

from tapeout.base.errors import BadInput
from tapeout.chip.catalogue import one_chip
from tapeout.chip.datasheet import Datasheet
from tapeout.chip.lowering import Side, Store, machine_of, machine_of_spec, stores
from tapeout.chip.machine import Machine
from tapeout.chip.spec import ChipSpec
from tapeout.graph.shapes import ModelShape

MOST_TENSOR = {"sambanova": 16.0, "trainium": 16.0, "cerebras": 1.0}
"""Chips that are wired closely enough for tensor parallelism, where the datasheet does not say and it is not 8."""


def own_chips(chip: ChipSpec | Datasheet) -> float:
    """All of a system, or of a board."""
    return 1.0 if isinstance(chip, ChipSpec) else chip.value("chips") or chip.value("asics_per_board") or 1.0


def places(chip: ChipSpec | Datasheet) -> tuple[Store, ...]:
    """Where weights may live, the quickest first."""
    return (chip.weight_store.value,) if isinstance(chip, ChipSpec) else stores(one_chip(chip))


def machine_on(chip: ChipSpec | Datasheet, store: Store, side: Side = "value") -> Machine:
    """One chip as flat rates."""
    return machine_of_spec(chip) if isinstance(chip, ChipSpec) else machine_of(one_chip(chip), store, side)


def family_of(chip: ChipSpec | Datasheet) -> str:
    """Which calibration counts."""
    return "template" if isinstance(chip, ChipSpec) else chip.family


def check_hardwired(shape: ModelShape, machine: Machine) -> None:
    """Raises `BadInput` where the chip is another model in silicon."""
    if machine.hardwired and machine.hardwired not in shape.hardwired:
        raise BadInput(
            machine.name,
            f"has one model in silicon; {shape.name} is not it",
            f"tapeout models --chip {machine.name} says which",
        )


def most_tensor(chip: ChipSpec | Datasheet) -> float:
    """How far a tensor-parallel group reaches: a node."""
    if isinstance(chip, ChipSpec):
        return 1.0
    return float(chip.value("chips_per_node") or MOST_TENSOR.get(chip.family, 8.0))
