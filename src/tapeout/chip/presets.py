"""Chips by name: presets and datasheets are YAML files in the package; a user's own is one more such file."""

from importlib import resources
from pathlib import Path

from tapeout.base.errors import BadInput
from tapeout.chip.catalogue import datasheet, find, is_datasheet, load_datasheet, unknown
from tapeout.chip.datasheet import Datasheet
from tapeout.chip.spec import ChipSpec


def preset_names() -> tuple[str, ...]:
    """The presets that ship with the package."""
    folder = resources.files("tapeout") / "data" / "chips"
    return tuple(sorted(Path(item.name).stem for item in folder.iterdir() if item.name.endswith(".yaml")))


def preset_text(name: str) -> str:
    """The YAML of a preset, comments and all. Raises `BadInput` with the names there are."""
    if name not in preset_names():
        sheet = find(name)
        if sheet:
            raise _not_buildable(sheet.id)
        raise BadInput("chip", f"{name!r} is no preset", f"presets: {', '.join(preset_names())}; or give a YAML file")
    return (resources.files("tapeout") / "data" / "chips" / f"{name}.yaml").read_text()


def load_chip(name: str | Path) -> ChipSpec:
    """A preset by name, or a chip of one's own from a YAML file. Raises `BadInput`."""
    if isinstance(name, Path) or name.endswith((".yaml", ".yml", ".json")) or "/" in name:
        if is_datasheet(Path(name)):
            raise _not_buildable(str(name))
        return ChipSpec.from_file(Path(name))
    return ChipSpec.from_text(preset_text(name), name)


def load(name: str | Path) -> ChipSpec | Datasheet:
    """A preset, a chip or system of the catalogue, or a file of either kind: a datasheet says `kind: datasheet`. Raises `BadInput`."""
    if isinstance(name, Path) or name.endswith((".yaml", ".yml", ".json")) or "/" in name:
        return load_datasheet(name) if is_datasheet(Path(name)) else load_chip(name)
    if name in preset_names():
        return load_chip(name)
    if find(name):
        return datasheet(name)
    raise unknown(name, preset_names())


def _not_buildable(name: str) -> BadInput:
    return BadInput(
        "chip",
        f"{name} is a datasheet: figures that were published, not a chip that can be built",
        f"tapeout estimate takes it; presets: {', '.join(preset_names())}",
    )
