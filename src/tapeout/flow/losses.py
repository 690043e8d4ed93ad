"""Losses of engines on a text, token by token beside a reference's on the same tokens; and how sure their means are."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tapeout.base.engine import Engine
from tapeout.flow.texts import Window

F64 = NDArray[np.float64]

LOGITS = 1 << 23
"""Logits of one engine held at once, about: a window goes through in slices."""
SLICE = 128
"""Tokens of a slice, where the vocabulary lets so many be held."""
BLOCK = 32
"""Tokens of a block, the unit of resampling."""
LEAST_BLOCKS = 16
"""A text of fewer blocks gets shorter ones."""
RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Losses:
    """An engine on a text. loss: -log p of each scored token; kl: KL(reference || engine) of each prediction; both in nats."""

    loss: F64
    kl: F64
    tokens_per_s: float
    """Tokens run per second of this machine."""


def log_softmax(logits: NDArray[np.float32]) -> F64:
    """Log-probabilities of rows of logits."""
    below = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return below - np.log(np.exp(below).sum(axis=1, keepdims=True))


def score(
    reference: Engine,
    engines: Mapping[str, Engine],
    ids: Sequence[int],
    windows: Sequence[Window],
    vocabulary: int,
    on_window: Callable[[int, Mapping[str, float]], None] = lambda done, losses: None,
) -> tuple[F64, dict[str, Losses]]:
    """The reference's loss of each scored token, and each engine's `Losses`; all see a slice before the next is begun.

    on_window: called after each window with how many are done and each engine's mean loss so far, the reference's under "float".
    """
    base: list[F64] = []
    loss: dict[str, list[F64]] = {name: [] for name in engines}
    kl: dict[str, list[F64]] = {name: [] for name in engines}
    seconds = dict.fromkeys(engines, 0.0)
    for done, window in enumerate(windows, 1):
        for start, end in _slices(window, vocabulary):
            exact = log_softmax(_logits(reference, ids, window, start, end))
            at = np.arange(end - start), np.asarray(ids[start + 1 : end + 1])
            base.append(-exact[at])
            for name, engine in engines.items():
                begun = time.perf_counter()
                logits = _logits(engine, ids, window, start, end)
                seconds[name] += time.perf_counter() - begun
                found = log_softmax(logits)
                loss[name].append(-found[at])
                kl[name].append((np.exp(exact) * (exact - found)).sum(axis=1))
        on_window(done, {"float": _mean(base), **{name: _mean(loss[name]) for name in engines}})
    run = sum(window.end - window.start - 1 for window in windows)
    return np.concatenate(base), {
        name: Losses(np.concatenate(loss[name]), np.concatenate(kl[name]), run / max(seconds[name], 1e-9))
        for name in engines
    }


def _slices(window: Window, vocabulary: int) -> Iterator[tuple[int, int]]:
    """Tokens `start` to `end` that predict the window's scored ones, some at a time."""
    width = max(16, min(SLICE, LOGITS // vocabulary))
    for start in range(window.first - 1, window.end - 1, width):
        yield start, min(start + width, window.end - 1)


def _logits(engine: Engine, ids: Sequence[int], window: Window, start: int, end: int) -> NDArray[np.float32]:
    """Of tokens `start` to `end`; what stands before them in the window has been run, or is now."""
    if start == window.first - 1 and start > window.start:
        engine.step(ids[window.start : start], 0)
    return engine.step(ids[start:end], start - window.start, every=True)


def _mean(parts: list[F64]) -> float:
    return float(sum(part.sum() for part in parts) / sum(part.size for part in parts))


def interval(differences: F64, seed: int) -> tuple[float, float]:
    """Where the mean lies by `LEVEL`: a bootstrap over blocks of `BLOCK` neighbouring tokens, since neighbours are alike.

    Differences are paired: of two losses of one token. Few windows would be too few to draw from; their blocks are enough.
    """
    size = max(1, min(BLOCK, differences.size // LEAST_BLOCKS))
    starts = np.arange(0, differences.size, size)
    sums, sizes = np.add.reduceat(differences, starts), np.diff(starts, append=differences.size)
    generator = np.random.default_rng(seed)
    draws = (generator.integers(0, starts.size, starts.size) for _ in range(RESAMPLES))
    means = [float(sums[drawn].sum() / sizes[drawn].sum()) for drawn in draws]
    low, high = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)
