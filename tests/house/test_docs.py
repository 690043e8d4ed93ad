"""The documents are true: the table of micro-ops, links, commands; and they speak of the project only."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_table_of_micro_ops_is_made_from_the_definitions():
    sys.path.insert(0, str(ROOT / "tools"))
    from isa_table import page

    text = (ROOT / "docs" / "isa.md").read_text()
    assert page(text) == text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_commands_of_the_readme_exist():
    from typer.main import get_command

    from tapeout.cli.main import app

    known = set(get_command(app).commands)
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    lines = re.findall(r"^(?:\$ )?(tapeout|make) (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert {word for tool, word in lines if tool == "tapeout"} <= known
    assert {word for tool, word in lines if tool == "make"} <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_speaks_of_a_machine(page):
    """Paths of the machine that it was written on help nobody who reads it elsewhere."""
    assert re.findall(r"/(?:home/|root|tmp/|work/|Users/)\S*", page.read_text()) == []
