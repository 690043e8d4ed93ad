"""`tapeout check`: a chip against a wish list, line by line: met, missed and by how much, unknown and why; and where the list contradicts itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tapeout.base.spec import fingerprint
from tapeout.chip.presets import load
from tapeout.chip.spec import ChipSpec
from tapeout.flow.findings import Finder, Finding
from tapeout.flow.summary import Summary
from tapeout.flow.tensions import tensions
from tapeout.flow.wishes import Line, load_wishes
from tapeout.report.figure import Figure, Origin, Report, Table, number

WORDS = {True: "met", False: "MISSED", None: "unknown"}
MARGIN = "estimates leave out the model's own error: tapeout validate"
TWICE = 2.0
"""From here on a miss is a factor, below it a percentage."""


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What `tapeout check` was asked. chips 0: all of a system, one of a chip; model empty: what the lines say."""

    chip: str
    model: str = ""
    spec: str = "wishlist"
    chips: int = 0
    changes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """One line's verdict. margin: found over the limit that it misses or keeps, less one; None for a fact."""

    line: str
    wanted: str
    found: str
    met: bool | None
    by: str = ""
    """By how much it is missed; why it is unknown."""
    margin: float | None = None
    figure: Figure | None = None

    def to_json(self) -> dict[str, Any]:
        """The contract's keys, and more."""
        made = {
            "line": self.line,
            "wanted": self.wanted,
            "found": self.found,
            "met": self.met,
            "by": self.by,
            "margin": self.margin,
        }
        return made | ({"figure": self.figure.to_json()} if self.figure else {})


def check(request: CheckRequest) -> Summary:
    """The whole command; its JSON has `missed`, how many lines. Raises `BadInput`."""
    chip = load(request.chip)
    if request.changes:
        chip = chip.with_fields(dict(request.changes), request.chip)
    wishes = load_wishes(request.spec)
    finder = Finder(request.chip, chip, request.chips)
    rows = [judge(line, finder.find(line, wishes.asked(line, request.model))) for line in wishes.lines]
    name = chip.name if isinstance(chip, ChipSpec) else chip.id
    counts = {
        word: sum(row.met is met for row in rows) for met, word in ((True, "met"), (False, "missed"), (None, "unknown"))
    }
    conflicts = tensions(wishes, request.model)
    reply = {
        "chip": name, "spec": wishes.name, "rows": [row.to_json() for row in rows], **counts, "tensions": list(conflicts),
        "fingerprint": fingerprint([chip.fingerprint(), wishes.fingerprint(), request.model, request.chips]),
    }  # fmt: skip
    title = f"{name} against {wishes.name}: {counts['met']} met, {counts['missed']} missed, {counts['unknown']} unknown"
    instead = (f"every line on {request.model}, whatever its text says",) if request.model else ()
    return Summary(reply, _report(title, rows, instead, conflicts, str(reply["fingerprint"])))


def judge(line: Line, finding: Finding) -> Row:
    """A line's verdict on what was found."""
    figure = finding.figure
    if figure is None:
        wanted = " or ".join(line.of) if line.fact in ("network", "compiles") else ", ".join(line.of)
        return Row(line.line, wanted or _wanted(line), finding.words, finding.holds)
    low = figure.value if figure.low is None else figure.low
    high = figure.value if figure.high is None else figure.high
    least, most = line.at_least, line.at_most
    limit = least if least is not None and (most is None or figure.value < least) else most
    assert limit is not None, f"{line.line}: no limit"
    margin = figure.value / limit - 1 if limit else None
    met, by = None, f"between {number(low)} and {number(high)}"
    if (least is None or low >= least) and (most is None or high <= most):
        met, by = True, ""
    elif (least is not None and high < least) or (most is not None and low > most):
        met, by = False, _missed_by(figure, limit)
    return Row(line.line, _wanted(line), _found(figure), met, by, margin, figure)


def _wanted(line: Line) -> str:
    if line.at_least is not None and line.at_most is not None:
        bounds = f"{number(line.at_least)} to {number(line.at_most)}"
    else:
        bounds = f">= {number(line.at_least)}" if line.at_least is not None else f"<= {number(line.at_most)}"
    return f"{bounds} {line.unit}".strip() + (f" of {line.against.chip}" if line.against else "")


def _found(figure: Figure) -> str:
    return f"{number(figure.value)} {figure.unit}".strip()


def _missed_by(figure: Figure, limit: float) -> str:
    """The likeliest figure against the limit."""
    gap = f"by {number(abs(figure.value - limit))} {figure.unit}".strip()
    side = "too little" if figure.value < limit else "too much"
    ratio = max(figure.value, limit) / min(figure.value, limit) if figure.value > 0 and limit > 0 else 0.0
    if ratio >= TWICE:
        return f"{gap}: {number(float(f'{ratio:.3g}'))} times {side}"
    return f"{gap}: {abs(figure.value / limit - 1):.0%} {side}" if limit else gap


def _report(title: str, rows: list[Row], first: tuple[str, ...], conflicts: tuple[str, ...], mark: str) -> Report:
    """A row per line; below it the reasons, each once."""
    shown = tuple((row.line, _short_wish(row), _short_find(row), WORDS[row.met]) for row in rows)
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row.met is not True or row.figure is None:
            reasons.setdefault(row.by or row.found, []).append(row.line)
    notes = [text if len(lines) > 1 else f"{lines[0]}: {text}" for text, lines in reasons.items()]
    notes += [f"{row.line}: {row.figure.note}" for row in rows if row.figure and row.figure.note]
    if any(row.figure and row.figure.origin is Origin.MODELLED for row in rows):
        notes.append(MARGIN)
    table = Table("lines", ("line", "wanted", "found", ""), shown)
    return Report(
        title, (), (table,), (*first, *notes, *(f"pull against each other: {text}" for text in conflicts)), mark
    )


def _short_wish(row: Row) -> str:
    """What fits a column: the limit, without the chip that it is measured by."""
    return row.wanted.partition(" of ")[0] if row.wanted[:1] in "<>0123456789" else "yes"


def _short_find(row: Row) -> str:
    return row.found if row.figure else "-"
