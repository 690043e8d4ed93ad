"""docs/claims.md is what its tool writes, and every command on it is one that can be typed."""

import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "claims.md"
COMMANDS = re.findall(r"^(?:tapeout|python) .*$", PAGE.read_text(), re.MULTILINE)
VERDICTS = {"holds", "holds in part", "does not hold", "cannot be told"}


@pytest.fixture
def tool():
    """The module that writes the page."""
    sys.path.insert(0, str(ROOT / "tools"))
    import claims_page

    yield claims_page
    sys.path.remove(str(ROOT / "tools"))


def test_the_page_is_what_the_tool_writes(tool):
    assert tool.page() == PAGE.read_text(), "python tools/claims_page.py --write"


def test_every_claim_has_a_verdict_a_command_and_an_error(tool):
    sections = PAGE.read_text().split("\n## ")[1:]
    assert len(sections) == len(tool.CLAIMS)
    verdicts = re.findall(r"^\| [^|]+\. \| ([^|]+) \|$", PAGE.read_text(), re.MULTILINE)
    assert len(verdicts) == len(sections)
    assert set(verdicts) <= VERDICTS
    assert all("```\n" in text and "*Error:* " in text for text in sections)


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_every_command_can_be_typed(command):
    from typer.main import get_command

    from tapeout.cli.main import app

    program, name, *arguments = shlex.split(command)
    if program == "python":
        assert (ROOT / name).is_file()
        return
    commands = get_command(app).commands  # type: ignore[attr-defined]
    with commands[name].make_context(name, arguments):
        pass
