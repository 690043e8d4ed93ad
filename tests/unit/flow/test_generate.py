"""The one generation loop, with an engine that is a table."""

import hashlib

import numpy as np
import pytest

from tapeout.base.errors import BadInput
from tapeout.flow.generate import choose, generate


class Table:
    """Says `script` token by token, whatever it is asked."""

    context = 10

    def __init__(self, script):
        self.script, self.calls = script, []

    def step(self, token_ids, position, every=False):
        self.calls.append((tuple(token_ids), position))
        logits = np.zeros(8, np.float32)
        logits[self.script[len(self.calls) - 1]] = 1.0
        return logits


def test_the_prompt_goes_in_at_once_and_then_token_by_token():
    engine = Table([3, 4, 5])
    assert generate(engine, [1, 2], 3).token_ids == (3, 4, 5)
    assert engine.calls == [((1, 2), 0), ((3,), 2), ((4,), 3)]


def test_an_end_token_ends_and_is_counted():
    assert generate(Table([3, 6, 5]), [1], 3, frozenset({6})).token_ids == (3, 6)


def test_the_hash_is_over_the_little_endian_logits_in_order():
    wanted = hashlib.sha256()
    for token in (3, 4):
        logits = np.zeros(8, "<f4")
        logits[token] = 1
        wanted.update(logits.tobytes())
    assert generate(Table([3, 4]), [1], 2).logits_sha256 == wanted.hexdigest()


def test_ties_go_to_the_smallest_id():
    assert choose(np.array([0.0, 2.0, 2.0], np.float32), 0.0, np.random.default_rng(0)) == 1


def test_sampling_repeats_with_its_seed():
    logits = np.arange(8, dtype=np.float32)
    draws = [[choose(logits, 1.0, np.random.default_rng(seed)) for _ in range(3)] for seed in (5, 5)]
    assert draws[0] == draws[1]


def test_a_text_longer_than_the_context_is_refused():
    with pytest.raises(BadInput, match="2 of the prompt and 9 more do not fit a context of 10"):
        generate(Table([0]), [1, 2], 9)
