# ruff: noqa: E501 - the sentences are the page's own lines
"""Write docs/claims.md: what is commonly said of inference silicon, the command that tests it, and our answer with its error.

python tools/claims_page.py --write      (without it: print; a claim's key, such as per-model: that one)
"""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from tapeout.base.files import atomic_write
from tapeout.chip.presets import load, load_chip
from tapeout.compiler.pipeline import compile as compile_model
from tapeout.estimate.estimate import Estimate
from tapeout.flow.estimates import EstimateRequest, answer
from tapeout.flow.findings import Finder
from tapeout.flow.hybrids import Second, hybrid_report
from tapeout.flow.measure import measure
from tapeout.flow.prepare import prepare_model
from tapeout.flow.results import load_results
from tapeout.flow.score import by_family, score
from tapeout.flow.tensions import cheapest_memory, read_bytes
from tapeout.flow.wishes import Asked, Line
from tapeout.graph.shapes import load_shape
from tapeout.report.figure import Figure, number
from tapeout.silicon.cost import Cost, total
from tapeout.silicon.dollars import unit_cost
from tapeout.silicon.project import break_even, lifetime_usd, nre
from tapeout.silicon.technology import technology

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "claims.md"
SERVED = 64
"""Requests open at once on a system that is well used."""
ARITHMETIC = ("matrix unit", "group stage", "vector unit", "attention unit")
DATA = ("external memory", "SRAM", "stream wires", "operand buffer", "on-chip links", "host interface")
RIVALS = (
    ("taalas_hc1", 1, "llama-3.1-8b", "fp8", "nvidia_h100_sxm"),
    ("cerebras_wse3", 1, "llama-3.1-8b", "fp8", "nvidia_h100_sxm"),
    ("sambanova_sn40l", 1, "llama-3.1-8b", "fp8", "nvidia_h100_sxm"),
    ("groqrack_576", 576, "llama-3.1-70b", "fp8", "nvidia_dgx_h100"),
    ("cerebras_wse3", 4, "llama-3.1-70b", "fp8", "nvidia_dgx_h100"),
    ("sambanova_sn40l", 16, "llama-3.1-70b", "bf16", "nvidia_dgx_h100"),
)
"""Specialised silicon, how much of it, model, weights; and the GPUs it is held against, in fp8."""
GPU_USD, GPU_SERVER_USD, GPU_MADE_USD, GPU_WATTS = 28_000, 4_900, 3_320, 700
"""An H100: what it is sold for (its datasheet), its share of a server (docs/silicon.md), what it costs to make (its datasheet), its watts."""
HC1_MM2, HC1_WATTS, HC1_NRE_USD = 815, 200, 30e6
"""HC1 as published; its maker reports 30 MUSD in all (docs/silicon.md)."""


@dataclass(frozen=True, slots=True)
class Claim:
    """verdict: holds, holds in part, does not hold, cannot be told. table: rows under the answer, the first its head."""

    said: str
    commands: tuple[str, ...]
    answer: str
    error: str
    verdict: str
    table: tuple[tuple[str, ...], ...] = ()


# --- what is asked of the rooms ---


def estimated(model: str, chip: str, **asked: object) -> Estimate:
    """With every figure of the chip at its likeliest value."""
    return answer(EstimateRequest(model, chip, **asked)).estimate  # type: ignore[arg-type]


def figure(name: str, chip: str, chips: int, model: str, weights: str, batch: int) -> Figure:
    """A figure as `tapeout check` finds it: on a hardwired chip no more users than its SRAM holds."""
    line = Line(line=name, figure=f"estimate.{name}", at_least=0)
    asked = Asked(model=model, weights=weights, batch=batch, chips=chips)
    found = Finder(chip, load(chip)).find(line, asked).figure
    assert found, f"{chip}: no {name}"
    return found


def ratio(name: str, rival: tuple[str, int, str, str, str], batch: int) -> float:
    """Ours over the GPUs'."""
    chip, chips, model, weights, gpu = rival
    return figure(name, chip, chips, model, weights, batch).value / figure(name, gpu, 0, model, "fp8", batch).value


