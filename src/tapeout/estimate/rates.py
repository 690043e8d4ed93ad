"""What a group of chips really does per second with one model in one format: datasheet rates times calibration.

Matrices are summed up by what decides their time: which weights they read, and whether a token uses all of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tapeout.chip.machine import Machine, Value
from tapeout.estimate.calibration import Calibration
from tapeout.estimate.formats import Format, number_format
from tapeout.estimate.workload import Plan
from tapeout.graph.shapes import Matrix, ModelShape

KIBI = 1e-6


@dataclass(frozen=True, slots=True)
class Weights:
    """Matrices that are read and multiplied alike, as one. All of them over all layers and chips of a replica.

    weights: numbers read where every expert is; padded: multiplications per token with what the matrix unit's rows leave idle.
    """

    name: str
    weights: float
    padded: Value
    experts: float
    used: float
    flops_per_s: Value
    bytes_per_s: Value
    bytes_per_weight: float

    @property
    def bytes(self) -> float:
        """Bytes of all of them."""
        return self.weights * self.bytes_per_weight


@dataclass(frozen=True, slots=True)
class Rates:
    """Everything a forward pass is timed with: rates of a whole tensor-parallel group, seconds for what has no rate."""

    shape: ModelShape
    plan: Plan
    layer_weights: tuple[Weights, ...]
    head: Weights | None
    """None where other machines have it."""
    attention_flops_per_s: Value
    kv_bytes_per_s: Value
    kv_bytes: float
    """Per number kept."""
    elementwise_bytes_per_s: Value
    elementwise_passes: float
    link_bytes_per_s: Value
    hop_s: Value
    layer_s: Value
    step_s: float
    sequence_s: float
    expert_spread: float
    hardwired: bool
    attends: bool = True
    """False where other machines hold the KV cache."""


def lower(
    shape: ModelShape, machine: Machine, plan: Plan, weights: str, kv_bytes: float | None, numbers: Calibration
) -> Rates:
    """Rates of one tensor-parallel group. Raises `BadInput` on an unknown format."""
    form, expert_form = _formats(shape, weights)
    family, shared, fixed = numbers.families[machine.family], numbers.shared, numbers.fixed
    memory = machine.memory_tb_per_s * 1e12 * family.memory_efficiency * plan.tensor
    wide = np.asarray(machine.tflops_16 * 1e12 * plan.tensor)

    def group(name: str, matrices: Iterable[Matrix], form: Format, bytes_per_weight: float) -> Weights:
        rate, read = _multiplier_rates(machine, form, numbers)
        found = list(matrices)
        return Weights(
            name, float(sum(m.parameters * _times(m, plan) for m in found)), _padded(found, machine.rows, plan),
            max((m.experts for m in found), default=1), max((m.used for m in found), default=1), rate * plan.tensor, memory * read, bytes_per_weight,
        )  # fmt: skip

    dense = [m for m in shape.matrices() if m.kind in ("attention", "feed_forward") and m.experts == 1]
    experts = [m for m in shape.matrices() if m.experts > 1]
    layers = [group("attention", (m for m in dense if m.kind == "attention"), form, form.weight_bytes)]
    layers += [group("feed_forward", (m for m in dense if m.kind == "feed_forward"), form, form.weight_bytes)]
    layers += [group("experts", experts, expert_form, expert_form.weight_bytes)]
    head_form = form if form.head_bytes == form.weight_bytes else number_format("bf16")
    return Rates(
        shape=shape, plan=plan, layer_weights=tuple(row for row in layers if row.weights),
        head=group("head", (m for m in shape.matrices() if m.kind == "head"), head_form, form.head_bytes),
        attention_flops_per_s=np.where(wide > 0, wide, machine.tflops_8 * 1e12 * plan.tensor) * fixed.attention_efficiency,
        kv_bytes_per_s=memory / plan.tensor * min(plan.tensor, max(shape.kv_heads, 1) if shape.mla is None else 1),
        kv_bytes=form.kv_bytes if kv_bytes is None else kv_bytes,
        elementwise_bytes_per_s=memory, elementwise_passes=fixed.elementwise_passes,
        link_bytes_per_s=np.maximum(machine.link_gb_per_s, KIBI) * 1e9 * fixed.link_efficiency,
        hop_s=1e-6 * np.where(np.asarray(machine.hop_us) > 0, machine.hop_us, family.hop_us or shared.hop_us),
        layer_s=1e-6 * np.where(np.asarray(machine.fixed_layer_us) > 0, machine.fixed_layer_us, family.layer_us * _kernels(shape)),
        step_s=1e-6 * (shared.step_us if family.step_us is None else family.step_us),
        sequence_s=1e-6 * (shared.sequence_us if family.step_us is None else 0.0),
        expert_spread=shared.expert_spread, hardwired=bool(machine.hardwired),
    )  # fmt: skip


def _formats(shape: ModelShape, weights: str) -> tuple[Format, Format]:
    """Of the dense matrices and of the experts: a checkpoint whose experts alone were released in few bits keeps the rest in 16."""
    form = number_format(weights)
    if shape.expert_format and (form.bits < 8 or weights == "stored"):
        return number_format("bf16"), number_format(shape.expert_format)
    return form, form


def _multiplier_rates(machine: Machine, form: Format, numbers: Calibration) -> tuple[Value, Value]:
    """FLOP/s of one chip on weights of a format, and the share of its memory rate that reading them leaves.

    A chip without multipliers of 4 bits uses those of 8, and of 16 where it has none of 8 either: 16-bit work reaches `compute_efficiency` of its
    peak, narrower work `narrow_efficiency` of that again. Four-bit floats that no unit takes are widened first, which costs reads and products.
    """
    efficiency = numbers.families[machine.family].compute_efficiency
    narrow = efficiency * numbers.shared.narrow_efficiency
    sixteen, eight, four = (
        np.asarray(t, float) * 1e12 for t in (machine.tflops_16, machine.tflops_8, machine.tflops_4)
    )
    wide = np.where(sixteen > 0, sixteen * efficiency, eight * narrow)
    if form.bits >= 16:
        return wide, 1.0
    on_eight = np.where(eight > 0, eight * narrow, wide)
    if not form.float4:
        return on_eight, 1.0
    left = numbers.shared.emulation
    return np.where(four > 0, four * narrow, wide * left), np.where(four > 0, 1.0, left)


def _kernels(shape: ModelShape) -> float:
    """Kernels of a layer against those of one with grouped queries, whose time was fitted: 10. Latent attention adds 8 (two more projections
    down and up, a norm each, and the products with the compressed keys and values)."""
    return 1.8 if shape.mla else 1.0


def _times(matrix: Matrix, plan: Plan) -> float:
    """How often it stands in a tensor-parallel group: one that is not cut, on every chip."""
    return plan.tensor if matrix.split == "whole" else 1.0


def _padded(matrices: Iterable[Matrix], rows: Value, plan: Plan) -> Value:
    """Multiplications per token, every matrix's share of outputs filled up to whole blocks of `rows`."""
    total: Value = 0.0
    for m in matrices:
        block = rows * (plan.tensor if m.split == "column" else 1.0)
        total = total + np.ceil(m.outputs / block) * block * m.inputs * m.copies * m.used * _times(m, plan)
    return total
