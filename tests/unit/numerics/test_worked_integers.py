"""The worked examples of docs/numerics.md are the test: every `>>>` in it runs and must print what stands there."""

import doctest
import re
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[3] / "docs" / "numerics.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def sections() -> dict[str, list[str]]:
    """The example blocks under each heading of level two; the ones before the first heading under "imports"."""
    parts = re.split(r"^## (.*)$", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    titles = ["imports", *parts[1::2]]
    return {title: BLOCK.findall(text) for title, text in zip(titles, parts[::2], strict=True)}


def run(blocks: list[str], names: dict, title: str) -> str:
    """Run the examples in one set of names; the printed failures."""
    report: list[str] = []
    example = doctest.DocTestParser().get_doctest("\n".join(blocks), names, title, str(DOCUMENT), 0)
    doctest.DocTestRunner(verbose=False).run(example, out=report.append, clear_globs=False)
    names.update(example.globs)
    return "".join(report)


EXAMPLES = {title: blocks for title, blocks in sections().items() if blocks and title != "imports"}


@pytest.mark.parametrize("title", EXAMPLES)
def test_the_documents_numbers_are_what_the_definition_gives(title):
    names: dict = {}
    assert run(sections()["imports"], names, "imports") == ""
    failures = run(EXAMPLES[title], names, title)
    assert not failures, failures


def test_every_rule_of_the_contract_has_worked_numbers():
    assert len(EXAMPLES) == 11
    assert sum(block.count(">>>") for blocks in EXAMPLES.values() for block in blocks) >= 70