@cache
def errors() -> dict[str, dict[str, dict[str, float]]]:
    """Median errors by family and figure on the published rows that are complete."""
    return by_family(one for one in score(load_results())[0] if one.row.complete)


@cache
def left_out() -> dict[str, dict[str, float]]:
    """H100's own errors when no H100 was among the rows fitted on."""
    text = (ROOT / "src" / "tapeout" / "data" / "estimate" / "left_out.yaml").read_text()
    return yaml.safe_load(text)["chips_left_out"]["nvidia_h100_sxm"]


def wrong(family: str, name: str) -> str:
    """A family's median error on a figure, with the rows it stands on."""
    row = errors().get(family, {}).get(name)
    if row is None:
        return f"{family}: no published {words(name)} to check by"
    rows = "1 row" if row["rows"] == 1 else f"{row['rows']:.0f} rows"
    return f"{family} {words(name)} {row['median_abs_error']:.0%} (median of {rows})"


def gpu_wrong() -> str:
    """The same of an H100 that the fit had not seen."""
    row = left_out()
    return f"an H100 that the fit had not seen: time per token {row['tpot_ms']['median_abs_error']:.0%}, first token {row['ttft_ms']['median_abs_error']:.0%}"


def words(name: str) -> str:
    """A figure's name for a reader."""
    known = {
        "tokens_per_s_per_user": "tokens/s of one user",
        "tokens_per_s_total": "tokens/s in all",
        "joules_per_token": "J per token",
        "ttft_ms": "first token",
    }
    return known.get(name, name)


def three(value: float) -> str:
    """Three digits that count."""
    return number(float(f"{value:.3g}"))


def times(value: float) -> str:
    """A ratio."""
    return f"{float(f'{value:.2g}'):g}"


# --- the claims ---


def memory() -> Claim:
    """Energy of a compiled token by component; and of a large model's bytes against its products."""
    shares = energy_shares("edge"), energy_shares("tiny")
    data, arithmetic = ([sum(of.get(name, 0) for name in names) for of in shares] for names in (DATA, ARITHMETIC))
    shape, (kind, row) = load_shape("llama-3.1-70b"), cheapest_memory()
    read = read_bytes(shape, "int4") * row.value / 1e12
    multiplied = shape.active_parameters * technology().energy["macs_int4"].value / 1e12
    return Claim(
        "Moving data, not arithmetic, takes the energy.",
        ("tapeout run fable --chip edge --tokens 8", "tapeout run fable --chip tiny --tokens 8", "tapeout check edge --spec wishlist"),
        f"For one user it does. Of a token of the embedded model on `edge`, {data[0]:.0%} is data ({shares[0]['external memory']:.0%} external memory) and {arithmetic[0]:.0%} arithmetic; "
        f"on `tiny`, which holds everything in SRAM, {data[1]:.0%} and {arithmetic[1]:.0%}; the rest is clock, leakage and control. A 70B in int4 reads {read:.2g} J per token from {kind} and multiplies for {multiplied:.2g} J: "
        f"{times(read / multiplied)} to 1, so about {times(read / multiplied)} users must share a reading before arithmetic weighs as much.",
        f"energies are constants of the technology tables, {kind} {row.low:g} to {row.high:g} pJ/B and int4 products 0.035 to 0.1 pJ; nobody published a breakdown to check by",
        "holds",
    )  # fmt: skip


def energy_shares(chip: str) -> dict[str, float]:
    """By component, of a decode step of the embedded model."""
    model = prepare_model("fable")
    measured = measure(compile_model(model, load_chip(chip), None), model.graph, 64, 8)
    whole = sum(row.value for row in measured.energy)
    return {row.component: float(row.value / whole) for row in measured.energy}


