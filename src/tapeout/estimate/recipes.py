"""How numbers are taken, by name: what client and engine do decides the time to first token more than any chip."""

from dataclasses import dataclass

from tapeout.base.errors import BadInput


@dataclass(frozen=True, slots=True)
class Recipe:
    """interference: share of the others' prefills that fall between a request's own tokens. root_queue: whether a prompt waits for
    `queue_prefills` times the square root of the concurrency. linear_queue: share of all other prompts that it waits for. stream: whether
    `first_token_steps` decode steps pass before the first token is seen. steps: decode steps that pass besides."""

    interference: float
    root_queue: float
    linear_queue: float
    stream: float
    steps: float
    about: str


RECIPES = {
    "steady": Recipe(1, 1, 0, 1, 0, "a new request begins whenever one ends, through a server"),
    "one_wave": Recipe(0.5, 0, 0.5, 0, 0, "all requests begin at once and none follows"),
    "static": Recipe(0, 0, 1, 0, 0, "one batch: all prompts first, then all tokens"),
    "arrivals": Recipe(
        1,
        0,
        0,
        0,
        1.5,
        "requests arrive at random and are let in at the next step: half of one, and one shared with the prompt",
    ),
    "engine": Recipe(0, 0, 0, 0, 0, "inside the engine: a prefill alone, decode steps undisturbed"),
}


def recipe(name: str) -> Recipe:
    """By name. Raises `BadInput`."""
    if name not in RECIPES:
        raise BadInput("recipe", f"{name!r} is not known", f"one of {', '.join(RECIPES)}")
    return RECIPES[name]
