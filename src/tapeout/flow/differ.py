"""`tapeout diff A.json B.json`: what changed between two JSON outputs of any command."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tapeout.base.errors import BadInput
from tapeout.flow.summary import Summary
from tapeout.report.diff import Change, compare
from tapeout.report.figure import Figure, Origin, Report, Table

NAMES = ("id", "line", "era", "model", "chip", "weights", "point", "name", "family", "kind", "figure")
"""What tells one row of an output from another."""
SAID = ("model", "chip", "weights", "engine", "recipe", "logits_sha256", "text")
"""Words of an output that are compared too, in a note."""
LONG = 40


def diff_report(before: Path, after: Path) -> Summary:
    """The whole command. Raises `BadInput`: a file that is no JSON output, or has no figures."""
    old, new = read_output(before), read_output(after)
    keys = naming(old, new)
    rows = compare(figures_of(old, before, keys), figures_of(new, after, keys))
    reply = {
        "before": str(before), "after": str(after),
        "rows": [{"name": row.name, "before": row.before, "after": row.after, "change": row.change} for row in rows],
        "equal": all(row.before == row.after for row in rows),
    }  # fmt: skip
    changed = tuple(_cells(row) for row in rows if row.before != row.after)
    same = len(rows) - len(changed)
    notes = (f"{len(changed)} changed, {same} the same", *_words(old, new))
    table = Table("what changed", ("figure", "before", "after", "change"), changed)
    return Summary(reply, Report(f"{before.name} to {after.name}", (), (table,), notes, ""))


def read_output(path: Path) -> dict[str, Any]:
    """The one JSON object that a command printed. Raises `BadInput`."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(str(path), f"cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadInput(str(path), f"is not JSON ({error})", "give what a command printed with --json") from error
    if not isinstance(data, dict):
        raise BadInput(str(path), "holds no JSON object", "give what a command printed with --json")
    return data


def naming(*outputs: dict[str, Any]) -> tuple[str, ...]:
    """Of `NAMES`, those that tell rows of one output apart: what all its rows share names none of them."""
    seen = [
        {key: {_word(row[key]) for row in _rows(output) if _is_word(row.get(key))} for key in NAMES}
        for output in outputs
    ]
    return tuple(key for key in NAMES if any(len(words[key]) > 1 for words in seen))


def figures_of(output: dict[str, Any], path: Path, keys: Sequence[str] = NAMES) -> list[Figure]:
    """Every number of `figures`, then of `rows`, each row by its words under `keys`. Raises `BadInput` where there is none."""
    found, rank = _numbers("", output.get("figures")), dict[str, int]()
    for row in _rows(output):
        name = "/".join(_word(row[key]) for key in keys if _is_word(row.get(key)))
        rank[name] = rank.get(name, 0) + 1
        name = " ".join(filter(None, (name, f"#{rank[name]}" if rank[name] > 1 else "")))
        plain = {key: value for key, value in row.items() if key != "figures" and key not in keys}
        for each in (*_numbers("", row.get("figures")), *_numbers("", plain)):
            found.append(Figure(f"{name} {each.name}".strip(), each.value, each.unit, each.origin))
    if not found:
        raise BadInput(
            str(path), "has no figures", "give what run, estimate, validate, compare, ... printed with --json"
        )
    return found


def _rows(output: dict[str, Any]) -> list[dict[str, Any]]:
    rows = output.get("rows")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _is_word(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _numbers(above: str, data: Any) -> list[Figure]:
    """Numbers of a tree of objects, by their path; a figure is its value."""
    if isinstance(data, bool) or not isinstance(data, int | float | dict):
        return []
    if not isinstance(data, dict):
        return [Figure(above, data, "", Origin.MODELLED)]
    if "value" in data and "unit" in data:
        return _numbers(above, data["value"])
    return [each for key, value in data.items() for each in _numbers(f"{above}.{key}" if above else key, value)]


def _word(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _cells(row: Change) -> tuple[Any, ...]:
    sides = ("-" if side is None else side for side in (row.before, row.after))
    return (row.name, *sides, "" if row.change is None else f"{100 * row.change:+.2f} %")


def _words(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Where the two outputs say other words."""
    pairs = [(name, old.get(name), new.get(name)) for name in SAID]
    return [f"{name}: {_short(was)} before, {_short(now)} after" for name, was, now in pairs if was != now]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONG else f"{text[:LONG]}..."