def precision() -> Claim:
    """Accuracy as docs/measured.md has it; speed as the estimator has it."""
    page = (ROOT / "docs" / "measured.md").read_text()
    kl = re.search(r"KL\(float, contract\).*?\*\*([\d.]+)\*\*", page)
    perplexity = re.search(r"perplexity against float.*?\*\*\+([\d.]+) %\*\*", page)
    assert kl, "docs/measured.md has no KL"
    assert perplexity, "docs/measured.md has no perplexity"
    rates = {w: float(estimated("llama-3.1-8b", "nvidia_h100_sxm", weights=w).tpot_ms) for w in ("bf16", "int4")}
    many = {w: float(estimated("llama-3.1-8b", "nvidia_h100_sxm", weights=w, batch=SERVED).tpot_ms) for w in rates}
    return Claim(
        "Low precision suffices.",
        ("python bench/accuracy.py", "tapeout estimate llama-3.1-8b --chip h100 --weights int4", "tapeout estimate llama-3.1-8b --chip h100 --weights bf16"),
        f"For activations it does: SmolLM2-135M in 4-bit weights, run in 8-bit activations and integer sums, differs from the same weights in float by {kl[1]} nat per token, perplexity +{perplexity[1]} %. "
        f"What the 4-bit weights lost against their float original is in both and was not measured. It pays in bytes: on an H100 an 8B token takes {times(rates['bf16'] / rates['int4'])} times less in int4 than in 16 bits for one user, "
        f"{times(many['bf16'] / many['int4'])} times less for {SERVED}.",
        f"[measured](measured.md), one model of 0.1 B, so no word on larger ones; int4 is taken to be widened at no cost; {gpu_wrong()}",
        "holds in part",
    )  # fmt: skip


def per_watt() -> Claim:
    """Tokens per joule against GPUs, for one user and served."""
    rows = [(rival, ratio("tokens_per_joule", rival, 1), ratio("tokens_per_joule", rival, SERVED)) for rival in RIVALS]
    others = [shares for rival, *shares in rows if rival[0] != "taalas_hc1"]
    hardwired = rows[0]
    spread = figure("tokens_per_joule", *RIVALS[0][:4], SERVED)
    best = (spread.high or spread.value) / spread.value * hardwired[2]
    waiting, busy = (
        float(estimated("llama-3.1-8b", "nvidia_h100_sxm", weights="fp8", batch=b).joules_per_token)
        for b in (1, SERVED)
    )
    return Claim(
        "Specialised silicon does 10 to 50 times as much per watt as a GPU.",
        ("tapeout check taalas_hc1 llama-3.1-8b", "tapeout estimate llama-3.1-8b --chip h100 --weights fp8 --batch 64", "tapeout check groqrack_576"),
        f"Only the model in silicon does: HC1 {times(hardwired[1])} times for one user, {times(hardwired[2])} times a GPU that serves {SERVED} (up to {times(best)} with all the users that its unpublished SRAM may hold). "
        f"Chips that stay programmable come out at {times(min(s[0] for s in others))} to {times(max(s[0] for s in others))} times for one user and {times(min(s[1] for s in others))} to {times(max(s[1] for s in others))} times served. "
        f"A GPU that waits on one user is a poor measure: per joule an H100 does {times(waiting / busy)} times as much for {SERVED}.",
        f"{wrong('gpu_nvidia', 'joules_per_token')}; {wrong('groq', 'joules_per_token')}; {wrong('cerebras', 'joules_per_token')}; {wrong('taalas', 'joules_per_token')}: their watts are ratings times the busy share, unchecked",
        "holds in part",
        (("system", "model", "against", "times the tokens per joule, 1 user", f"{SERVED} users"), *(named(rival, *shares) for rival, *shares in rows)),
    )  # fmt: skip


def named(rival: tuple[str, int, str, str, str], *ratios: float) -> tuple[str, ...]:
    """A row of a table of rivals."""
    chip, chips, model, weights, gpu = rival
    many = f"{chips} x " if chips > 1 and not chip.endswith(str(chips)) else ""
    return (f"{many}`{chip}`", f"{model}, {weights}", f"`{gpu}`, fp8", *(times(value) for value in ratios))


