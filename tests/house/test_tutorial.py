"""The tutorial's code runs, and prints what the page says."""

import contextlib
import io
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"


def test_every_block_of_the_tutorial_prints_what_it_says():
    blocks = re.findall(r"```python\n(.*?)```\n```text\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    for code, wanted in blocks:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, "tutorial", "exec"), names)
        assert out.getvalue() == wanted, code
    assert len(blocks) == PAGE.read_text().count("```python")
