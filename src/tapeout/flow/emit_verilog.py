"""`tapeout rtl`: the chip as Verilog files, with what the host needs to know."""

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree

from tapeout.base.errors import BadInput
from tapeout.chip.spec import ChipSpec
from tapeout.flow.summary import Summary
from tapeout.report.figure import Figure, Origin, Report, Table

FILE_LIST = "files.f"
MEMORY_MAP = "memory_map.json"


def emit_verilog(
    chip: ChipSpec, folder: Path, note: Callable[[str], None] = lambda text: None, resources: bool = False
) -> Summary:
    """Write a file per module, `files.f` and `memory_map.json` into `folder`, with the lint's waivers, all or nothing. `resources`: also say what the
    chip takes of an FPGA. Raises `BadInput`.
    """
    from tapeout.rtl.host_map import host_map
    from tapeout.rtl.limits import check_banks, check_chip
    from tapeout.rtl.lint import WAIVER_FILE, waiver_text
    from tapeout.rtl.verilog import TOP, modules

    check_chip(chip)
    check_banks(chip)
    if resources:
        from tapeout.rtl.resources import needs_yosys

        needs_yosys()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(str(folder), "exists and is not an empty folder", "name a new one")
    if not folder.absolute().parent.is_dir():
        raise BadInput(str(folder), f"the folder {folder.absolute().parent} does not exist", "make it first")
    note(f"writing the RTL of {chip.name}")
    texts = modules(chip, banked=True)
    names = [f"{name}.v" for name in texts]
    files = {f"{name}.v": text for name, text in texts.items()}
    files |= {
        FILE_LIST: "\n".join(names) + "\n",
        MEMORY_MAP: json.dumps(host_map(chip), indent=1) + "\n",
        WAIVER_FILE: waiver_text(),
    }
    _write(folder, files)
    figures = [
        Figure("modules", float(len(texts)), "", Origin.MEASURED), Figure("verilog_lines", float(sum(t.count("\n") for t in texts.values())),
        "lines", Origin.MEASURED),
    ]  # fmt: skip
    tables = [Table("files", ("file", "lines"), tuple((name, files[name].count("\n")) for name in names))]
    if resources:
        found, table = _resources(chip, note)
        figures, tables = [*figures, *found], [table, *tables]
    answer = {
        "chip": chip.name, "path": str(folder), "top": TOP, "files": [*files], "memory_map": MEMORY_MAP,
        "figures": {figure.name: figure.to_json() for figure in figures}, "fingerprint": chip.fingerprint(),
    }  # fmt: skip
    return Summary(
        answer,
        Report(
            f"RTL of {chip.name} in {folder}",
            tuple(figures),
            tuple(tables),
            (f"top module: {TOP}",),
            chip.fingerprint(),
        ),
    )


def _resources(chip: ChipSpec, note: Callable[[str], None]) -> tuple[list[Figure], Table]:
    """What it takes, and of a real device how much that is."""
    from tapeout.rtl.resources import DEVICE, estimate

    taken = estimate(chip, note)
    rows = []
    figures = []
    for name in ("lut", "lut_memory", "dsp", "bram_36k", "flip_flops"):
        value, there = getattr(taken, name), getattr(DEVICE.has, name)
        figures.append(
            Figure(name, float(value), "", Origin.MODELLED, note="Yosys, before placing, modules not merged")
        )
        rows.append((name, value, there, value / there))
    return figures, Table(f"of {DEVICE.name}: {DEVICE.source}", ("resource", "taken", "there", "share"), tuple(rows))


def _write(folder: Path, files: dict[str, str]) -> None:
    """All files in a folder beside, then its name."""
    try:
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.absolute().parent))
    except OSError as error:
        raise BadInput(str(folder), f"cannot be written ({error.strerror})") from error
    try:
        for name, text in files.items():
            (made / name).write_text(text)
        made.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        os.replace(made, folder)
    except BaseException as error:
        rmtree(made, ignore_errors=True)
        if isinstance(error, OSError):
            raise BadInput(str(folder), f"cannot be written ({error.strerror})") from error
        raise
