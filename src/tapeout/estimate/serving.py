"""A closed loop of requests on one replica: how many fit, how decode and the others' prefills share the chips, how long the first token takes."""

from dataclasses import dataclass

import numpy as np

from tapeout.chip.machine import Machine, Value
from tapeout.estimate.calibration import Calibration
from tapeout.estimate.forward import Batch, kv_bytes_per_sequence, pass_seconds, total
from tapeout.estimate.rates import Rates
from tapeout.estimate.recipes import recipe
from tapeout.estimate.workload import Workload


@dataclass(frozen=True, slots=True)
class Serving:
    """Of one replica. Seconds per token and to the first; causes of a decode step and of a prefill; requests decoding at once."""

    ttft_s: Value
    tpot_s: Value
    prefill: dict[str, Value]
    decode: dict[str, Value]
    interference_s: Value
    """Of every output token's time, what the prefills of other requests take."""
    batch: Value
    """Requests that decode at once: fewer than are open where the KV cache is full."""
    largest_batch: Value


def serve(rates: Rates, machine: Machine, work: Workload, numbers: Calibration) -> Serving:
    """Steady state of a closed loop.

    Every output token of one request sees (B-1)/output_tokens prefills of others: each of them is replaced once in a lifetime. Where the KV
    cache holds fewer than are open, the rest wait, by Little's law, (open - B)/B lifetimes.
    """
    shared, fixed = numbers.shared, numbers.fixed
    prompt, output = np.asarray(work.prompt_tokens, float), np.asarray(work.output_tokens, float)
    largest = largest_batch(rates, machine, prompt + 0.6 * output, fixed.memory_usable)
    batch = np.clip(np.minimum(work.concurrency, fixed.most_sequences), 1.0, np.maximum(largest, 1.0))
    joining = np.clip(batch / output, 1.0, np.maximum(fixed.prefill_tokens / prompt, 1.0))
    alone = pass_seconds(rates, Batch(prompt, 1.0, prompt, 1.0))
    together = total(pass_seconds(rates, Batch(prompt * joining, joining, prompt, joining))) / joining
    stages = rates.plan.pipeline
    running = np.maximum(batch / stages, 1.0)
    context = prompt + output / 2 if work.slot_tokens is None else work.slot_tokens
    decode = pass_seconds(rates, Batch(running, running, context, running))
    how = recipe(work.recipe)
    interference = how.interference * (batch - 1.0) / output * together / stages
    tpot = total(decode) + interference
    waiting = np.maximum(work.concurrency - batch, 0.0) / batch * output * tpot
    queue = how.root_queue * shared.queue_prefills * np.sqrt(batch) + how.linear_queue * (batch - 1.0)
    ttft = total(alone) * (1.0 + queue) + (how.stream * shared.first_token_steps + how.steps) * tpot
    return Serving(
        np.where(np.isfinite(waiting), ttft + waiting, ttft), tpot, alone, decode, interference, batch, largest
    )


def largest_batch(rates: Rates, machine: Machine, context: Value, usable: float) -> Value:
    """Sequences whose KV cache fits beside the weights, or into the SRAM of a chip that has these in silicon; may be less than 1."""
    plan, head = rates.plan, rates.head
    weights = sum(group.bytes for group in rates.layer_weights)
    if rates.hardwired:
        weights = np.where(rates.shape.parameters > machine.rom_weights * plan.tensor * plan.pipeline, np.inf, 0.0)
    elif head:
        table = 0 if rates.shape.tied else rates.shape.embedding_parameters
        weights += head.bytes + table * head.bytes_per_weight
    room = machine.memory_gb * 1e9 * usable * plan.tensor * plan.pipeline - weights
    return room / kv_bytes_per_sequence(rates, context)
