"""Compile the C files beside this one: python src/tapeout/graph/native/build.py. Also run by hatch_build.py; imports nothing of ours.

Three libraries: `engine-portable.so` for any machine, `engine-v3.so` for x86-64 processors with AVX2 and FMA, `engine-v4.so`
for those with AVX-512 and its VNNI. Each holds `digest()` of its sources, so that one left over from other sources is told apart.
"""

import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
VARIANTS = {
    "portable": (),
    "v3": ("-march=x86-64-v3",),
    "v4": ("-march=x86-64-v4", "-mavx512vnni", "-mprefer-vector-width=512"),
}
"""Name -> what its compilation adds."""
FLAGS = (
    "-std=gnu11",
    "-O3",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fPIC",
    "-shared",
    "-pthread",
)
"""None of them lets a compiler change a value: no fused or reordered binary32."""


def library_path(variant: str) -> Path:
    """Where a variant's library stands once built."""
    return HERE / f"engine-{variant}.so"


def digest() -> str:
    """16 hex digits over the C files and how they are compiled."""
    files = sorted([*HERE.glob("*.c"), *HERE.glob("*.h"), Path(__file__)])
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in files)).hexdigest()[:16]


def variants() -> list[str]:
    """Those that this kind of machine can have."""
    return [name for name in VARIANTS if name == "portable" or platform.machine().lower() in ("x86_64", "amd64")]


def compiler() -> str | None:
    """$CC, or the first of cc, gcc and clang that stands in the path."""
    names = [os.environ["CC"]] if os.environ.get("CC") else ["cc", "gcc", "clang"]
    return next((name for name in names if shutil.which(name)), None)


def build() -> str | None:
    """Compile every variant; why it could not be done, or None."""
    cc = compiler()
    if cc is None:
        return "no C compiler was found"
    sources = [str(path) for path in sorted(HERE.glob("*.c"))]
    for variant in variants():
        out = library_path(variant)
        fresh = out.with_suffix(f".{os.getpid()}.tmp")
        command = [cc, *FLAGS, *VARIANTS[variant], f'-DBUILT_FROM="{digest()}"', *sources, "-o", str(fresh), "-lm"]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode:
            fresh.unlink(missing_ok=True)
            return f"{cc} failed: {made.stderr.strip()[:500]}"
        fresh.replace(out)  # at once: a library that is in use is not overwritten
    return None


if __name__ == "__main__":
    raise SystemExit(build())
