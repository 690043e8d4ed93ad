"""The scalar definitions against NumPy's own binary32 where that is IEEE's, and against brute force where it is not."""

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tapeout.numerics import scalar
from tapeout.numerics.formats import FORMATS

FIXED = settings(derandomize=True, max_examples=100, deadline=None, database=None)
usual = st.floats(2.0**-40, 2.0**40, width=32) | st.floats(-(2.0**40), -(2.0**-40), width=32)


@FIXED
@given(usual, usual)
def test_usual_numbers_are_added_multiplied_divided_and_rooted_as_ieee_says(a, b):
    x, y = np.float32(a), np.float32(b)
    assert scalar.mul(a, b) == float(x * y)
    assert scalar.div(a, b) == float(x / y)
    assert scalar.add(a, b) == float(x + y)
    assert scalar.sqrt(abs(a)) == float(np.sqrt(abs(x)))


@FIXED
@given(st.floats(0, 2.0**127, width=32), st.sampled_from([127, 7]))
def test_a_groups_scale_is_the_smallest_of_all_that_reach(greatest, most):
    n, e = scalar.group_scale(greatest, most)
    scale = n * scalar.power(e)
    assert 8 <= n <= 15
    assert e >= -100
    assert most * scale >= Fraction(greatest)
    below = [m * scalar.power(k) for m in range(8, 16) for k in (e - 1, e) if k >= -100]
    assert all(most * other < Fraction(greatest) for other in below if other < scale)


@FIXED
@given(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=32),
    st.sampled_from([127, 7]),
)
def test_a_code_is_never_further_than_the_greatest(x, most):
    codes, n, e = scalar.quantize_group(x, most)
    assert max(abs(code) for code in codes) <= most
    error = max(abs(Fraction(v) - code * n * scalar.power(e)) for v, code in zip(x, codes, strict=True))
    assert error <= Fraction(501, 1000) * n * scalar.power(e)


@FIXED
@given(st.integers(0, 0xFFFF).filter(lambda bits: bits & 0x7C00 != 0x7C00))
def test_a_split_binary16_is_its_value(bits):
    m, e = scalar.split_fp16(bits)
    assert m * scalar.power(e) == Fraction(float(np.uint16(bits).view(np.float16)))


def test_every_formats_codes_are_signed_and_fit_their_bits():
    for form in FORMATS.values():
        if form.values:
            assert len(form.values) == 2**form.code_bits
            assert (form.low, form.high) == (min(form.values), max(form.values))
        else:
            assert -(2 ** (form.code_bits - 1)) <= form.low <= form.high < 2 ** (form.code_bits - 1)
        assert form.group % 32 == 0 or form.group == 16
    assert FORMATS["int4m"].bits_per_weight == 5.0
    assert FORMATS["int8"].bits_per_weight == 8.5
