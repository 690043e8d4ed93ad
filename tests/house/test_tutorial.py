"""The pages' code runs, and prints what the page says."""

import contextlib
import io
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [page for page in sorted(DOCS.glob("*.md")) if "```\n```text" in page.read_text()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_a_page_prints_what_it_says(page):
    blocks = re.findall(r"```python\n(.*?)```\n```text\n(.*?)```", page.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    for code, wanted in blocks:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, page.name, "exec"), names)
        assert out.getvalue() == wanted, code
    assert len(blocks) == page.read_text().count("```python")
