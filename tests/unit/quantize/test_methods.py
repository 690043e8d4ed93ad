"""Methods are steps of one interface: every recipe, on any model, ends in the format, ready for the contract, with the same graph."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies import random_model, random_tokens
from tapeout.base.errors import BadInput
from tapeout.graph.check import check_quantized
from tapeout.graph.fast import FastEngine
from tapeout.graph.reference import ReferenceEngine
from tapeout.graph.types import Model
from tapeout.numerics.formats import FORMATS
from tapeout.quantize.methods import METHODS, NEAREST, check_weights, recipe_of
from tapeout.quantize.round_to_nearest import divides

PREPARING = [row.name for row in METHODS.values() if not row.encodes]
RECIPES = sorted(
    "+".join((*first, last.name))
    for last in METHODS.values()
    if last.encodes
    for count in range(len(PREPARING) + 1)
    for first in permutations(PREPARING, count)
)


def made_by(model: Model, name: str, windows: list[list[int]]) -> Model:
    recipe = recipe_of(name)
    for step in recipe.steps:
        model = step.step(model, recipe.format, windows, lambda text: None)
    return model


@pytest.mark.parametrize("recipe", RECIPES)
@given(seed=st.integers(0, 2**32 - 1), form=st.sampled_from(list(FORMATS)))
@settings(max_examples=12, deadline=None)
def test_every_recipe_ends_in_the_format_with_the_graph_of_rounding_and_the_engines_agree(
    recipe: str, seed: int, form: str
):
    model = random_model(seed, odd=False)
    if not divides(model.graph, form) or any(form not in METHODS[name].formats for name in recipe.split("+")):
        return
    windows = [random_tokens(seed + at, model, 1 + (seed + 7 * at) % 9) for at in range(2)]
    made, rounded = made_by(model, f"{form}+{recipe}", windows), made_by(model, form, windows)
    check_quantized(made)
    assert {kind.name: kind.format for kind in made.graph.weights}.keys() == made.weights.keys()
    assert made.graph.ops == rounded.graph.ops
    ids = windows[0]
    fast, slow = (engine(made, len(ids)).step(ids, 0) for engine in (FastEngine, ReferenceEngine))
    assert np.array_equal(fast.view(np.uint32), slow.view(np.uint32))


def test_a_recipe_without_an_encoder_ends_with_rounding_and_one_alone_is_rounding():
    assert [step.name for step in recipe_of("int4+smooth").steps] == ["smooth", "nearest"]
    assert [step.name for step in recipe_of("int4+smooth+gptq").steps] == ["smooth", "gptq"]
    assert recipe_of("int4").is_nearest
    assert recipe_of("int4+nearest").steps == (NEAREST,)


@pytest.mark.parametrize(
    "name", ["int4+smooth+smooth", "int4+nearest+gptq", "all+gptq", "int5+gptq", "int4+", "+gptq", "int3_6+smooth"]
)
def test_what_is_no_recipe_is_refused(name: str):
    with pytest.raises(BadInput, match="--weights: "):
        check_weights(name, ("all", "stored"), True)
