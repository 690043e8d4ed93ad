"""What a person reads when a model does not fit a chip: by how much, and what would help. Exact lines."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from chips import make_chip
from strategies import random_model
from tapeout.base.errors import BadInput
from tapeout.compiler.pipeline import compile as compile_model
from tapeout.graph.types import Model
from tapeout.isa.check import check_program

SMALL = {"tile__sram__kib": "96", "tile__sram__banks": "32"}


def model() -> Model:
    return random_model(23, layers=5, width=64, hidden=96, heads=4, kv_heads=2, head_dim=32, context=256, format="int8")


def without_op(made: Model, at: int) -> Model:
    graph = made.graph
    return replace(made, graph=replace(graph, ops=graph.ops[:at] + graph.ops[at + 1 :]))


CASES: dict[str, tuple[Callable[[], object], str]] = {
    "weights that do not fit": (
        lambda: compile_model(model(), make_chip("1x1", tile__sram__kib="64")),
        "chip bench, tile.sram: random with 256 positions needs 430.0 KiB per tile of 64: 366.0 KiB too much "
        "(largest: weights0 228.4 KiB, kv 175.7 KiB, head 6.5 KiB); try fewer bits (--weights int4), or a shorter "
        "--context than 256, or tile.sram.kib of 512 or more",
    ),
    "activations that do not fit": (
        lambda: compile_model(model(), make_chip("1x1", True, tile__sram__kib="8", tile__sram__banks="8")),
        "chip bench, tile.sram: random with 256 positions needs 11.2 KiB per tile of 8: 3.2 KiB too much (largest: "
        "scores 4.0 KiB, o 0.5 KiB, q 0.5 KiB); try a shorter --context than 256, or tile.sram.kib of 16 or more",
    ),
    "fewer banks than groups of buffers": (
        lambda: compile_model(model(), make_chip("1x1", True, tile__sram__kib="8", tile__sram__banks="4")),
        "chip bench, tile.sram: random with 256 positions needs 14.2 KiB per tile of 8: 6.2 KiB too much (largest: "
        "scores 4.0 KiB, o 0.5 KiB, q 0.5 KiB); try a shorter --context than 256, or tile.sram.banks of 6 or more",
    ),
    "a stream buffer too small for row blocks": (
        lambda: compile_model(model(), make_chip("1x1", True, tile__stream_kib="4")),
        "chip bench, tile.stream_kib: 4 KiB hold no 4 row blocks of 1,120 bytes (o, 128 columns, int8); "
        "use 5 or more, or fewer tile.matrix.rows",
    ),
    "query states": (
        lambda: compile_model(model(), make_chip("1x1", tile__attention__queries="3")),
        "chip bench: is too small for random, attention: 16 query states of 3 (tile.attention.queries)",
    ),
    "an operand buffer": (
        lambda: compile_model(model(), make_chip("1x1", tile__matrix__operand_kib="1"), chunk=8),
        "chip bench: is too small for random, operand buffer: 1,088 bytes of 1 KiB (tile.matrix.operand_kib)",
    ),
    "a write buffer": (
        lambda: compile_model(model(), make_chip("1x1", True, external__write_buffer_kib="1", **SMALL), chunk=8),
        "chip bench: is too small for random, write buffer: 1,120 bytes of 1 KiB (external.write_buffer_kib)",
    ),
    "external memory": (
        lambda: compile_model(model(), make_chip("1x1", True, external__capacity_gib="0.0001")),
        "chip bench, external.capacity_gib: random with 256 positions needs 0.00 GiB of 0.0001",
    ),
    "instruction memory": (
        lambda: check_program(compile_model(model(), make_chip("1x1", tile__micro_ops="40"))),
        "chip bench, tile.micro_ops: tile 0 needs 40 micro-ops for its attention unit of 10: 30 too many; use tile.micro_ops "
        "of 160 or more, or a shorter prefill chunk",
    ),
    "a format that the chip lacks": (
        lambda: compile_model(model(), make_chip("1x1", tile__matrix__formats="[int4, ternary]")),
        "weight embed: int8 is no format of chip bench's matrix unit; it takes int4, ternary; --set "
        "tile.matrix.formats=[int4,ternary,int8] makes one that does",
    ),
    "no context": (
        lambda: compile_model(model(), make_chip("1x1"), context=0),
        "context: 0 positions; random takes 1 to 256",
    ),
    "too much context": (
        lambda: compile_model(model(), make_chip("1x1"), context=257),
        "context: 257 positions; random takes 1 to 256",
    ),
    "a chunk that is none": (
        lambda: compile_model(model(), make_chip("1x1"), chunk=5),
        "chunk: 5 tokens; chip bench takes 1, 2, 4, 8",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_says_so(case):
    make, wanted = CASES[case]
    with pytest.raises(BadInput) as caught:
        make()
    assert str(caught.value) == wanted


def test_what_is_said_to_help_helps():
    """The SRAM size named in the message is enough, and the next smaller is not."""
    for kib in ("64", "448", "480"):
        with pytest.raises(BadInput, match=r"tile\.sram\.kib of 512 or more"):
            compile_model(model(), make_chip("1x1", tile__sram__kib=kib))
    compile_model(model(), make_chip("1x1", tile__sram__kib="512"))


def test_a_shorter_chunk_is_taken_where_a_long_one_does_not_fit():
    assert compile_model(model(), make_chip("1x1")).chunk == 8
    assert compile_model(model(), make_chip("1x1", tile__matrix__operand_kib="1")).chunk == 4
    assert compile_model(model(), make_chip("1x1", True, external__write_buffer_kib="1", **SMALL)).chunk == 4
    assert compile_model(model(), make_chip("1x1", tile__attention__queries="4")).chunk == 1


def test_a_graph_that_is_no_decoder_is_refused_by_the_op():
    made = random_model(2, layers=1)
    with pytest.raises(BadInput):
        compile_model(without_op(made, 3), make_chip("1x1"))
