"""The attention unit in Amaranth's simulator: bytes, cycles and windows against the simulator's functions and the timing of the isa."""

import numpy as np
import pytest

pytest.importorskip("amaranth")

from attention_ops import PIPES, Maker, latency, layer, simulated
from bench import Bench

from chips import make_chip
from tapeout.isa import timing
from tapeout.isa.opcodes import Op, Unit
from tapeout.isa.timing import occupancy
from tapeout.rtl.attention_unit import AttentionUnit


class LayerBench(Bench):
    """Takes each micro-op's inner iteration j from its step."""

    def play(self, maker, chip):
        self.at = {id(op): j for _, op, j in maker.steps}
        end = max(cycle + latency(op, chip) for cycle, op, _ in maker.steps)
        self.run([(cycle, op) for cycle, op, _ in maker.steps], end + 4)

    def _issue(self, ctx, op):
        self.inner = self.at[id(op)]
        super()._issue(ctx, op)


def make(keys, lanes, queries=64):
    sizes = {"keys": keys, "lanes": lanes, "queries": queries}
    return make_chip("1x1", **{f"tile__attention__{name}": str(size) for name, size in sizes.items()})


def played(chip, maker, dim):
    """The bench after the steps; bytes and cycles compared."""
    expected, fine = simulated(maker, chip.tile.attention.queries, dim)
    memory, stream = bytearray(maker.memory.tobytes()), bytearray(maker.stream.tobytes())
    bench = LayerBench(AttentionUnit(chip, gated=False), Unit.ATTENTION, memory, stream, maker.position)
    bench.play(maker, chip)
    assert bench.overflow == (not fine)
    if fine:
        wrong = np.flatnonzero(np.frombuffer(bytes(bench.memory), np.uint8) != expected)
        assert not wrong.size, (
            f"{wrong.size} bytes differ, first at {wrong[:8]}: {[str(op) for _, op, _ in maker.steps]}"
        )
    assert sorted(bench.done) == sorted((op.op.name.lower(), cycle + latency(op, chip)) for cycle, op, _ in maker.steps)
    return bench


def check_windows(bench, maker, chip):
    """Reads while the unit is busy with it, writes in as many cycles before its end, all inside its operands."""
    spans = {"kv": "b", "scores": "a", "q": "a"}
    for port, cycle, first, _ in bench.reads:
        cycle_of, op = next((c, op) for c, op, _ in reversed(maker.steps) if c <= cycle)
        assert cycle < cycle_of + occupancy(op, chip), f"{port} read behind {op}"
        assert first + 2 >= getattr(op, spans[port])
    ours = {"scores_out": Op.SCORE, "out": Op.ATTNOUT}
    for port, cycle, first, size in bench.writes:
        steps = [(c, op) for c, op, _ in maker.steps if op.op is ours[port]]
        starts = [(c + latency(op, chip) - occupancy(op, chip), c + latency(op, chip), op) for c, op in steps]
        op = next(op for start, end, op in starts if start <= cycle < end)
        last = op.dst + (op.slot + op.heads * op.tokens) * op.s2 if op.op is Op.SCORE else op.dst + op.tokens * op.s1
        assert op.dst <= first <= last - size, f"{port} wrote {first:#x} in {op}"


def test_the_pipes_are_those_of_the_isa():
    assert PIPES == {Op.SCORE: timing.SCORE_PIPE, Op.VALUE: timing.VALUE_PIPE, Op.ATTNOUT: timing.ATTNOUT_PIPE}


def random_layers(chip, rng, wild=False):
    """Two layers of one shape on the same query states, and their width; `wild`: exponents of all sizes."""
    lanes = chip.tile.attention.lanes
    dim = lanes if rng.random() < 0.4 else 2 * int(rng.integers(1, lanes // 2 + 1))
    blocks, block, tokens = int(rng.integers(0, 4)), int(rng.integers(1, 12)), int(rng.integers(1, 5))
    maker = Maker(chip, rng, int(rng.integers(0, blocks * block + 3)), wild=wild)
    for leave in (bool(rng.integers(0, 2)), True):
        kv_heads, heads, streamed = (int(x) for x in rng.integers((1, 1, 0), (4, 4, 2)))
        layer(maker, kv_heads, heads, tokens, dim, blocks, block, bool(streamed), leave)
    return maker, dim


@pytest.mark.parametrize(("keys", "lanes"), [(1, 8), (2, 32), (3, 16), (4, 16), (6, 8)])
@pytest.mark.parametrize("seed", range(2))
def test_layers_of_random_shapes_agree_with_the_simulator(keys, lanes, seed):
    chip = make(keys, lanes)
    maker, dim = random_layers(chip, np.random.default_rng([keys, lanes, seed]), wild=seed == 1)
    check_windows(played(chip, maker, dim), maker, chip)


def test_a_score_that_is_too_large_is_reported():
    chip, rng = make(2, 8), np.random.default_rng(5)
    maker = Maker(chip, rng, 0, constant=3e38)
    layer(maker, 1, 1, 2, 8, 0, 1)
    assert played(chip, maker, 8).overflow


@pytest.mark.slow
@pytest.mark.parametrize(("keys", "lanes"), [(2, 32), (3, 16), (4, 8)])
def test_many_layers_agree_with_the_simulator_when_verilated(keys, lanes):
    verilated = pytest.importorskip("verilated_attention")
    chip = make(keys, lanes, queries=200)
    for seed in range(200):
        maker, dim = random_layers(chip, np.random.default_rng([keys, lanes, seed]), wild=seed % 3 == 2)
        expected, fine = simulated(maker, 200, dim)
        end = max(cycle + latency(op, chip) for cycle, op, _ in maker.steps)
        memory, done, overflow = verilated.play(chip, maker, end + 4)
        assert overflow == (not fine), f"seed {seed}"
        assert not fine or np.array_equal(memory, expected), f"seed {seed}: {np.flatnonzero(memory != expected)[:8]}"
        assert sorted(done) == sorted((op.op.name.lower(), cycle + latency(op, chip)) for cycle, op, _ in maker.steps)
