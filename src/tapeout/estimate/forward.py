"""The time of one forward pass over a whole model, cause by cause."""

from dataclasses import dataclass

import numpy as np

from tapeout.chip.machine import Value
from tapeout.estimate.rates import Rates, Weights

CAUSES = ("compute", "weights", "kv_cache", "attention_compute", "elementwise", "collectives", "layers", "host")
"""What a pass waits for: multipliers; reading weights; reading keys and values; their products; norms, activations and residuals; links between
chips; what a layer takes whatever its width; engine and host."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes through in one pass: `tokens` in all, of `sequences`; each attends to `context` tokens; `logits` of them reach the head."""

    tokens: Value
    sequences: Value
    context: Value
    logits: Value


def pass_seconds(rates: Rates, batch: Batch) -> dict[str, Value]:
    """Seconds of one pass through all layers and the head, by cause. A roofline per operator: whichever of its rates binds is its cause."""
    compute = weights = 0.0
    for group in (*rates.layer_weights, *((rates.head,) if rates.head else ())):
        busy, read = _matmul(group, batch.logits if group is rates.head else batch.tokens, rates.expert_spread)
        compute, weights = compute + np.where(busy > read, busy, 0.0), weights + np.where(busy > read, 0.0, read)
    scores, kv = _attention(rates, batch)
    return {
        "compute": compute,
        "weights": weights,
        "kv_cache": np.where(scores > kv, 0.0, kv),
        "attention_compute": np.where(scores > kv, scores, 0.0),
        "elementwise": _elementwise(rates, batch),
        "collectives": _collectives(rates, batch.tokens),
        "layers": _layers(rates, batch) * rates.layer_s,
        "host": rates.step_s + rates.sequence_s * batch.sequences,
    }


def total(parts: dict[str, Value]) -> Value:
    """All causes together."""
    return sum(parts.values(), 0.0)


def active_experts(experts: float, used: float, tokens: Value, spread: float) -> Value:
    """Experts that at least one of `tokens` chooses, in the mean: each token chooses `used` of `experts` at random, but a batch's tokens
    choose alike, so that every token behind the first counts as `spread` of one."""
    return experts * (1.0 - (1.0 - used / experts) ** (1.0 + (np.maximum(tokens, 1.0) - 1.0) * spread))


def _layers(rates: Rates, batch: Batch) -> Value:
    """How often a layer's own time passes. Where every layer has multipliers of its own, in silicon, tokens follow one another through them:
    the first takes as many times as there are layers, every other token of a prompt one more, and a batch wider than that its own width."""
    if not rates.hardwired:
        return float(rates.shape.layers)
    under_way = batch.sequences * rates.plan.pipeline
    return np.maximum(float(rates.shape.layers), under_way) + (batch.tokens - batch.sequences)


def _matmul(group: Weights, tokens: Value, spread: float) -> tuple[Value, Value]:
    """Seconds that the multipliers take, and that reading takes."""
    share = active_experts(group.experts, group.used, tokens, spread) / group.experts if group.experts > 1 else 1.0
    return 2.0 * group.padded * tokens / group.flops_per_s, group.bytes * share / group.bytes_per_s


def kept_tokens(rates: Rates, context: Value) -> Value:
    """Tokens in the KV cache of a sequence, over all layers; a windowed layer keeps at most its window."""
    shape = rates.shape
    return (shape.layers - shape.windowed_layers) * context + shape.windowed_layers * np.minimum(context, shape.window)


def kv_bytes_per_sequence(rates: Rates, context: Value) -> Value:
    """Bytes of the KV cache of one sequence, over all layers."""
    return rates.shape.kept_per_layer * rates.kv_bytes * kept_tokens(rates, context)


def _attention(rates: Rates, batch: Batch) -> tuple[Value, Value]:
    """Seconds of the products with keys and values, and of reading them once per sequence."""
    shape, prefill = rates.shape, batch.tokens > batch.sequences
    if not rates.attends:
        return 0.0, 0.0
    if shape.mla is None:
        pair: Value = 2.0 * shape.head_width
    else:
        mla = shape.mla
        pair = np.where(prefill, mla.nope_width + mla.rope_width + mla.value_width, 2.0 * mla.kv_rank + mla.rope_width)
    kept = kept_tokens(rates, batch.context)
    flops = 2.0 * shape.heads * pair * kept * batch.tokens * np.where(prefill, 0.5, 1.0)
    return flops / rates.attention_flops_per_s, batch.sequences * kv_bytes_per_sequence(
        rates, batch.context
    ) / rates.kv_bytes_per_s


def _elementwise(rates: Rates, batch: Batch) -> Value:
    """Norms, residuals, positions and activations go through memory in 16 bits: `elementwise_passes` times the width on every chip, and the
    vectors between the matrices, in and out, on each chip its share."""
    shape, tensor = rates.shape, rates.plan.tensor
    hidden = max(shape.hidden, shape.expert_hidden * shape.experts_used + shape.shared_hidden)
    between = 2 * (shape.heads + 2 * shape.kv_heads) * shape.head_width + 3 * hidden
    numbers = rates.elementwise_passes * shape.width * tensor + between
    return shape.layers * batch.tokens * 2.0 * numbers / rates.elementwise_bytes_per_s


def _collectives(rates: Rates, tokens: Value) -> Value:
    """Sums over the tensor group (a ring: every number goes out and comes back, (n-1)/n of it), and the hand-over between pipeline stages."""
    shape, plan = rates.shape, rates.plan
    numbers = tokens * shape.width * 2.0
    if plan.expert > 1:
        numbers = numbers * (1.0 + 0.5 * shape.experts_used * (plan.expert - 1) / plan.expert)
    group = np.where(
        np.asarray(plan.tensor) > 1,
        rates.hop_s * np.sqrt(plan.tensor) + 2.0 * numbers * (plan.tensor - 1) / plan.tensor / rates.link_bytes_per_s,
        0.0,
    )
    stages = (plan.pipeline - 1) * (rates.hop_s + tokens * shape.width * 2.0 / rates.link_bytes_per_s)
    return shape.layers * shape.collectives_per_layer * group + stages
