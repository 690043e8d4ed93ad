"""Ways to share a model among chips, and the fastest of them that fits."""

from collections.abc import Callable, Iterator

import numpy as np

from tapeout.base.errors import BadInput
from tapeout.estimate.workload import Plan
from tapeout.graph.shapes import ModelShape

TENSORS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)


def check_plan(shape: ModelShape, plan: Plan, chips: float) -> None:
    """Raises `BadInput` that says which number does not divide."""
    if plan.chips != chips:
        raise BadInput(
            "plan",
            f"{plan} takes {plan.chips:g} chips, not {chips:g}",
            "tensor x pipeline x data is the number of chips",
        )
    if shape.heads % plan.tensor:
        divisors = ", ".join(str(t) for t in TENSORS if shape.heads % t == 0)
        raise BadInput("--tensor", f"{shape.heads} heads do not divide by {plan.tensor:g}", f"one of {divisors}")
    if plan.pipeline > shape.layers:
        raise BadInput("--pipeline", f"{plan.pipeline:g} stages for {shape.layers} layers", f"{shape.layers} or fewer")


def plans(
    shape: ModelShape, chips: float, concurrency: float, tensor: float | None = None, most_tensor: float = 64
) -> Iterator[Plan]:
    """Every way that divides heads, layers and chips, with a request for every replica; only those of one `tensor` where it is given.

    A tensor-parallel group talks in every layer: it stays inside of `most_tensor` chips that are wired closely.
    """
    for t in (tensor,) if tensor else TENSORS:
        if t > min(chips, most_tensor) or shape.heads % t or chips % t:
            continue
        groups = round(chips / t)
        for data in range(1, groups + 1):
            if groups % data == 0 and groups // data <= shape.layers and data <= max(concurrency, 1):
                yield Plan(tensor=t, pipeline=groups // data, data=data)


def fastest(candidates: Iterator[Plan], score: Callable[[Plan], float]) -> Plan | None:
    """The plan with the greatest score; None where none fits (a score of NaN or -inf)."""
    scored = [(value, plan) for plan in candidates if np.isfinite(value := score(plan))]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None
