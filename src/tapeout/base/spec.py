"""Specs that people write as files: frozen pydantic models that refuse unknown keys, print as YAML and parse back."""

import hashlib
import json
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from tapeout.base.errors import BadInput
from tapeout.base.reading import Loader, parse_yaml, read_text, shown

MANY = 30
"""Fields that a message still lists in full."""


class Spec(BaseModel):
    """Base of every spec. Immutable; unknown keys and non-finite numbers are refused; equal specs have equal text."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_yaml(self) -> str:
        """The text form; `from_text` reads it back to an equal spec."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False, width=110)

    @classmethod
    def from_text(cls, text: str, where: str) -> Self:
        """Parse YAML or JSON text. Raises `BadInput` that names the field, what came and what is allowed."""
        data = parse_yaml(text, where)
        if not isinstance(data, dict):
            raise BadInput(where, f"holds a {type(data).__name__}, not a mapping of fields")
        return cls.from_data(data, where)

    @classmethod
    def from_data(cls, data: dict[str, Any], where: str) -> Self:
        """Build from plain data. Raises `BadInput` with the path of the first wrong field."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise bad_field(error, where, cls) from error

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read a YAML or JSON file. Raises `BadInput`."""
        return cls.from_text(read_text(path), path.name)

    def with_fields(self, changes: dict[str, str], where: str) -> Self:
        """A copy with dotted fields changed: ``{"external.gb_per_s": "136"}``. Raises `BadInput`."""
        data = self.model_dump(mode="json", exclude_none=True)
        for field, text in changes.items():
            *path, last = field.split(".")
            node, cls = data, type(self)
            for depth, key in enumerate(path):
                sub = _part(cls, key, ".".join([where, *path[:depth]]))
                if sub is None or not isinstance(node.get(key), dict):
                    raise BadInput(f"{where}.{field}", f"{where} has no part {key!r}")
                node, cls = node[key], sub
            _known(cls, last, ".".join([where, *path]))
            node[last] = yaml.load(text, Loader=Loader)
        return self.from_data(data, where)

    def fingerprint(self) -> str:
        """16 hex digits over the canonical text: equal specs, equal fingerprints."""
        return fingerprint(self.model_dump(mode="json"))


def fingerprint(data: Any) -> str:
    """16 hex digits of SHA-256 over the canonical JSON of `data`."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def bad_field(error: ValidationError, where: str, cls: type[BaseModel]) -> BadInput:
    """The first of pydantic's complaints as one line of ours."""
    first = error.errors(include_url=False)[0]
    path = ".".join([where, *(str(part) for part in first["loc"])])
    if first["type"] == "extra_forbidden":
        owner = _owner(cls, first["loc"][:-1])
        known = _known_names(owner, str(first["loc"][-1])) if owner else "known here: see the documentation"
        return BadInput(path, "unknown field", known)
    if first["type"] == "missing":
        return BadInput(path, "is missing")
    message = first["msg"].removeprefix("Value error, ")
    came = "" if isinstance(first["input"], dict) else f"{shown(first['input'])}: "
    return BadInput(path, f"{came}{message[0].lower()}{message[1:]}")


def _owner(cls: type[BaseModel] | None, loc: tuple[Any, ...]) -> type[BaseModel] | None:
    for key in loc:
        if cls is None or isinstance(key, int):
            return None
        cls = _submodel(cls, key)
    return cls


def _submodel(cls: type[BaseModel], key: str) -> type[BaseModel] | None:
    field = cls.model_fields.get(key)
    if field is None:
        return None
    for candidate in (field.annotation, *getattr(field.annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _known(cls: type[BaseModel], key: str, where: str) -> None:
    if key not in cls.model_fields:
        raise BadInput(f"{where}.{key}", "unknown field", _known_names(cls, key))


def _known_names(cls: type[BaseModel], key: str) -> str:
    """The fields there are; of very many, those whose names are near."""
    if len(cls.model_fields) <= MANY:
        return f"known here: {', '.join(cls.model_fields)}"
    return f"nearest: {', '.join(get_close_matches(key, cls.model_fields, 5, 0.4)) or 'none'}"


def _part(cls: type[BaseModel], key: str, where: str) -> type[BaseModel] | None:
    _known(cls, key, where)
    return _submodel(cls, key)
