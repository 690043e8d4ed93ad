"""Lines of a wish list that pull against each other, whatever the chip: each one sentence with its numbers, where both cannot hold."""

from collections.abc import Callable
from math import ceil

from tapeout.chip.catalogue import datasheets
from tapeout.estimate.formats import number_format
from tapeout.flow.models import find_shape
from tapeout.flow.wishes import Asked, Line, WishList
from tapeout.graph.shapes import ModelShape
from tapeout.report.figure import number
from tapeout.silicon.energy import sram_energy
from tapeout.silicon.technology import MemoryKind, die_node, technology

CODE_BITS = {"int4": 4, "int4m": 4, "nvfp4": 4, "mxfp4": 4, "bfp4": 4, "q4nx": 4, "ternary": 2}
"""Of the formats below a byte."""
SRAM_KIB = 1024
"""The bank that SRAM is priced at here, at 7 nm: the largest of the table, and the dearest per byte."""
SRAM_NODE = "N5"
RETICLE_MM2 = 858
"""26 x 33 mm, the largest field of a lithography scanner."""


def tensions(wishes: WishList, model: str = "") -> tuple[str, ...]:
    """Every rule that finds one. Raises `BadInput` on an unknown model or format."""
    return tuple(sentence for rule in RULES if (sentence := rule(wishes, model)))


def _limit(wishes: WishList, name: str, side: str) -> tuple[Line, float] | None:
    """The first line that limits `estimate.NAME` on this side, and its limit; ratios aside."""
    for line in wishes.lines:
        value = getattr(line, side)
        if line.figure == f"estimate.{name}" and value is not None and not line.against:
            return line, value
    return None


def rate_and_energy(wishes: WishList, model: str) -> str:
    """Tokens per second and joules per token of the same batch: every token reads all weights, and reading costs energy."""
    energy, rate = (
        _limit(wishes, "joules_per_token", "at_most"),
        _limit(wishes, "tokens_per_s_per_user", "at_least"),
    )
    if not energy or not rate:
        return ""
    asked = wishes.asked(energy[0], model)
    if asked != wishes.asked(rate[0], model) or asked.per_chip:
        return ""
    shape = find_shape(asked.model)
    size = read_bytes(shape, asked.weights) / asked.batch
    per_s, codes_per_s = (amount * rate[1] / 1e12 for amount in (size, code_bytes(shape, asked.weights) / asked.batch))
    name, memory = cheapest_memory()
    joules, least, most = (size * per_byte / 1e12 for per_byte in (memory.value, memory.low, memory.high))
    if least <= energy[1]:
        return ""
    share, fewest, many = (ceil(asked.batch * amount / energy[1]) for amount in (joules, least, most))
    area = size * asked.batch * 8 / 2**20 / die_node(SRAM_NODE).sram.value
    return (
        f"{_titles(rate[0], energy[0])}: {shape.name} in {asked.weights} reads {size / 1e9:.1f} GB per token, {per_s:.1f} TB/s "
        f"({codes_per_s:.1f} without scales); from {name} alone {joules:.2g} J ({least:.2g} to {most:.2g}, at {memory.low:g} to "
        f"{memory.high:g} pJ/B). Both hold with {share} users to a reading ({fewest} to {many}), or from {number(area)} mm² of {SRAM_NODE} SRAM, "
        f"{ceil(area / RETICLE_MM2)} dies of the largest size, at {size * sram_energy(SRAM_KIB).value / 1e12:.2g} J before wires"
    )


def rate_and_users(wishes: WishList, model: str) -> str:
    """Tokens per second of every user and users per chip: each reads its own keys and values."""
    rate, users = _limit(wishes, "tokens_per_s_per_user", "at_least"), _limit(wishes, "requests_per_chip", "at_least")
    if not rate or not users:
        return ""
    asked = wishes.asked(users[0], model)
    shape = find_shape(asked.model)
    each = kv_bytes(shape, asked)
    needed = each * users[1] * rate[1] / 1e12
    chip, fastest = fastest_memory()
    if needed <= fastest:
        return ""
    return (
        f"{_titles(rate[0], users[0])}, at once: {users[1]:,.0f} x {each / 1e6:.0f} MB of keys and values "
        f"({asked.prompt_tokens} + {asked.output_tokens} tokens) read {rate[1]:g} times a second "
        f"are {needed:.0f} TB/s on one chip; the fastest external memory of the catalogue has {fastest:g} ({chip})"
    )


def users_and_sram(wishes: WishList, model: str) -> str:
    """Users per chip and the SRAM asked for: their keys and values do not lie in it."""
    users = _limit(wishes, "requests_per_chip", "at_least")
    sram = next((line for line in wishes.lines if line.figure == "chip.sram_mb" and line.at_least), None)
    if not users or not sram or not sram.at_least:
        return ""
    asked = wishes.asked(users[0], model)
    held = sram.at_least * 1e6 / kv_bytes(find_shape(asked.model), asked)
    if held >= users[1]:
        return ""
    return (
        f"{_titles(sram, users[0])}: {sram.at_least:g} MB hold the keys and values of {number(held)} requests and none of the weights; "
        f"{users[1]:,.0f} need external memory or {users[1] / held:,.0f} times the SRAM"
    )


RULES: tuple[Callable[[WishList, str], str], ...] = (rate_and_energy, rate_and_users, users_and_sram)


def read_bytes(shape: ModelShape, weights: str) -> float:
    """Bytes of weights that one token reads: experts it uses, head, no embedding table."""
    form = number_format(weights)
    head = sum(m.macs for m in shape.matrices() if m.kind == "head")
    return (sum(m.macs for m in shape.matrices()) - head) * form.weight_bytes + head * form.head_bytes


def code_bytes(shape: ModelShape, weights: str) -> float:
    """The same without scales: the codes alone."""
    return (
        sum(m.macs for m in shape.matrices()) * CODE_BITS.get(weights, 8 * int(number_format(weights).weight_bytes)) / 8
    )


def kv_bytes(shape: ModelShape, asked: Asked) -> float:
    """Bytes of keys and values of one request when it ends."""
    return shape.kv_values(asked.prompt_tokens + asked.output_tokens) * number_format(asked.weights).kv_bytes


def cheapest_memory() -> tuple[str, MemoryKind]:
    """The external memory that could cost least energy per byte, and its row."""
    rows = technology().external
    name = min(rows, key=lambda kind: rows[kind].low)
    return name, rows[name]


def fastest_memory() -> tuple[str, float]:
    """The chip of the catalogue with the fastest external memory, and its TB/s."""
    rates = {sheet.id: sheet.high("offchip_tb_per_s") or 0.0 for sheet in datasheets().values() if not sheet.is_system}
    name = max(rates, key=lambda chip: rates[chip])
    return name, rates[name]


def _titles(one: Line, other: Line) -> str:
    return f"'{one.line}' against '{other.line}'"
