"""The one generation loop: any Engine, greedy or sampled, one token at a time."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapeout.base.engine import Engine
from tapeout.base.errors import BadInput


@dataclass(frozen=True, slots=True)
class Generation:
    """What was said. `logits_sha256` is over the little-endian binary32 logits that each token was chosen from, in order."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logits_sha256: str
    host_seconds: float
    """Wall seconds that this machine took for the prompt and the tokens."""
    host_decode_seconds: float
    """The part spent after the first token."""


def generate(
    engine: Engine,
    prompt_ids: Sequence[int],
    tokens: int,
    end_ids: frozenset[int] = frozenset(),
    temperature: float = 0.0,
    seed: int = 0,
    on_token: Callable[[int], None] = lambda token: None,
) -> Generation:
    """Run the prompt, then up to `tokens` tokens; stops at an end-of-text token (which is counted).

    Temperature 0 is greedy: the greatest logit, ties to the smallest id. Raises `BadInput` where the context is too short.
    """
    if not prompt_ids:
        raise BadInput("prompt", "is empty and the model has no begin-of-text token", "give --prompt")
    if len(prompt_ids) + tokens > engine.context:
        raise BadInput(
            "tokens", f"{len(prompt_ids)} of the prompt and {tokens} more do not fit a context of {engine.context}"
        )
    generator = np.random.default_rng(seed)
    digest, made = hashlib.sha256(), []
    start = first = time.perf_counter()
    ids, position = list(prompt_ids), 0
    while len(made) < tokens:
        logits = engine.step(ids, position)
        digest.update(np.ascontiguousarray(logits, "<f4").tobytes())
        token = choose(logits, temperature, generator)
        made.append(token)
        if len(made) == 1:
            first = time.perf_counter()
        on_token(token)
        if token in end_ids:
            break
        position += len(ids)
        ids = [token]
    end = time.perf_counter()
    return Generation(tuple(prompt_ids), tuple(made), digest.hexdigest(), end - start, end - first)


def choose(logits: NDArray[np.float32], temperature: float, generator: np.random.Generator) -> int:
    """The greatest logit at temperature 0 (ties to the smallest id), else a draw from softmax(logits / temperature)."""
    if temperature == 0:
        return int(np.argmax(logits))
    below = logits.astype(np.float64) - logits.max()
    with np.errstate(over="ignore"):
        weights = np.exp(below / temperature)
    return int(generator.choice(weights.size, p=weights / weights.sum()))
