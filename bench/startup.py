"""How soon something happens: `import tapeout`, and the first word of `tapeout run`. Usage: startup.py.

Every figure is the best of five fresh processes. The kernels are in numba's cache (an install puts them there).
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from line import print_line

RUNS = 5
IMPORT = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
HEAVY = "import sys, tapeout; print(*sorted({'torch', 'onnx', 'fastapi', 'numpy', 'numba'} & set(sys.modules)))"


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def first_word(command: list[str]) -> float:
    """Seconds until the first byte on standard output; the process is then ended."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        got = os.read(process.stdout.fileno(), 1)
        seconds = time.perf_counter() - start
        process.kill()
    assert got, f"{command} printed nothing"
    return seconds


def main() -> None:
    """Print one line of JSON."""
    command = [str(Path(sys.executable).parent / "tapeout"), "run"]
    words = [first_word(command) for _ in range(RUNS)]
    print_line(
        "startup",
        import_s=min(float(python(IMPORT.format("tapeout"))) for _ in range(RUNS)),
        import_limit_s=0.3,
        import_flow_run_s=min(float(python(IMPORT.format("tapeout.flow.run"))) for _ in range(RUNS)),
        loaded_by_import=python(HEAVY).split(),
        first_word_s=min(words),
        first_word_first_s=words[0],
        first_word_limit_s=10.0,
    )


if __name__ == "__main__":
    main()
