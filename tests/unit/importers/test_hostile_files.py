"""Files that were made to hurt: a file is loaded or refused in one line that names it, quickly, and takes no memory for what it only claims."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hostile
import hostile_mutations
from files import folder_config, gguf_bytes, write_folder

SEED = 20260
SHARES = {
    "gguf": 1_200, "safetensors": 800, "packed": 400, "packed_config": 300, "index": 400, "config": 800, "tokenizer": 800,
    "tokenizer_config": 500, "template": 500, "llama2c": 600, "scores": 400, "chip": 800, "datasheet": 700, "results": 600,
    "results_csv": 400, "program": 800,
}  # fmt: skip
"""Inputs by kind: 10,000 in all. `bench/fuzz.py` makes as many as one likes."""
ADDRESS_SPACE = 512 << 20
"""What a process may map beyond what it starts with; mapping the absurd file itself comes on top."""
TRACED = 20
"""One input in so many is watched for the memory it takes."""


@pytest.fixture(autouse=True)
def _bounded_memory() -> Iterator[None]:
    """What takes memory without measure fails here, and takes none from the machine."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    if before[0] == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_AS, (mapped + 4 * ADDRESS_SPACE, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def test_there_are_ten_thousand_inputs_of_every_kind():
    assert sum(SHARES.values()) == 10_000
    assert SHARES.keys() == hostile.KINDS.keys()


@pytest.mark.parametrize("kind", SHARES)
def test_a_hostile_file_is_loaded_or_refused(kind: str, tmp_path: Path):
    print(f"seed {SEED}")
    hostile.KINDS[kind].around(tmp_path)
    outcomes: dict[str, int] = {"loaded": 0, "refused": 0}
    for index in range(SHARES[kind]):
        outcome, why = hostile.attempt(kind, hostile.make(kind, SEED, index), tmp_path, index % TRACED == 1)
        assert outcome != "failed", f"make({kind!r}, {SEED}, {index}): {why}"
        outcomes[outcome] += 1
    assert min(outcomes.values()) > SHARES[kind] // 100, f"{outcomes}: nearly all end alike, which says little"


def test_the_same_input_is_the_same_bytes():
    for kind in SHARES:
        assert hostile.make(kind, SEED, 3) == hostile.make(kind, SEED, 3)


CRASHERS = sorted(path for kind in SHARES for path in (hostile.CRASHERS / kind).glob("*.bin"))


@pytest.mark.parametrize("path", CRASHERS, ids=[f"{path.parent.name}-{path.stem}" for path in CRASHERS])
def test_what_once_went_wrong_goes_wrong_no_more(path: Path, tmp_path: Path):
    kind = path.parent.name
    hostile.KINDS[kind].around(tmp_path)
    outcome, why = hostile.attempt(kind, path.read_bytes(), tmp_path, traced=True)
    assert outcome != "failed", why


# --- what no bytes can say: things that are no files, and files of absurd size ----------------------

ABSURD = 1 << 30
"""Bytes of a file that has no blocks on the disk."""
LOADERS = {
    "gguf": ("m.gguf", "m.gguf", "from tapeout.importers.load import load_model as use"),
    "llama2c": ("m.bin", "m.bin", "from tapeout.importers.load import load_model as use"),
    "tok": ("tok40.bin", "m.bin", "from tapeout.importers.load import load_model as use"),
    "config": ("f/config.json", "f", "from tapeout.importers.load import load_model as use"),
    "generation": ("f/generation_config.json", "f", "from tapeout.importers.load import load_model as use"),
    "safetensors": ("f/model.safetensors", "f", "from tapeout.importers.load import load_model as use"),
    "index": ("f/model.safetensors.index.json", "f", "from tapeout.importers.load import load_model as use"),
    "tokenizer": ("f/tokenizer.json", "f", "from tapeout.importers.load import load_model as use"),
    "tokenizer_config": ("f/tokenizer_config.json", "f", "from tapeout.importers.load import load_model as use"),
    "template": ("f/chat_template.jinja", "f", "from tapeout.importers.load import load_model as use"),
    "chip": ("c.yaml", "c.yaml", "from tapeout.chip.presets import load as use"),
    "template chip": ("c.yaml", "c.yaml", "from tapeout.chip.presets import load_chip as use"),
    "datasheet": ("d.yaml", "d.yaml", "from tapeout.chip.catalogue import load_datasheet as use"),
    "results": ("r.yaml", "r.yaml", "from tapeout.flow.results import load_results as use"),
    "results_csv": ("r.csv", "r.csv", "from tapeout.flow.results import load_results as use"),
    "program": ("p", "p", "from tapeout.isa.program import load as use"),
}
"""What the bad thing is, what is loaded, and by what."""
SCRIPT = """
import resource, sys, time, warnings
from pathlib import Path
{use}
from tapeout.base.errors import BadInput
import jinja2.sandbox, tokenizers
mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
for path in sys.argv[2:]:
    resource.setrlimit(resource.RLIMIT_AS, (mapped + int(sys.argv[1]), resource.RLIM_INFINITY))
    start = time.perf_counter()
    try:
        use(Path(path))
        print("loaded", path)
    except BadInput as error:
        print("refused", error)
    assert time.perf_counter() - start < 5, "it took too long"
"""


