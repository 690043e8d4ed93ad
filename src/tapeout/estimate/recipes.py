"""How published numbers were taken, by name: what a client and an engine do decides the time to first token more than any chip."""

RECIPES = {
    "steady": "a new request begins whenever one ends; its prefill runs between the others' decode steps",
    "one_wave": "all requests begin at once and none follows: a request waits for half of the others' prefills",
}
