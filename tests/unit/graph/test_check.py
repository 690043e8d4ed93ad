"""What the checkers accept, and the exact line for what they refuse."""

from dataclasses import replace

import numpy as np
import pytest

from strategies import random_model
from tapeout.base.errors import BadInput
from tapeout.graph.check import check_graph, check_imported, check_quantized
from tapeout.graph.types import Add, Attention, Graph, Matrix, Model, RMSNorm, Rope, WeightType
from tapeout.numerics.formats import FORMATS

SMALL = {"layers": 1, "width": 32, "heads": 2, "kv_heads": 1, "head_dim": 16, "hidden": 64, "vocabulary": 50}


def small(form: str = "int4m", tied: bool = True) -> Model:
    return random_model(7, **SMALL, format=form, tied=tied)


def message(check, thing) -> str:
    with pytest.raises(BadInput) as caught:
        check(thing)
    return str(caught.value)


def with_op(graph: Graph, at: str, /, **changes) -> Graph:
    return replace(graph, ops=tuple(replace(op, **changes) if op.out == at else op for op in graph.ops))


def with_weight(model: Model, name: str, **changes) -> Model:
    return replace(model, weights={**model.weights, name: replace(model.weights[name], **changes)})


@pytest.mark.parametrize("seed", range(20))
def test_random_models_pass_both_checks(seed):
    check_imported(random_model(seed))
    check_quantized(random_model(seed))


def test_a_float_model_is_imported_but_not_quantized():
    check_imported(small("f32"))
    assert message(check_quantized, small("f32")) == (
        f"weight embed: is a float matrix; quantize it to one of {', '.join(FORMATS)}"
    )


def test_a_shape_only_model_is_imported_but_not_run():
    shapes = replace(small(), weights={})
    check_imported(shapes)
    assert message(check_quantized, shapes) == "model random: has no weights; a shape-only model cannot be run"


def test_an_op_that_reads_too_early_is_shown_with_its_neighbours():
    graph = small().graph
    assert message(check_graph, with_op(graph, "l0.q", x="l0.h")) == (
        "op l0.q: reads l0.h, which no earlier op writes; around it: x0 = embed(embed) | "
        "l0.attn_in = rmsnorm(x0, layers.0.attn_norm) | > l0.q = linear(l0.h, layers.0.q) | "
        "l0.k = linear(l0.attn_in, layers.0.k)"
    )


def test_order_and_names():
    graph = small().graph

    def first(changed: Graph) -> str:
        return message(check_graph, changed).split("; around it")[0]

    assert first(with_op(graph, "l0.x", out="x0")) == "op x0: writes a value that an earlier op has written"
    assert first(with_op(graph, "l0.x", out="y")) == "op y: writes a value that the graph does not declare"
    assert first(with_op(graph, "final", weight="n")) == "op final: reads weight n, which the graph does not declare"
    assert first(replace(graph, values=(*graph.values, ("y", 3)))) == "value y: is declared, but no op writes it"
    assert first(replace(graph, values=(*graph.values, ("x0", 32)))) == "value x0: is declared twice"
    twice = replace(graph, weights=(*graph.weights, WeightType("norm", (32,), "f32")))
    assert first(twice) == "weight norm: is declared twice"
    assert first(replace(graph, output="final")) == (
        "graph random: its output final is not what the last op writes; that is logits"
    )
    assert first(replace(graph, context=0)) == "graph random: context is 0; at least 1 is needed"


@pytest.mark.parametrize(
    ("out", "changes", "wanted"),
    [
        ("l0.attn_in", {"eps": 0.0}, "op l0.attn_in: eps is 0.0; it must be greater than 0, a normal binary32"),
        (
            "l0.attn_in",
            {"eps": float("nan")},
            "op l0.attn_in: eps is nan; it must be greater than 0, a normal binary32",
        ),
        ("l0.attn_in", {"weight": "layers.0.q"}, "op l0.attn_in: weight layers.0.q has shape 32 x 32; needed is 32"),
        ("l0.gate", {"x": "l0.attn"}, ""),
        ("l0.gate", {"weight": "layers.0.q"}, "op l0.gate: weight layers.0.q has shape 32 x 32; needed is 64 x 32"),
        ("x0", {"table": "layers.0.q"}, "op x0: weight layers.0.q has shape 32 x 32; needed is 50 x 32"),
        ("l0.qr", {"head_dim": 15}, "op l0.qr: head_dim 15 is odd; pairs need an even one"),
        ("l0.qr", {"heads": 3}, "op l0.qr: l0.q has width 32; heads * head_dim is 48"),
        ("l0.qr", {"heads": 0}, "op l0.qr: 0 heads of 16; both must be at least 1"),
        ("l0.qr", {"theta": -1.0}, "op l0.qr: theta is -1.0; it must be finite and greater than 0"),
        ("l0.attn", {"kv_heads": 3}, "op l0.attn: 2 heads over 3 KV heads; they must divide"),
        ("l0.attn", {"kv_heads": 2}, "op l0.attn: l0.kr has width 16; kv_heads * head_dim is 32"),
        ("l0.attn", {"v": "l0.q"}, "op l0.attn: l0.q has width 32; kv_heads * head_dim is 16"),
        ("l0.x", {"b": "l0.gate"}, "op l0.x: l0.gate has width 64; the width of l0.x is 32"),
        ("l0.h", {"up": "l0.q"}, "op l0.h: l0.q has width 32; the width of l0.h is 64"),
    ],
)
def test_widths_and_head_counts(out, changes, wanted):
    graph = with_op(small().graph, out, **changes)
    if wanted:
        assert message(check_graph, graph).split("; around it")[0] == wanted
    else:
        check_graph(graph)