def faster() -> Claim:
    """Tokens per second of one user against GPUs."""
    rows = [
        (rival, ratio("tokens_per_s_per_user", rival, 1), ratio("tokens_per_s_total", rival, SERVED))
        for rival in RIVALS
    ]
    low, high = min(row[1] for row in rows), max(row[1] for row in rows)
    inside = sum(3 <= row[1] <= 18 for row in rows)
    nodes = times(ratio("tokens_per_s_per_user", ("taalas_hc1", 1, "llama-3.1-8b", "fp8", "nvidia_dgx_h100"), 1))
    return Claim(
        "Specialised silicon is 3 to 18 times as fast as an H100.",
        ("tapeout estimate llama-3.1-70b --chip groqrack_576 --weights fp8", "tapeout estimate llama-3.1-70b --chip nvidia_dgx_h100 --weights fp8", "tapeout estimate llama-3.1-70b --chip cerebras_wse3 --chips 4 --weights fp8"),
        f"For one user, {times(low)} to {times(high)} times, {inside} of {len(rows)} between 3 and 18. What it is held against decides: HC1 is {times(rows[0][1])} times one H100 and {nodes} times eight. "
        f"All tokens of {SERVED} users together: {times(min(row[2] for row in rows))} to {times(max(row[2] for row in rows))} times, between systems that differ by up to 72 chips to one.",
        f"{wrong('groq', 'tokens_per_s_per_user')}; {wrong('cerebras', 'tokens_per_s_per_user')}, mean {errors()['cerebras']['tokens_per_s_per_user']['mean_abs_error']:.0%}; {wrong('sambanova', 'tokens_per_s_per_user')}; {wrong('taalas', 'tokens_per_s_per_user')}, calibrated on it; {gpu_wrong()}",
        "holds in part",
        (("system", "model", "against", "times the tokens/s of one user", f"times all tokens/s, {SERVED} users"), *(named(rival, *shares) for rival, *shares in rows)),
    )  # fmt: skip


def sparsity() -> Claim:
    """Experts against a dense model of their active size, and pruned weights against all."""
    moe = {
        b: float(estimated("mixtral-8x7b", "nvidia_h100_sxm", weights="fp8", batch=b).tokens_per_s_per_user)
        for b in (1, 16)
    }
    dense = {
        b: float(estimated("llama-2-13b", "nvidia_h100_sxm", weights="fp8", batch=b).tokens_per_s_per_user)
        for b in (1, 16)
    }
    asked = {"weights": "int4", "batch": SERVED}
    whole, single, blocks = (
        float(estimated("llama-3.1-70b", "nvidia_dgx_h100", **asked, **pruned).tokens_per_s_total)
        for pruned in ({}, {"density": 0.5}, {"density": 0.5, "sparse_block": 64})
    )
    return Claim(
        "Sparsity and mixtures of experts make models cheap to run.",
        ("tapeout estimate mixtral-8x7b --chip h100 --weights fp8 --batch 16", "tapeout estimate llama-2-13b --chip h100 --weights fp8 --batch 16",
         "tapeout estimate llama-3.1-70b --chip nvidia_dgx_h100 --weights int4 --batch 64 --density 0.5 --sparse-block 64"),
        f"Experts do for few users: Mixtral (47 B, 13 B active) runs at {times(moe[1] / dense[1])} times a dense 13B's speed for one user, but at {times(moe[16] / dense[16])} times it for 16, whose tokens wake nearly all experts; it takes the memory of 47 B throughout. "
        f"Half of the weights pruned makes a 70B on a DGX H100 {times(single / whole)} times as fast where single weights go, because no step of the matrix unit is empty, and {times(blocks / whole)} times where blocks of 64 x 64 go. Pruning's accuracy is not estimated.",
        f"{wrong('gpu_nvidia', 'tokens_per_s_total')}; {gpu_wrong()}; pruned blocks are taken as independent and a step's size on a GPU as 64 x 32: nobody published rows to check that by",
        "holds in part",
    )  # fmt: skip


