"""Seconds from a GGUF file on disk to a checked `Model`, everything unpacked. Usage: import_gguf.py [FILE or NAME]."""

import json
import platform
import resource
import subprocess
import sys
import time

from tapeout.importers.load import load_model


def main() -> None:
    """Print one line of JSON: the best and the first of three imports."""
    source = sys.argv[1] if len(sys.argv) > 1 else "smollm2-135m-instruct"
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        model = load_model(source)
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    if model.tokenizer is not None:
        model.tokenizer.encode("warm")
    tokenizer_seconds = time.perf_counter() - start
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    line = {
        "bench": "import_gguf",
        "source": source,
        "first_s": round(seconds[0], 3),
        "best_s": round(min(seconds), 3),
        "limit_s": 2.0,
        "tokenizer_s": round(tokenizer_seconds, 3),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "parameters": model.graph.parameters,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
