"""What every bench prints: one line of JSON with the machine, the commit and the date."""

import datetime
import json
import os
import platform
import subprocess
from pathlib import Path


def print_line(bench: str, **figures: object) -> None:
    """Print {"bench": ..., figures, machine, cores, load, python, commit, date}. Floats are cut to four digits."""
    rounded = {name: float(f"{x:.4g}") if isinstance(x, float) else x for name, x in figures.items()}
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    where = {"machine": machine(), "cores": os.cpu_count(), "load": load, "python": platform.python_version()}
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    print(json.dumps({"bench": bench, **rounded, **where, "commit": commit(), "date": today}))


def machine() -> str:
    """The processor's name, or its architecture where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def commit() -> str:
    """Short hash of the checkout, with + where files differ from it; empty outside one."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        run = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=False)
        return run.stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