def shaped(thing: str, path: Path) -> None:
    """Put something in the place of `path` that is no sound file."""
    path.unlink(missing_ok=True)
    match thing:
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path.name)
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "nothing":
            path.touch()
        case "zeros":
            with path.open("wb") as file:
                file.truncate(ABSURD)
        case "dressed":
            with path.open("wb") as file:
                file.write(STARTS.get(path.suffix or path.name, b"{"))
                file.truncate(ABSURD)


STARTS = {
    ".gguf": gguf_bytes()[:300],
    ".safetensors": (10**8).to_bytes(8, "little") + b'{"a": ',
    ".yaml": b"name: ",
    ".csv": b"id,a\n",
    ".bin": b"",
    "p": b"tapeout program 1\n{",
}
"""How an absurd file begins, so that it is taken for what it seems."""
BESIDE = ("tok", "generation", "index", "tokenizer", "tokenizer_config", "template")
"""Files that need not be there, as behind a link that leads nowhere."""
FINE = {("loop", name) for name in BESIDE} | {("nothing", "template")}
THINGS = ("folder", "loop", "pipe", "device", "nothing", "zeros", "dressed")


@pytest.mark.parametrize("name", LOADERS)
def test_what_is_no_sound_file_is_refused_at_no_cost(name: str, tmp_path: Path):
    bad, loaded, use = LOADERS[name]
    places = []
    for thing in THINGS:
        folder = tmp_path / thing
        folder.mkdir()
        hostile.folder_beside(folder)
        hostile.llama2c_beside(folder)
        shaped(thing, folder / bad)
        places.append(str(folder / loaded))
    room = ADDRESS_SPACE + (ABSURD if name in ("gguf", "llama2c", "tok", "safetensors", "program") else 0)
    command = [sys.executable, "-W", "error", "-c", SCRIPT.format(use=use), str(room), *places]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr[-2_000:]
    lines = run.stdout.splitlines()
    assert len(lines) == len(THINGS)
    for thing, line in zip(THINGS, lines, strict=True):
        assert line.startswith("refused ") or (thing, name) in FINE, f"{thing}: {line}"
        assert str(tmp_path / thing) in line or Path(bad).name in line or line.startswith("refused f"), (
            f"{thing}: {line}"
        )


def test_a_deep_document_is_refused_and_not_followed(tmp_path: Path):
    folder = write_folder(tmp_path / "f")
    for depth in (2_000, 100_000, 1_000_000):
        for text in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
            (folder / "config.json").write_text(text)
            assert hostile.attempt("config", text.encode(), tmp_path)[0] == "refused"
            assert hostile.attempt("chip", text.encode(), tmp_path)[0] == "refused"


def test_a_document_that_grows_when_written_out_is_refused(tmp_path: Path):
    told = [
        hostile.attempt("chip", text.encode(), tmp_path, traced=True)
        for text in (hostile_mutations.LAUGHS, hostile_mutations.MERGES)
    ]
    assert [outcome for outcome, _ in told] == ["refused", "refused"]
    assert told[0][1] == "c.yaml: is not YAML (it has more than 200,000 values)"


def test_what_stands_twice_is_refused(tmp_path: Path):
    text = (
        str(folder_config()).replace("'", '"').replace("True", "true").replace("False", "false").replace("None", "null")
    )
    hostile.folder_beside(tmp_path)
    assert hostile.attempt("config", text.encode(), tmp_path)[0] == "loaded"
    twice = text.replace('"vocab_size"', '"hidden_size": 64, "vocab_size"')
    assert hostile.attempt("config", twice.encode(), tmp_path) == (
        "refused",
        f"{tmp_path}/f/config.json: is not JSON (a name stands twice)",
    )
    chip = hostile.CHIP + "clock_mhz: 2000\n"
    line = chip.count("\n")
    assert hostile.attempt("chip", chip.encode(), tmp_path) == (
        "refused",
        f"c.yaml: is not YAML ('clock_mhz' stands twice in a mapping, the second time in line {line})",
    )
