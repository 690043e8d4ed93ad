"""Two kinds of machine that share one model: prompts on one and tokens on the other, or attention on one and feed-forward on the other.

Both are sold so: GPUs that fill the KV cache for a decode chip; LPUs, wafers or in-memory chips that multiply while GPUs hold the KV cache.
"""

from dataclasses import dataclass, replace

import numpy as np

from tapeout.chip.machine import Machine, Value
from tapeout.estimate.calibration import Calibration
from tapeout.estimate.energy import watts
from tapeout.estimate.forward import Batch, kv_bytes_per_sequence, pass_seconds, total
from tapeout.estimate.rates import Rates, lower
from tapeout.estimate.serving import largest_batch
from tapeout.estimate.workload import Plan, Workload
from tapeout.graph.shapes import ModelShape


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of machine in a system, and how many of it work how."""

    machine: Machine
    plan: Plan


@dataclass(frozen=True, slots=True)
class Link:
    """Between the two kinds: one direction."""

    gb_per_s: Value
    latency_us: Value


@dataclass(frozen=True, slots=True)
class Hybrid:
    """What a system of two kinds does. `shares`: of the time of a token, by who works or what is waited for; `binds`: which side limits the rate."""

    ttft_ms: Value
    tpot_ms: Value
    tokens_per_s_per_user: Value
    tokens_per_s_total: Value
    watts: Value
    joules_per_token: Value
    batch: Value
    shares: dict[str, Value]
    binds: str


def prefill_apart(
    shape: ModelShape, prefill: Part, decode: Part, link: Link, work: Workload, numbers: Calibration
) -> Hybrid:
    """Prompts on `prefill`, whose KV cache crosses `link`; tokens on `decode`, which no prompt disturbs.

    A token's rate is the decode side's, or what the prefill side can feed: output_tokens per prompt that it or the link completes. The first
    token comes after prompt, transfer and one decode step.
    """
    first, second = (
        lower(shape, part.machine, part.plan, work.weights, work.kv_bytes, numbers) for part in (prefill, decode)
    )
    prompt, output = np.asarray(work.prompt_tokens, float), np.asarray(work.output_tokens, float)
    room = largest_batch(second, decode.machine, prompt + 0.6 * output, numbers.fixed.memory_usable)
    batch = np.clip(work.concurrency / decode.plan.data, 1.0, np.maximum(room, 1.0))
    asked = pass_seconds(first, Batch(prompt, 1.0, prompt, 1.0))
    running = np.maximum(batch / decode.plan.pipeline, 1.0)
    step = pass_seconds(second, Batch(running, running, prompt + output / 2, running))
    crossing = link.latency_us * 1e-6 + kv_bytes_per_sequence(first, prompt) / (link.gb_per_s * 1e9)
    own = decode.plan.data * batch / total(step)
    fed = output * np.minimum(prefill.plan.data / total(asked), 1.0 / crossing)
    rate = np.minimum(own, fed) * np.where(room >= 1.0, 1.0, np.nan)
    tpot = decode.plan.data * batch / rate
    busy = np.minimum(rate / output * total(asked) / prefill.plan.data, 1.0)
    drawn = watts(decode.machine.watts, decode.plan.chips, step, numbers.fixed) + _drawn(prefill, asked, busy, numbers)
    shares = {"decode": total(step), "waiting for prompts": tpot - total(step)}
    binds = "decode" if float(np.mean(own)) <= float(np.mean(fed)) else "prefill"
    return _hybrid(total(asked) + crossing + total(step), tpot, rate, drawn, decode.plan.data * batch, shares, binds)


def attention_apart(
    shape: ModelShape, attention: Part, feed_forward: Part, link: Link, work: Workload, numbers: Calibration
) -> Hybrid:
    """In every layer, attention and KV cache on one kind, feed-forward and head on the other; activations cross the link both ways.

    Two halves of the batch take turns, so that both kinds work: a step takes the longer side twice, or once all of it where that is longer.
    """
    whole = [
        lower(shape, part.machine, part.plan, work.weights, work.kv_bytes, numbers)
        for part in (attention, feed_forward)
    ]
    upper, lower_ = _attention_side(whole[0]), _feed_forward_side(whole[1])
    prompt, output = np.asarray(work.prompt_tokens, float), np.asarray(work.output_tokens, float)
    room = largest_batch(upper, attention.machine, prompt + 0.6 * output, numbers.fixed.memory_usable)
    batch = np.clip(np.asarray(work.concurrency, float), 1.0, np.maximum(room, 1.0))
    half = np.maximum(batch / 2, 1.0)
    times = [pass_seconds(side, Batch(half, half, prompt + output / 2, half)) for side in (upper, lower_)]
    seconds = [total(time) for time in times]
    crossing = _crossings(shape, link, half)
    chain = seconds[0] + seconds[1] + crossing
    fits = np.where((room >= 1.0) & (_spare_bytes(lower_, feed_forward, numbers) > 0), 1.0, np.nan)
    tpot = np.where(batch > 1.0, np.maximum(chain, 2.0 * np.maximum(*seconds)), chain) * fits
    alone = [total(pass_seconds(side, Batch(prompt, 1.0, prompt, 1.0))) for side in (upper, lower_)]
    asked = alone[0] + alone[1] + _crossings(shape, link, prompt)
    stages = min(attention.plan.pipeline, feed_forward.plan.pipeline)
    prompts = (batch - 1.0) / output * asked / stages
    step = tpot + prompts
    parts = zip((attention, feed_forward), times, strict=True)
    drawn = sum(_drawn(part, time, np.minimum(2.0 * total(time) / tpot, 1.0), numbers) for part, time in parts)
    sides = {"attention side": seconds[0], "feed-forward side": seconds[1], "crossing": crossing}
    binds = max(sides, key=lambda name: float(np.mean(sides[name])))
    return _hybrid(asked + step, step, batch / step, drawn, batch, sides | {"prompts": prompts}, binds)


def _crossings(shape: ModelShape, link: Link, tokens: Value) -> Value:
    """Seconds that the activations of so many tokens, 16 bits each, are under way: there and back in every layer."""
    return shape.layers * 2.0 * (link.latency_us * 1e-6 + tokens * shape.width * 2.0 / (link.gb_per_s * 1e9))


def _spare_bytes(rates: Rates, part: Part, numbers: Calibration) -> Value:
    """What is left beside the weights."""
    weights = sum(group.bytes for group in rates.layer_weights) + (rates.head.bytes if rates.head else 0.0)
    return part.machine.memory_gb * 1e9 * numbers.fixed.memory_usable * part.plan.chips - weights


def _attention_side(rates: Rates) -> Rates:
    kept = tuple(group for group in rates.layer_weights if group.name == "attention")
    return replace(rates, layer_weights=kept, head=None, layer_s=rates.layer_s / 2)


def _feed_forward_side(rates: Rates) -> Rates:
    kept = tuple(group for group in rates.layer_weights if group.name != "attention")
    return replace(rates, layer_weights=kept, attends=False, layer_s=rates.layer_s / 2)


def _drawn(part: Part, parts: dict[str, Value], busy: Value, numbers: Calibration) -> Value:
    """Of machines that work `busy` of the time and wait otherwise."""
    fixed = numbers.fixed
    idle = part.machine.watts * part.plan.chips * fixed.idle_watts * fixed.server_watts
    return idle + busy * (watts(part.machine.watts, part.plan.chips, parts, fixed) - idle)


def _hybrid(
    first_s: Value, tpot_s: Value, rate: Value, drawn: Value, batch: Value, shares: dict[str, Value], binds: str
) -> Hybrid:
    return Hybrid(first_s * 1e3, tpot_s * 1e3, 1.0 / tpot_s, rate, drawn, drawn / rate, batch, shares, binds)
