"""Shapes of published models against what their publishers say of them, and against our own graphs."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from strategies import random_graph
from styles import STYLES, family_model
from tapeout.base.errors import BadInput
from tapeout.graph.llama import llama_graph
from tapeout.graph.shapes import ModelShape, load_shape, shape_names, shape_of
from tapeout.importers.load import load_model

ROOT = Path(__file__).parents[3]
SHARED = ROOT.parent / "shared" / "data"
RESULTS = [
    ROOT / "src" / "tapeout" / "data" / "results" / "published.yaml",
    SHARED / "published_results.yaml",
    SHARED / "gpu_serving_measured.yaml",
]


@pytest.mark.parametrize("name", shape_names())
def test_the_published_count_is_met(name: str):
    shape = load_shape(name)
    assert shape.published_parameters
    assert shape.parameters == pytest.approx(shape.published_parameters, rel=0.005)


@pytest.mark.parametrize("name", ["mixtral-8x7b", "gpt-oss-120b", "deepseek-v3"])
def test_the_published_active_count_is_met(name: str):
    shape = load_shape(name)
    published = shape.published_active
    assert published
    ours = shape.active_parameters + (shape.embedding_parameters if published.with_embedding else 0)
    assert ours == pytest.approx(published.parameters, rel=0.005)


@pytest.mark.parametrize("file", RESULTS, ids=lambda file: file.name)
def test_every_model_of_the_published_results_has_a_shape(file: Path):
    if not file.exists():
        pytest.skip(f"{file.name} is not here")
    rows = yaml.load(file.read_text(), yaml.CSafeLoader)
    assert {load_shape(row["model"]).name for row in rows} <= set(shape_names())


def test_every_shape_has_a_source():
    assert [name for name in shape_names() if not load_shape(name).source.startswith("https://")] == []


def test_llama_2_7b_by_hand():
    shape = load_shape("LLaMA-7B")
    layer = 4 * 4096 * 4096 + 3 * 4096 * 11008
    assert shape.active_parameters == 32 * (layer + 2 * 4096) + 4096 + 32000 * 4096
    assert shape.kv_values_per_token() == 32 * 2 * 4096
    assert shape.flops_per_token(100) == 2 * (32 * layer + 32000 * 4096) + 2 * 32 * 100 * 2 * 4096
    assert shape.weight_bytes(2) == 2 * 6_738_415_616


def test_latent_attention_keeps_576_numbers_per_token_and_layer():
    shape = load_shape("deepseek-r1-671b")
    assert shape.kv_values_per_token() == 61 * 576
    assert shape.attention_flops(1000) == 2 * 61 * 128 * (576 + 512) * 1000
    assert shape.attention_flops(1000, prefill=True) == 2 * 61 * 128 * (192 + 128) * 1000


def test_a_windowed_layer_keeps_and_reads_its_window_only():
    shape = load_shape("gpt-oss-120b")
    record = 2 * 8 * 64
    assert shape.kv_values(100) == 36 * 100 * record
    assert shape.kv_values(1000) == (18 * 1000 + 18 * 128) * record
    assert shape.attention_flops(1000) == 2 * 64 * 128 * (18 * 1000 + 18 * 128)


def test_matrices_hold_all_but_norms_and_biases():
    shape = load_shape("mixtral-8x7b")
    assert shape.parameters - sum(matrix.parameters for matrix in shape.matrices()) == (2 * 32 + 1) * 4096
    assert [matrix.name for matrix in shape.matrices()] == (
        "embed q k v o router expert_gate expert_up expert_down head".split()
    )


def test_a_parallel_block_sums_once_per_layer():
    assert load_shape("falcon-7b").collectives_per_layer == 1
    assert load_shape("gemma-7b").collectives_per_layer == 2


@pytest.mark.parametrize(
    "spelled", ["meta-llama/Llama-3.1-8B-Instruct", "LLAMA 3.1 8B", "llama_3.1_8b", "Llama-3.1-8B (on one card)"]
)
def test_owner_case_and_remarks_do_not_matter(spelled: str):
    assert load_shape(spelled).name == "llama-3.1-8b"


def test_an_unknown_name_gives_the_nearest_ones():
    with pytest.raises(BadInput, match=r"^model: 'llama-3\.1-9b' is no known shape; nearest: llama-3\.1-8b, "):
        load_shape("llama-3.1-9b")


def test_a_shape_prints_and_parses_back():
    shape = load_shape("deepseek-v3")
    assert ModelShape.from_text(shape.to_yaml(), "shape") == shape


def test_the_embedded_model_has_a_shape():
    graph = load_model("fable").graph
    shape = shape_of(graph)
    assert shape.parameters == graph.parameters
    assert shape.name == "fable"


@pytest.mark.parametrize("seed", range(10))
def test_the_shape_of_a_graph_counts_as_the_graph_does(seed: int):
    graph = random_graph(np.random.default_rng(seed))
    assert shape_of(graph).parameters == graph.parameters


def test_the_small_llama_we_run_is_the_one_in_the_table():
    listed = load_shape("smollm2-135m")
    graph = llama_graph("smollm2-135m", 49152, 8192, 576, 30, 9, 3, 64, 1536, 1e5, 1e-5, {}, tied=True)
    bare = {"aliases": (), "source": "", "published_parameters": 0}
    assert shape_of(graph) == listed.model_copy(update=bare)


def test_a_graph_without_layers_has_no_shape():
    graph = random_graph(np.random.default_rng(0))
    with pytest.raises(BadInput, match="is no uniform decoder"):
        shape_of(replace(graph, ops=tuple(op for op in graph.ops if op.layer < 0)))


@pytest.mark.parametrize("name", STYLES)
def test_every_family_of_ours_has_a_shape_with_as_many_parameters(name):
    graph = family_model(name).graph
    assert shape_of(graph).parameters == graph.parameters