def test_a_norm_that_is_too_wide_is_refused():
    wide = random_model(0, **{**SMALL, "width": 65_568, "heads": 1, "hidden": 1, "vocabulary": 1}, format="f32").graph
    assert message(check_graph, wide).startswith(
        "op l0.attn_in: width 65568 is too wide to be normed; at most 65536; around it: x0 = embed(embed) | > l0."
    )


def test_missing_left_over_and_misshapen_weights():
    model = small()
    without = {name: weight for name, weight in model.weights.items() if name != "layers.0.k"}
    assert message(check_imported, replace(model, weights=without)) == (
        "weight layers.0.k: is missing; int4m 16 x 32 is needed"
    )
    more = {**model.weights, "extra": np.ones(3, np.float32)}
    assert message(check_imported, replace(model, weights=more)) == "weight extra: is not in the graph"
    short = {**model.weights, "norm": np.ones(31, np.float32)}
    assert message(check_imported, replace(model, weights=short)) == ("weight norm: has shape 31; the graph says 32")
    other = {**model.weights, "embed": random_model(7, **SMALL, format="int8", tied=True).weights["embed"]}
    assert message(check_imported, replace(model, weights=other)) == "weight embed: is int8; the graph says int4m"


def test_numbers_that_are_not_finite_are_refused_where_they_stand():
    model = small()
    model.weights["norm"][5] = np.nan
    assert message(check_imported, model) == "weight norm[5]: is nan; only finite numbers are allowed"
    model = small()
    model.weights["embed"].scale[3, 0] = np.inf
    assert message(check_imported, model) == "weight embed.scale[3, 0]: is inf; only finite numbers are allowed"


def test_a_subnormal_norm_weight_is_refused():
    model = small()
    model.weights["norm"][5] = np.float32(2.0**-149)
    assert message(check_imported, model) == (
        "weight norm[5]: 1.4e-45 is subnormal; a norm's weight is 0 or at least 2^-126"
    )


def test_codes_scales_and_minima_that_do_not_fit_their_format():
    model, embed = small(), small().weights["embed"]
    assert isinstance(embed, Matrix)

    def of(**changes) -> str:
        return message(check_imported, with_weight(model, "embed", **changes))

    assert of(codes=np.full_like(embed.codes, 8)) == "weight embed: has a code 8; int4m allows -8..7"
    assert of(codes=np.full_like(embed.codes, -9)) == "weight embed: has a code -9; int4m allows -8..7"
    assert of(codes=embed.codes.astype(np.int16)) == "weight embed: has codes of type int16; int8 is needed"
    assert of(minimum=None) == "weight embed: has no minimum; int4m needs one"
    assert of(scale=embed.scale.astype(np.float32)) == (
        "weight embed.scale: has numbers of type float32; float16 is needed"
    )
    assert of(scale=np.ones((50, 2), np.float16)) == "weight embed.scale: has shape 50 x 2; needed is 50 x 1"
    assert (
        of(format=replace(embed.format, group=48)) == "weight embed: has groups of 48; 16 or a multiple of 32 is needed"
    )
    int8 = small("int8")
    minimum = np.ones((50, 1), np.float16)
    assert message(check_imported, with_weight(int8, "embed", minimum=minimum)) == (
        "weight embed: has a minimum; int8 has none"
    )


def test_a_row_too_wide_for_62_bits_is_refused():
    graph = small().graph
    wide = replace(graph, weights=(WeightType("embed", (50, 2**33 + 1), "int8"), *graph.weights[1:]))
    assert message(check_quantized, Model(wide)) == (
        "weight embed: has 8589934593 columns; at most 8589934592 fit 62 bits"
    )


def test_the_builder_names_values_and_weights_as_importers_expect():
    graph = small(tied=False).graph
    parts = "attn_in q k v qr kr attn o x_mid ffn_in gate up h down x".split()
    assert [name for name, _ in graph.values] == ["x0", *(f"l0.{part}" for part in parts), "final", "logits"]
    matrices = "attn_norm q k v o ffn_norm gate up down".split()
    assert [kind.name for kind in graph.weights] == ["embed", *(f"layers.0.{m}" for m in matrices), "norm", "head"]
    assert graph.ops[-1].weight == "head"
    assert small(tied=True).graph.ops[-1].weight == "embed"
    assert {type(op) for op in graph.ops} >= {RMSNorm, Rope, Attention, Add}
