"""Pruned weights: which share of bytes and of the matrix unit's steps is left."""

import numpy as np
import pytest

from tapeout.base.errors import BadInput
from tapeout.chip.catalogue import datasheet
from tapeout.chip.lowering import machine_of
from tapeout.estimate.calibration import calibration
from tapeout.estimate.estimate import estimate
from tapeout.estimate.rates import lower
from tapeout.estimate.sparsity import GROUP, byte_share, thin, work_share
from tapeout.estimate.workload import Plan, Workload
from tapeout.graph.shapes import load_shape


@pytest.mark.parametrize("block", [32, 64, 128])
def test_blocks_as_large_as_a_step_skip_as_many_steps_as_they_drop(block):
    assert work_share(0.3, block, 32) == pytest.approx(0.3)


def test_work_is_that_of_random_blocks():
    rng, rows, block, density = np.random.default_rng(1), 32, 8, 0.1
    kept = rng.random((2000, rows // block, GROUP // block)) < density
    assert work_share(density, block, rows) == pytest.approx(kept.any(axis=(1, 2)).mean(), abs=0.02)


def test_single_weights_leave_all_the_work():
    assert work_share(0.5, 1, 32) == pytest.approx(1.0)


def test_work_falls_with_density_and_grows_with_finer_blocks():
    shares = [float(work_share(0.5, block, 64)) for block in (64, 32, 16, 1)]
    assert shares == sorted(shares)
    assert work_share(0.2, 16, 64) < work_share(0.8, 16, 64)


def test_bytes_carry_a_bit_per_block_and_are_never_more_than_dense():
    assert byte_share(0.5, 1, 0.5625) == pytest.approx(0.5 + 0.125 / 0.5625)
    assert byte_share(0.95, 1, 0.5625) == 1.0
    assert byte_share(0.5, 64, 0.5625) == pytest.approx(0.5, rel=1e-3)


def _made(**sparse: float):
    machine = machine_of(datasheet("nvidia_h100_sxm"), "external")
    return estimate(load_shape("llama-3.1-8b"), machine, Workload(64.0, weights="int4", **sparse), Plan())


def test_density_one_changes_nothing():
    machine = machine_of(datasheet("nvidia_h100_sxm"), "external")
    rates = lower(load_shape("llama-3.1-8b"), machine, Plan(), "int4", None, calibration())
    assert thin(rates, machine.rows, 1.0, 32.0) is rates
    assert _made() == _made(density=1.0, block=32.0)


def test_pruned_in_large_blocks_is_quicker_than_one_by_one_and_that_than_dense():
    dense, single, blocks = _made(), _made(density=0.5), _made(density=0.5, block=64.0)
    assert blocks.tpot_ms < single.tpot_ms < dense.tpot_ms
    assert blocks.ttft_ms < single.ttft_ms
    assert single.prefill["compute"] == pytest.approx(dense.prefill["compute"])
    assert blocks.largest_batch > dense.largest_batch


@pytest.mark.parametrize(
    ("sparse", "message"),
    [
        ({"density": 0.0}, "--density: 0; the share of the weights that is left, above 0 and at most 1"),
        ({"density": 0.5, "block": 0.0}, "--sparse-block: 0; 1 (single weights) or more"),
    ],
)
def test_what_is_no_density_is_refused(sparse, message):
    with pytest.raises(BadInput) as error:
        _made(**sparse)
    assert str(error.value) == message
