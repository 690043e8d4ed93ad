"""`import tapeout` is quick and light; its public names are there."""

import subprocess
import sys

HEAVY = "numba torch transformers typer pydantic rich onnx fastapi numpy yaml".split()


def test_importing_the_package_imports_nothing_heavy():
    code = f"import tapeout, sys; print([name for name in {HEAVY} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_public_names_are_there():
    import tapeout

    assert all(callable(getattr(tapeout, name)) for name in tapeout.__all__)