def hybrid() -> Claim:
    """Prompts or attention on GPUs, the rest on Groq's chips."""

    def made(batch: int, role: str = "") -> dict[str, float]:
        request = EstimateRequest("llama-3.1-70b", "groqrack_576", weights="fp8", batch=batch)
        if role:
            return {
                name: one["value"]
                for name, one in hybrid_report(request, Second(role, "nvidia_dgx_h100")).json["figures"].items()
            }
        one = answer(request).estimate
        return {
            name: float(getattr(one, name))
            for name in ("ttft_ms", "tokens_per_s_per_user", "tokens_per_s_total", "joules_per_token")
        }

    alone, prompts, attention = (made(1, role) for role in ("", "prefill", "attention"))
    served, fed = made(SERVED), made(SERVED, "prefill")
    return Claim(
        "Clusters of two kinds of chip are better than either.",
        ("tapeout estimate llama-3.1-70b --chip groqrack_576 --prefill-chip nvidia_dgx_h100 --weights fp8",
         "tapeout estimate llama-3.1-70b --chip groqrack_576 --attention-chip nvidia_dgx_h100 --weights fp8",
         "tapeout estimate llama-3.1-70b --chip groqrack_576 --weights fp8"),
        f"For the first token: a DGX H100 in front of 576 LPUs brings it from {three(alone['ttft_ms'])} to {three(prompts['ttft_ms'])} ms, at the same {three(prompts['tokens_per_s_per_user'])} tokens/s after it. "
        f"Sizes must match: at {SERVED} users that one node feeds {three(fed['tokens_per_s_total'])} tokens/s where the LPUs alone do {three(served['tokens_per_s_total'])}. "
        f"Attention on the GPUs slows one user from {three(alone['tokens_per_s_per_user'])} to {three(attention['tokens_per_s_per_user'])} tokens/s: two crossings in each of 80 layers; its gain is room for keys and values.",
        f"no hybrid system's result was published to check by; of its halves: {wrong('groq', 'ttft_ms')}; {wrong('groq', 'tokens_per_s_per_user')}; {gpu_wrong()}",
        "holds in part",
    )  # fmt: skip


def per_model() -> Claim:
    """Chips of one model after which NRE and chips cost less than H100 of the same tokens per second."""
    ours = float(estimated("llama-3.1-8b", "taalas_hc1", weights="fp8").tokens_per_s_total)
    gpu = float(estimated("llama-3.1-8b", "nvidia_h100_sxm", weights="fp8", batch=SERVED).tokens_per_s_total)
    unit, once = total(unit_cost(HC1_MM2, "N6", watts=HC1_WATTS)), total(nre("N6"))

    def pays(project: Cost, gpu_usd: float) -> Cost:
        lives = lifetime_usd(unit, HC1_WATTS, 1), lifetime_usd(gpu_usd + GPU_SERVER_USD, GPU_WATTS, 1)
        return break_even(project, lives[0], exactly(ours), lives[1], exactly(gpu))

    sold, made, reported = pays(once, GPU_USD), pays(once, GPU_MADE_USD), pays(exactly(HC1_NRE_USD), GPU_USD)
    rate = float(sold.value) * ours
    return Claim(
        "Silicon for one model pays at scale.",
        ("python tools/claims_page.py per-model", "tapeout estimate llama-3.1-8b --chip taalas_hc1", "tapeout estimate llama-3.1-8b --chip h100 --weights fp8 --batch 64"),
        f"From {three(float(sold.value))} chips on ({three(float(sold.low))} to {three(float(sold.high))}), if the model stays in demand for a year: 815 mm² at N6, {ours:,.0f} tokens/s for one user, against an H100 at {GPU_USD:,} USD that serves {gpu:,.0f} tokens/s; "
        f"that is {three(rate / 1e6)} million tokens/s, all day. With the 30 MUSD in all that HC1's maker reports, from {three(float(reported.value))}; against a GPU at what it costs to make, from {three(float(made.value))} ({three(float(made.low))} to {three(float(made.high))}).",
        f"the range is NRE, known to a factor of ten, and every cost at its cheap and dear end; {wrong('taalas', 'tokens_per_s_per_user')}, calibrated on it; {wrong('gpu_nvidia', 'tokens_per_s_total')}",
        "holds in part",
    )  # fmt: skip


