"""Chips by name: the presets are YAML files in the package; a user's chip is one more such file."""

from importlib import resources
from pathlib import Path

from tapeout.base.errors import BadInput
from tapeout.chip.spec import ChipSpec


def preset_names() -> tuple[str, ...]:
    """The presets that ship with the package."""
    folder = resources.files("tapeout") / "data" / "chips"
    return tuple(sorted(Path(item.name).stem for item in folder.iterdir() if item.name.endswith(".yaml")))


def preset_text(name: str) -> str:
    """The YAML of a preset, comments and all. Raises `BadInput` with the names there are."""
    if name not in preset_names():
        raise BadInput("chip", f"{name!r} is no preset", f"presets: {', '.join(preset_names())}; or give a YAML file")
    return (resources.files("tapeout") / "data" / "chips" / f"{name}.yaml").read_text()


def load_chip(name: str | Path) -> ChipSpec:
    """A preset by name, or a chip of one's own from a YAML file. Raises `BadInput`."""
    if isinstance(name, Path) or name.endswith((".yaml", ".yml", ".json")) or "/" in name:
        return ChipSpec.from_file(Path(name))
    return ChipSpec.from_text(preset_text(name), name)
