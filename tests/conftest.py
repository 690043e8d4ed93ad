"""What tests of every folder share."""

import sys

import pytest


@pytest.fixture
def tapeout(monkeypatch, capsys):
    """Run a command: (exit code, standard output, standard error)."""
    from tapeout.cli.main import main

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tapeout", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        seen = capsys.readouterr()
        return code, seen.out, seen.err

    return call
