"""Files that people hand over -> text and plain data, at a cost that is bounded by the file's own size.

Whatever is absurd is a `BadInput` before memory is taken for it: files that are no files, documents that are too long, nested too
deeply, refer to themselves, or grow when their aliases are written out; a name that stands twice; numbers of thousands of digits.
"""

import json
import reprlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tapeout.base.errors import BadInput

MOST_TEXT_BYTES = 4 << 20
"""Of a document that people write."""
MOST_NODES = 200_000
"""Values in a YAML document, those of its aliases counted each time."""
MOST_JSON_BYTES = 100_000_000
MOST_JSON_VALUES = 4_000_000
"""Values in a JSON document, by its commas, colons and brackets."""
MOST_DEPTH = 100
MOST_DIGITS = 1_000
"""Signs of a number; what YAML 1.1 calls one may have colons in it and take long to read."""

Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SHOWN = reprlib.Repr()
_SHOWN.maxlevel, _SHOWN.maxstring, _SHOWN.maxother = 4, 120, 120
_SHOWN.maxlist = _SHOWN.maxtuple = _SHOWN.maxdict = _SHOWN.maxset = 12


def shown(value: Any) -> str:
    """`repr` of a value from a file, cut where it is long or deep."""
    if isinstance(value, int) and value.bit_length() > 4 * MOST_DIGITS:
        return "a number of thousands of digits"
    if isinstance(value, int | float) or value is None:
        return repr(value)
    try:
        return _SHOWN.repr(value)
    except ValueError:
        return f"a {type(value).__name__} with a number of thousands of digits"


def read_bytes(path: Path, most: int) -> bytes:
    """All bytes of a regular file. Raises `BadInput`, also for more than `most`, of which none are read."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise BadInput(str(path), "is not a regular file")
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size > most:
                raise BadInput(str(path), f"has {size:,} bytes, more than the {most:,} that such a file may have")
            file.seek(0)
            return file.read(size)
    except OSError as error:
        raise BadInput(str(path), f"cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise BadInput(str(path), f"is no name of a file ({error})") from error


def read_text(path: Path, most: int = MOST_TEXT_BYTES) -> str:
    """The UTF-8 text of a regular file. Raises `BadInput`."""
    try:
        return read_bytes(path, most).decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise BadInput(str(path), f"cannot be read ({error})") from error


# --- JSON -------------------------------------------------------------------------------------------


def parse_json(raw: bytes) -> Any:
    """Plain data of a JSON document. Raises `ValueError` with what is wrong with it, or `RecursionError`."""
    if sum(raw.count(sign) for sign in (b",", b":", b"[", b"{")) > MOST_JSON_VALUES:
        raise ValueError(f"it has more than {MOST_JSON_VALUES:,} values")
    data = json.loads(raw, object_pairs_hook=_once)
    if b"\\ud" in raw or b"\\uD" in raw:
        json.dumps(data, ensure_ascii=False).encode()  # half a surrogate pair is no text: UnicodeEncodeError
    return data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name stands twice")
    return table


# --- YAML -------------------------------------------------------------------------------------------


def parse_yaml(text: str, where: str) -> Any:
    """Plain data of a YAML or JSON document. Raises `BadInput`."""
    try:
        _Walk().over(text)
        return yaml.load(text, Loader=Loader)
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
        raise BadInput(where, f"is not YAML ({' '.join(str(error).split())})") from error


@dataclass(slots=True)
class _Open:
    """A collection that has begun. size: values in it so far."""

    anchor: str | None
    mapping: bool = False
    size: int = 1
    members: int = 0
    keys: set[tuple[str, bool]] = field(default_factory=set)


class _Walk:
    """One pass over the events of a document, in constant memory but for its anchors and the keys of open mappings."""

    def __init__(self) -> None:
        self.open = [_Open(None)]
        self.sizes: dict[str, int] = {}
        """Values behind each anchor, its aliases written out."""

    def over(self, text: str) -> None:
        """Raises `ValueError` with what is wrong, `yaml.YAMLError` where it is not YAML."""
        for event in yaml.parse(text, Loader=Loader):
            turn = _TURNS.get(type(event))
            if turn:
                turn(self, event)

    def scalar(self, event: yaml.ScalarEvent) -> None:
        """A word or a number."""
        if event.implicit[0] and len(event.value) > MOST_DIGITS and event.value[0] in "+-.0123456789":
            raise ValueError(f"a number has {len(event.value):,} digits")
        top = self.open[-1]
        if top.mapping and not top.members % 2:
            key = event.value, event.implicit[0]
            if key in top.keys:
                raise ValueError(f"{shown(event.value)} stands twice in a mapping, the second time in {_line(event)}")
            top.keys.add(key)
        self._add(event.anchor, 1)

    def alias(self, event: yaml.AliasEvent) -> None:
        """What stands behind an anchor, once more."""
        if any(event.anchor == part.anchor for part in self.open):
            raise ValueError(f"*{event.anchor} stands within &{event.anchor} itself, in {_line(event)}")
        self._add(None, self.sizes.get(event.anchor, 1))

    def begin(self, event: yaml.CollectionStartEvent) -> None:
        """A list or a mapping."""
        if len(self.open) > MOST_DEPTH:
            raise ValueError(f"it is nested more than {MOST_DEPTH} deep")
        self.open.append(_Open(event.anchor, isinstance(event, yaml.MappingStartEvent)))

    def end(self, event: yaml.CollectionEndEvent) -> None:
        """Its end."""
        done = self.open.pop()
        self._add(done.anchor, done.size)

    def _add(self, anchor: str | None, size: int) -> None:
        if anchor:
            self.sizes[anchor] = size
        top = self.open[-1]
        top.members += 1
        top.size += size
        if top.size > MOST_NODES:
            raise ValueError(f"it has more than {MOST_NODES:,} values")


def _line(event: yaml.Event) -> str:
    return f"line {event.start_mark.line + 1}"


_TURNS: dict[type, Callable[[_Walk, Any], None]] = {
    yaml.ScalarEvent: _Walk.scalar,
    yaml.AliasEvent: _Walk.alias,
    yaml.SequenceStartEvent: _Walk.begin,
    yaml.MappingStartEvent: _Walk.begin,
    yaml.SequenceEndEvent: _Walk.end,
    yaml.MappingEndEvent: _Walk.end,
}
