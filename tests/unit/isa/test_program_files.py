"""Programs as files, and what follows from a program alone: predictions, counts, profiles."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chips import GRIDS, make_chip, random_chip
from programs import assemble, read
from strategies import random_model, random_tokens
from tapeout.base.errors import BadInput
from tapeout.compiler.pipeline import compile as compile_model
from tapeout.isa.check import check_program
from tapeout.isa.counts import entry_counts
from tapeout.isa.opcodes import Flag, MicroOp, Op
from tapeout.isa.predict import predict
from tapeout.isa.profile import profile
from tapeout.isa.program import BLOCKS, Program, is_program, issue_cycles, load, save, walk
from tapeout.isa.timing import latency, occupancy
from tapeout.sim.engine import ProgramEngine


def program_of(seed: int) -> Program:
    return compile_model(random_model(seed), random_chip(seed))


# --- files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_loading_what_was_saved_gives_the_same_program(seed, tmp_path):
    program = replace(program_of(seed), extra={"source": "nowhere"})
    save(program, tmp_path / "p")
    loaded = load(tmp_path / "p")
    assert loaded.fingerprint() == program.fingerprint()
    assert loaded.extra == program.extra
    assert loaded.chip == program.chip
    save(loaded, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "p").read_bytes()


def test_a_stored_program_runs_with_equal_bits(tmp_path):
    model = random_model(4)
    program = compile_model(model, make_chip(streamed=True))
    save(program, tmp_path / "p")
    ids = random_tokens(1, model, 12)
    want = ProgramEngine(program).step(ids, 0)
    assert ProgramEngine(load(tmp_path / "p")).step(ids, 0).tobytes() == want.tobytes()


def test_compiling_twice_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        save(program_of(2), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_where_the_tokenizer_is_does_not_change_the_fingerprint_but_everything_else_does():
    program = program_of(1)
    assert replace(program, extra={"source": "elsewhere"}).fingerprint() == program.fingerprint()
    ops = program.ops.copy()
    ops["issue"][0] += 1
    image = program.images[0].data.copy()
    image[0] ^= 1
    first = replace(program.images[0], data=image)
    changed = [
        replace(program, ops=ops),
        replace(program, context=program.context - 1),
        replace(program, images=(first, *program.images[1:])),
        replace(program, chip=make_chip("1x1")),
    ]
    assert len({item.fingerprint() for item in (program, *changed)}) == 1 + len(changed)


def message(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        load(path)
    return str(caught.value)


def test_a_foreign_file_is_no_program(tmp_path):
    path = tmp_path / "p"
    wanted = f"{path}: is not a compiled program; make one with tapeout compile MODEL --chip C -o FILE"
    assert message(path) == wanted
    for data in (b"", b"GGUF", b"tapeout program 2\n{}\n"):
        path.write_bytes(data)
        assert message(path) == wanted
        assert not is_program(path)
    assert not is_program(tmp_path)


def test_a_file_cut_short_is_refused_wherever_it_is_cut(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    save(program_of(3), whole)
    data = whole.read_bytes()
    newline = data.index(b"\n", 20)
    for size in (18, 19, 100, newline, newline + 1, newline + 200, len(data) // 2, len(data) - 64):
        cut.write_bytes(data[:size])
        assert message(cut).startswith(f"{cut}: ")
        assert message(cut).endswith("; compile it again")
    cut.write_bytes(data[: newline + 200])
    assert message(cut).startswith(f"{cut}: ends after {newline + 200:,} bytes; its header promises ")


def test_a_damaged_header_is_refused(tmp_path):
    path = tmp_path / "p"
    save(program_of(3), path)
    data = path.read_bytes()
    for old, new in ((b'"model"', b'"modus"'), (b'"entries": [', b'"entries": {'), (b'"sizes": [', b'"sizes": [-')):
        assert old in data
        path.write_bytes(data.replace(old, new, 1))
        assert message(path).endswith("; compile it again")


# --- what follows from a program --------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(25))
def test_the_checker_accepts_what_the_compiler_emits(seed):
    check_program(compile_model(random_model(seed), random_chip(500 + seed)))


@pytest.mark.parametrize("grid", GRIDS)
def test_the_checker_accepts_a_cache_in_external_memory(grid):
    model = random_model(23, layers=5, width=64, hidden=96, heads=4, kv_heads=2, head_dim=32, context=256)
    program = compile_model(model, make_chip(grid, streamed=True, tile__sram__kib="96", tile__sram__banks="32"))
    assert any(region.name == "kv" for region in program.external)
    check_program(program)


def seeded(repeat: int = 1, count: int = 1) -> Program:
    """Loads a vector and multiplies it with a streamed row block."""
    block = 8 * (1 + 2 * 34)
    ops = [
        MicroOp(Op.OPERAND, a=0x4000, s0=68, tokens=1, columns=64),
        MicroOp(Op.MATMUL, issue=8, dst=0x6000, rows=8, columns=64, tokens=1, flags=Flag.STREAM, s4=block),
    ]
    return assemble(ops, descriptors=[read(block)], repeat=repeat, count=count)


def test_one_run_of_a_segment_is_counted_by_hand():
    program = seeded()
    block, beats = 552, 552
    assert entry_counts(program, program.entry("token"), 0) == {
        "micro_ops": 2,
        "macs_int8": 8 * 64,
        "group_terms": 8 * 2,
        "operand_bytes": 68 + 68,
        "sram_read_bytes": 68 + block,
        "sram_write_bytes": 32 + beats,
        "external_read_bytes": block,
        "stream_bytes": block,
    }


@pytest.mark.parametrize("how", [{"repeat": 2}, {"count": 2}])
def test_twice_the_runs_make_twice_the_counts_and_cycles(how):
    once, twice = seeded(), seeded(**how)
    single, double = (entry_counts(program, program.entry("token"), 0) for program in (once, twice))
    assert double == {name: 2 * count for name, count in single.items()}
    entries = once.entry("token"), twice.entry("token")
    assert issue_cycles(twice, entries[1], 0) == 2 * issue_cycles(once, entries[0], 0)
    causes, doubled = profile(once, entries[0], 0), profile(twice, entries[1], 0)
    assert doubled == {cause: 2 * cycles for cause, cycles in causes.items()}


def test_a_step_of_a_compiled_program_counts_the_multiplications_of_its_model():
    """Widths that are whole groups, rows and tiles leave no padding: MACs are the parameters of the matrices."""
    model = random_model(
        7, format="int8", layers=2, width=128, hidden=256, heads=8, kv_heads=4, head_dim=32, vocabulary=128, tied=False
    )
    program = compile_model(model, make_chip("2x2"))
    matrices = sum(kind.parameters for kind in model.graph.weights if len(kind.shape) == 2 and kind.name != "embed")
    counts = entry_counts(program, program.entry("token_head"), 0)
    assert counts["macs_int8"] == matrices
    assert counts["macs_int4"] == counts["macs_ternary"] == 0


@pytest.mark.parametrize("seed", range(6))
def test_a_profile_gives_every_cycle_to_one_cause(seed):
    program = program_of(seed)
    for entry in program.entries:
        for position in (0, program.context - 1):
            assert sum(profile(program, entry, position).values()) == issue_cycles(program, entry, position)


@pytest.mark.parametrize("position", [0, 1, 8, 9, 16, 17, 33])
def test_every_block_of_the_cache_but_the_first_has_its_turn(position):
    program = compile_model(random_model(5), make_chip())
    turns = [
        segment.block(k)
        for segment, i, k in walk(program, program.entry("token"), position)
        if segment.name == "score blocks" and i == 0
    ]
    assert turns == list(range(1, -(-position // 8)))


def test_a_context_of_one_block_has_no_segments_for_more():
    program = compile_model(random_model(5), make_chip(), context=8)
    assert not [s for entry in program.entries for loop in entry.loops for s in loop.segments if s.repeat == BLOCKS]


def test_a_profile_tells_work_from_results_in_flight_and_from_nothing():
    op = MicroOp(Op.QUANT, a=0x2000, dst=0x4000, columns=64, group=32, tokens=1)
    program = assemble([op], cycles=100)
    busy, done = occupancy(op, program.chip), latency(op, program.chip)
    assert profile(program, program.entry("token"), 0) == {
        "vector quant": busy, "vector quant pipeline": done - busy, "segment's end": 100 - done
    }  # fmt: skip


def test_a_step_takes_longer_with_every_block_in_the_cache_but_the_first():
    program = compile_model(random_model(5), make_chip())
    entry = program.entry("token_head")
    walls = [predict(program, entry, position).wall for position in (0, 1, 8, 9, 16, 17)]
    assert walls[0] == walls[1] == walls[2] < walls[3] == walls[4] < walls[5]


def test_what_is_held_is_held_by_somebody():
    program = compile_model(random_model(5), make_chip(streamed=True, external__gb_per_s="1"))
    time = predict(program, program.entry("token_head"), 3)
    assert time.held > 0
    assert sum(time.held_by_op.values()) == time.held
    for op in time.held_by_op:
        assert op == -1 or program.ops["flags"][op] & int(Flag.STREAM)


def test_nothing_is_held_where_nothing_is_streamed():
    program = compile_model(random_model(5), make_chip())
    time = predict(program, program.entry("token_head"), 3)
    assert (time.held, time.held_by_op) == (0, {})
    assert time.wall == issue_cycles(program, program.entry("token_head"), 3)


def test_descriptors_name_the_micro_op_that_they_are_for():
    program = compile_model(random_model(5), make_chip(streamed=True))
    for descriptor in program.descriptors:
        op = program.op(int(descriptor["op"]))
        assert op.flags & Flag.STREAM
        assert int(descriptor["mask"]) >> op.tile & 1
    assert np.count_nonzero(program.descriptors["reserved"]) == 0