def exactly(amount: float) -> Cost:
    """An amount without doubt."""
    return Cost("", amount, amount, amount, "", "")


def flexibility() -> Claim:
    """Joules per token from the hardwired to the programmable; and what a sequencer takes of our own chip."""
    chips = ("taalas_hc1", "cerebras_wse3", "nvidia_h100_sxm")
    joules = [figure("joules_per_token", chip, 1, "llama-3.1-8b", "fp8", 1).value for chip in chips]
    served = figure("joules_per_token", "nvidia_h100_sxm", 1, "llama-3.1-8b", "fp8", SERVED).value
    shares = energy_shares("edge"), energy_shares("tiny")
    return Claim(
        "Flexibility costs efficiency.",
        ("tapeout estimate llama-3.1-8b --chip taalas_hc1", "tapeout estimate llama-3.1-8b --chip h100 --weights fp8", "tapeout run fable --chip tiny --tokens 8"),
        f"It does, but less through instructions than through weights that must be fetched. A token of an 8B for one user takes {joules[0]:.2g} J where the model is in silicon, {joules[1]:.2g} J on a wafer and {joules[2]:.2g} J on an H100; with {SERVED} users to a reading the H100 takes {served:.2g} J, "
        f"{times(served / joules[0])} times HC1's, not {times(joules[2] / joules[0])}. Of our own chips, which keep a program, the sequencer takes {shares[0].get('sequencer', 0):.1%} of the energy on `edge` and {shares[1].get('sequencer', 0):.1%} on `tiny`.",
        f"{wrong('gpu_nvidia', 'joules_per_token')}; {wrong('taalas', 'joules_per_token')}; the sequencer's 70 pJ per micro-op is an assumption (45 to 140), and our chips are static: a GPU's schedulers and caches are not priced",
        "holds in part",
    )  # fmt: skip


CLAIMS: dict[str, Callable[[], Claim]] = {
    "memory": memory, "precision": precision, "per-watt": per_watt, "faster": faster, "sparsity": sparsity, "hybrid": hybrid, "per-model": per_model,
    "flexibility": flexibility,
}  # fmt: skip


# --- the page ---

HEAD = """# What is said of inference silicon, and what we find

Written by `python tools/claims_page.py --write`; a test compares it. Each claim has the commands that test it, our answer, and how far the answer can be
trusted: the estimator's own error on published results ([accuracy.md](accuracy.md)), or the range of the constants ([silicon.md](silicon.md)). One user is batch 1;
prompts have 512 tokens and answers 128 unless a command says otherwise. Power of systems is what their boards are rated for, times the share of the time in which they work.
"""


def section(claim: Claim) -> str:
    """A claim with its commands, answer and error."""
    lines = [f"## {claim.said}", "", f"**{claim.verdict[0].upper()}{claim.verdict[1:]}.** {claim.answer}", ""]
    if claim.table:
        head, *rows = claim.table
        lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in rows), ""]
    return "\n".join([*lines, "```", *claim.commands, "```", "", f"*Error:* {claim.error}.", ""])


def page() -> str:
    """The whole page."""
    made = [make() for make in CLAIMS.values()]
    short = ["| claim | verdict |", "|---|---|", *(f"| {claim.said} | {claim.verdict} |" for claim in made), ""]
    return "\n".join([HEAD, *short, *(section(claim) for claim in made)])


def main(arguments: list[str]) -> None:
    """Print a claim, or the page; or write it."""
    if "--write" in arguments:
        with atomic_write(PAGE, "w") as file:
            file.write(page())
    elif arguments:
        print("\n".join(section(CLAIMS[key]()) for key in arguments))
    else:
        print(page())


if __name__ == "__main__":
    main(sys.argv[1:])
