"""A closed loop of requests on one replica: how many fit, how decode and the others' prefills share the chips, how long the first token takes."""

from dataclasses import dataclass

import numpy as np

from tapeout.chip.machine import Machine, Value
from tapeout.estimate.calibration import Calibration
from tapeout.estimate.forward import Batch, kv_bytes_per_sequence, pass_seconds, total
from tapeout.estimate.rates import Rates
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
    batch = np.minimum(work.concurrency, largest)
    joining = np.clip(batch / output, 1.0, np.maximum(fixed.prefill_tokens / prompt, 1.0))
    alone = pass_seconds(rates, Batch(prompt, 1.0, prompt, 1.0))
    together = total(pass_seconds(rates, Batch(prompt * joining, joining, prompt, joining))) / joining
    stages = rates.plan.pipeline
    running = np.maximum(batch / stages, 1.0)
    decode = pass_seconds(rates, Batch(running, running, prompt + output / 2, running))
    met = 0.5 if work.recipe == "one_wave" else 1.0
    interference = met * (batch - 1.0) / output * together / stages
    tpot = total(decode) + interference
    waiting = np.maximum(work.concurrency - batch, 0.0) / batch * output * tpot
    return Serving(
        _first_token(total(alone), tpot, work, shared) + waiting, tpot, alone, decode, interference, batch, largest
    )


def _first_token(prefill_s: Value, tpot_s: Value, work: Workload, shared) -> Value:
    open_ = np.asarray(work.concurrency, float)
    if work.recipe == "one_wave":
        return prefill_s * (1.0 + 0.5 * (open_ - 1.0))
    return prefill_s * (1.0 + shared.queue_prefills * np.sqrt(open_)) + shared.first_token_steps * tpot_s


def largest_batch(rates: Rates, machine: Machine, context: Value, usable: float) -> Value:
    """Sequences whose KV cache fits beside the weights; may be less than 1."""
    plan = rates.plan
    weights = sum(group.bytes for group in rates.layer_weights) + rates.head.bytes
    if not rates.shape.tied:
        weights += rates.shape.embedding_parameters * rates.head.bytes_per_weight
    room = machine.memory_gb * 1e9 * usable * plan.tensor * plan.pipeline - weights
    return room / kv_bytes_per_sequence(rates, context)
