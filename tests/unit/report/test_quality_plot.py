"""The names beside the dots of the plot of quality."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from tapeout.report.quality_plot import LINE_HIGH, Dot, quality_plot

DOTS = st.lists(st.tuples(st.floats(1, 9), st.floats(-3, 1)), min_size=1, max_size=8)


@given(places=DOTS)
@settings(max_examples=50, deadline=None)
def test_no_name_stands_on_another(places):
    dots = [Dot(f"format{i}", cost, 10**kl, 10**kl, 10**kl) for i, (cost, kl) in enumerate(places)]
    svg = quality_plot({"a text": dots}, "mJ", "a title")
    words = [(float(x), float(y)) for x, y in re.findall(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*>format\d', svg)]
    assert len(words) == len(dots)
    for i, (x, y) in enumerate(words):
        assert all(abs(x - a) >= 7 * len("format0") or abs(y - b) >= LINE_HIGH - 0.2 for a, b in words[:i])
