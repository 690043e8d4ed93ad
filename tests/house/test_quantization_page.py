"""docs/quantization.md, which takes minutes to write, is of the formats there are."""

from pathlib import Path

import pytest

from tapeout.numerics.formats import FORMATS, KV_FORMATS, MIXES

PAGE = (Path(__file__).parents[2] / "docs" / "quantization.md").read_text()


@pytest.mark.parametrize("name", [*FORMATS, *MIXES, *KV_FORMATS])
def test_the_page_has_a_row_of_every_format(name):
    assert f"\n| `{name}` | " in PAGE, f"run tools/quantization_page.py: {name} has no row"
