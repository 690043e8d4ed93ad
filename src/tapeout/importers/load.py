"""A name, file or folder -> `Model`. Files are told apart by what is in them, never by their ending."""

from dataclasses import replace
from pathlib import Path

from tapeout.base.errors import BadInput
from tapeout.graph.check import check_imported
from tapeout.graph.types import Model
from tapeout.importers.catalogue import catalogue, catalogue_path
from tapeout.importers.gguf import import_gguf
from tapeout.importers.gguf_file import MAGIC
from tapeout.importers.huggingface import import_folder
from tapeout.importers.llama2c import import_llama2c, looks_like_llama2c

KINDS = "a GGUF file, a llama2.c checkpoint, or a Hugging Face folder with config.json"


def load_model(source: str | Path) -> Model:
    """Import a model: a name of the catalogue first, else a path. Raises `BadInput`."""
    if isinstance(source, str) and source in catalogue():
        model = import_path(catalogue_path(source))
        return replace(model, graph=replace(model.graph, name=source), source=source)
    path = Path(source)
    if not _exists(path):
        known = ", ".join(catalogue())
        raise BadInput(str(source), "is neither a file or folder nor the name of a model", f"known names: {known}")
    return import_path(path)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or no name at all
        return False


def import_path(path: Path) -> Model:
    """Import a file or folder by its content. Raises `BadInput`."""
    model = _import_folder(path) if path.is_dir() else _import_file(path)
    try:
        check_imported(model)
    except BadInput as error:
        raise BadInput(f"{path}: {error.where}", error.problem, error.hint) from error
    return model


def _import_folder(path: Path) -> Model:
    if not (path / "config.json").exists():
        raise BadInput(str(path), "is a folder without config.json", f"a model is {KINDS}")
    return import_folder(path)


def _import_file(path: Path) -> Model:
    if not path.is_file():
        raise BadInput(str(path), "is not a regular file", f"a model is {KINDS}")
    try:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
    except OSError as error:
        raise BadInput(str(path), f"cannot be read ({error.strerror})") from error
    if start == MAGIC:
        return import_gguf(path)
    if looks_like_llama2c(path):
        return import_llama2c(path)
    raise BadInput(str(path), "is not a model that is understood", f"a model is {KINDS}")
