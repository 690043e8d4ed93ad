"""Material that tests read beside the repository and that is not part of the package: where it is absent they are skipped, visibly."""

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared" / "data"


def needs_shared(name: str) -> pytest.MarkDecorator:
    """Skip where the file is absent."""
    return pytest.mark.skipif(not (SHARED / name).exists(), reason=f"{SHARED / name} is not here")
