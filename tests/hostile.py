"""Every kind of file that people give us: good ones, how they are made bad, and the one thing that may come of it.

A file is loaded, or it is refused by a `BadInput` of one line that names it; nothing else is raised, no memory is taken for what it only
claims, and it does not take long. Input `index` of a kind and a seed is always the same bytes.
"""

import json
import random
import struct
import time
import tracemalloc
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
import yaml

import files
from chips import make_chip
from hostile_mutations import (
    as_json,
    mutate_bytes,
    mutate_gguf,
    mutate_json,
    mutate_tree,
    mutate_yaml,
    paths,
)
from programs import assemble
from strategies import random_model
from tapeout.base.errors import BadInput
from tapeout.chip.catalogue import load_datasheet
from tapeout.chip.presets import load_chip
from tapeout.compiler.pipeline import compile as compile_model
from tapeout.flow.results import load_results
from tapeout.importers.load import load_model
from tapeout.isa.check import check_program
from tapeout.isa.opcodes import MicroOp, Op
from tapeout.isa.predict import predict
from tapeout.isa.profile import profile
from tapeout.isa.program import MAGIC, load, save
from tapeout.isa.text import program_lines

CRASHERS = Path(__file__).parent / "crashers"
SLOW_S = 5.0
"""Nothing that fits in these small files may take longer."""
MOST_BYTES = 64 << 20
"""Nor more memory than this."""
LONGEST = 4_000
"""Characters of a message."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of file. file: its path in a folder; around: writes what lies beside it; make: bad bytes; use: load it and use it."""

    file: str
    around: Callable[[Path], object]
    make: Callable[[Random], bytes]
    use: Callable[[Path], object]


def attempt(kind: str, raw: bytes, folder: Path, traced: bool = False) -> tuple[str, str]:
    """("loaded" | "refused" | "failed", what was said or went wrong). `folder` was made ready by `KINDS[kind].around`."""
    row = KINDS[kind]
    path = folder / row.file
    path.write_bytes(raw)
    start = time.perf_counter()
    if traced:
        tracemalloc.start()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            row.use(path)
        told = ("loaded", "")
    except BadInput as error:
        told = _told(error, path)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        told = ("failed", f"{type(error).__name__}: {error}"[:500])
    peak = 0
    if traced:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    took = time.perf_counter() - start
    if took > SLOW_S * (3 if traced else 1):
        return "failed", f"took {took:.1f} s"
    return ("failed", f"took {peak >> 20} MiB") if peak > MOST_BYTES else told


def _told(error: BadInput, path: Path) -> tuple[str, str]:
    text = str(error)
    if not text.isprintable():
        return "failed", f"a message of several lines or with control signs: {text!r:.300}"
    if len(text) > LONGEST:
        return "failed", f"a message of {len(text)} characters: {text:.300}"
    if not any(name in text for name in (path.name, path.parent.name)):
        return "failed", f"a message that names no file: {text:.300}"
    return "refused", text


def make(kind: str, seed: int, index: int) -> bytes:
    """Input `index`."""
    return KINDS[kind].make(random.Random(f"{kind} {seed} {index}"))


# --- models -----------------------------------------------------------------------------------------

TOKENS = ["<|0|>", "<|1|>", "<|2|>", *"abcdefghijklmnopqrstuvwxyz0123456789", "ab"]
assert len(TOKENS) == files.VOCABULARY, "one token per row of the embedding"
TEMPLATE = "{% for m in messages %}{{ bos_token }}{{ m['role'] }}: {{ m['content'] }}{% endfor %}{% if add_generation_prompt %}a{% endif %}"


def use_model(path: Path) -> None:
    """Load a model, and put its tokenizer to use."""
    tokenizer = load_model(path).tokenizer
    if tokenizer is None:
        return
    ids = tokenizer.encode("ab 12 <|1|>é")
    tokenizer.decode(ids)
    if tokenizer.has_chat:
        tokenizer.encode(tokenizer.chat("ab"), begin=False)


def nothing(folder: Path) -> None:
    """Nothing lies beside it."""


def tokenizer_keys(model: str) -> dict[str, tuple[int, bytes]]:
    """A GGUF's tokenizer: gpt2 or llama."""
    kinds = [3] * 3 + [1] * (len(TOKENS) - 3)
    own = {"pre": files.text("smollm"), "merges": files.texts(["a b"])}
    own = own if model == "gpt2" else {"scores": files.numbers(6, [-float(i) for i in range(len(TOKENS))])}
    keys = {
        "model": files.text(model), "tokens": files.texts(TOKENS), "token_type": files.numbers(5, kinds), "bos_token_id": files.u32(1),
        "eos_token_id": files.u32(2), "add_bos_token": files.boolean(True), **own,
    }  # fmt: skip
    named = {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    return named | {"tokenizer.chat_template": files.text(TEMPLATE)}


@cache
def gguf_parts(form: str, model: str) -> tuple[list, list, bytes]:
    """Keys, rows and data of a good GGUF."""
    metadata = files.gguf_metadata() | tokenizer_keys(model)
    keys = [(key.encode(), *value) for key, value in metadata.items() if value]
    rows, data = [], b""
    for name, (kind, shape, raw) in files.gguf_tensors(form).items():
        rows.append((name.encode(), shape[::-1], files.GGUF_TYPES[kind], len(data)))
        data += raw + bytes(-len(raw) % 32)
    return keys, rows, data


@cache
def gguf_good(form: str, model: str) -> tuple[bytes, int]:
    """A good GGUF and the length of what is not numbers."""
    raw = files.gguf_bytes(files.gguf_metadata() | tokenizer_keys(model), files.gguf_tensors(form))
    return raw, len(raw) - len(gguf_parts(form, model)[2])


def make_gguf(rng: Random) -> bytes:
    form, model = rng.choice(("Q4_0", "Q4_1", "Q8_0", "F16", "BF16")), rng.choice(("gpt2", "llama"))
    turn = rng.random()
    if turn < 0.35:
        return mutate_bytes(rng, *gguf_good(form, model))
    return mutate_gguf(rng, *gguf_parts(form, model), b"tokenizer." if turn < 0.6 else b"")


@cache
def safetensors_parts(tied: bool) -> tuple[dict, bytes, list]:
    """Table and numbers of a good safetensors file, and the paths of the table."""
    raw = files.safetensors_bytes({files.folder_name(name): values for name, values in files.floats(0, tied).items()})
    (length,) = struct.unpack_from("<Q", raw)
    table = json.loads(raw[8 : 8 + length])
    return table, raw[8 + length :], paths(table)


def make_safetensors(rng: Random) -> bytes:
    table, data, known = safetensors_parts(rng.random() < 0.7)
    header = mutate_json(rng, table, known) if rng.random() < 0.8 else json.dumps(table).encode()
    length = (
        len(header)
        if rng.random() < 0.9
        else rng.choice((0, 1, 7, 2**31 - 1, 2**63, 2**64 - 1, len(header) + 1, 10**8))
    )
    raw = struct.pack("<Q", length) + header + data
    return mutate_bytes(rng, raw, 8 + len(header)) if rng.random() < 0.3 else raw


CONFIG = files.folder_config()
EXTRA_CONFIG = {
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "rope_scaling": {"type": "default"}, "head_dim": 16,
    "quantization_config": None, "sliding_window": None, "partial_rotary_factor": 1.0, "eos_token_id": [2, 3],
}  # fmt: skip


PACKING = {
    "quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {
        str(bits): {"targets": ["Linear"], "weights": {
            "num_bits": bits, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32, "dynamic": False, "actorder": None,
        }} for bits in (2, 4, 8)
    },
}  # fmt: skip


@cache
def packed_tensors() -> dict:
    """The small model with its matrices as words of codes: of 8 bits, 4 and 2, by turns."""
    rng, tensors = np.random.default_rng(0), {}
    for at, (name, values) in enumerate(files.floats().items()):
        theirs, bits = files.folder_name(name), (8, 4, 2)[at % 3]
        if values.ndim == 1:
            tensors[theirs] = values
            continue
        rows, columns = values.shape
        bytes_of = {8: (1, 255), 4: (0, 255), 2: (0, 0)}[bits]
        words = rng.integers(bytes_of[0], bytes_of[1] + 1, (rows, columns * bits // 8), np.uint8)
        words = words if bits > 2 else np.full_like(words, 0b10_01_11_10)
        tensors[f"{theirs}_packed"] = words.view(np.int32)
        tensors[f"{theirs}_scale"] = rng.normal(0, 0.02, (rows, columns // 32)).astype(np.float16)
        tensors[f"{theirs}_shape"] = np.array([rows, columns], np.int64)
    return tensors


def packed_beside(folder: Path) -> None:
    """A good folder of packed codes."""
    folder_beside(folder)
    (folder / "f" / "model.safetensors").write_bytes(files.safetensors_bytes(packed_tensors()))
    (folder / "f" / "config.json").write_text(json.dumps(CONFIG | {"quantization_config": PACKING}))


@cache
def packed_parts() -> tuple[dict, bytes, list, list]:
    """Table and numbers of it, the paths of the table, and (place, bytes) of the scales and shapes among the numbers."""
    raw = files.safetensors_bytes(packed_tensors())
    (length,) = struct.unpack_from("<Q", raw)
    table = json.loads(raw[8 : 8 + length])
    small = [row["data_offsets"] for name, row in table.items() if name.endswith(("_shape", "_scale", "_packed"))]
    return table, raw[8 + length :], paths(table), small


def make_packed(rng: Random) -> bytes:
    table, data, known, small = packed_parts()
    header = mutate_json(rng, table, known) if rng.random() < 0.5 else json.dumps(table).encode()
    begin, end = rng.choice(small)
    if rng.random() < 0.7:
        hit = mutate_bytes(rng, data[begin:end], end - begin)
        data = data[:begin] + (hit + bytes(end - begin))[: end - begin] + data[end:]
    raw = struct.pack("<Q", len(header)) + header + data
    return mutate_bytes(rng, raw, len(raw)) if rng.random() < 0.2 else raw


def make_packed_config(rng: Random) -> bytes:
    tree = CONFIG | {"quantization_config": PACKING}
    inside = [path for path in paths(tree) if path[0] == "quantization_config"]
    return mutate_json(rng, tree, inside if rng.random() < 0.7 else None)


def make_config(rng: Random) -> bytes:
    return mutate_json(rng, CONFIG | EXTRA_CONFIG if rng.random() < 0.5 else CONFIG)


@cache
def tokenizer_json() -> dict:
    """A good tokenizer.json."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.BPE({token: at for at, token in enumerate(TOKENS)}, [("a", "b")]))
    digits, level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing("<|1|> $A", None, [("<|1|>", 1)])
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in TOKENS[:3]])
    return json.loads(tokenizer.to_str())


TOKENIZER_CONFIG = {
    "bos_token": {"content": "<|1|>"}, "eos_token": "<|2|>", "add_bos_token": True,
    "chat_template": [{"name": "default", "template": TEMPLATE}, {"name": "tools", "template": ""}],
}  # fmt: skip


def folder_beside(folder: Path) -> None:
    """A good Hugging Face folder with everything in it."""
    files.write_folder(
        folder / "f",
        tokenizer__json=json.dumps(tokenizer_json()).encode(),
        tokenizer_config__json=json.dumps(TOKENIZER_CONFIG).encode(),
        generation_config__json=b'{"eos_token_id": [1, 2]}',
    )


def index_beside(folder: Path) -> None:
    """The same, with its weights in two shards."""
    folder_beside(folder)
    weights = {files.folder_name(name): values for name, values in files.floats().items()}
    (folder / "f" / "model.safetensors").unlink()
    for number in (0, 1):
        part = dict(list(weights.items())[number::2])
        (folder / "f" / f"{number}.safetensors").write_bytes(files.safetensors_bytes(part))


@cache
def index_tree() -> dict:
    """Which shard holds what."""
    names = [files.folder_name(name) for name in files.shapes()]
    return {
        "metadata": {"total_size": 1},
        "weight_map": {name: f"{at % 2}.safetensors" for at, name in enumerate(names)},
    }


def make_tokenizer(rng: Random) -> bytes:
    return mutate_json(rng, tokenizer_json())


def make_template(rng: Random) -> bytes:
    if rng.random() < 0.4:
        return mutate_bytes(rng, TEMPLATE.encode(), len(TEMPLATE))
    return (
        rng.choice(TEMPLATES)
        .replace("@", rng.choice(("2", "10**10", "'x'", "none", "messages", "1.5", "-1", "[]")))
        .encode()
    )


TEMPLATES = (
    "{{ 'a' * @ }}", "{{ [1] * @ }}", "{{ 10 ** @ }}", "{{ 2 ** 10 ** @ }}", "{{ 1 / (@) }}", "{{ @ + 'a' }}", "{{ '%99999999999d' % (@) }}",
    "{{ range(@) | list }}", "{{ range(10 ** 10) | list }}", "{{ '{:99999999999}'.format(@) }}", "{{ 'a'.center(@) }}", "{{ 'a'.zfill(10 ** 10) }}",
    "{{ 'a' | center(10 ** 10) }}", "{{ 'a' | indent(10 ** 10) }}", "{{ lipsum(n=10 ** 6) }}", "{{ @[0] }}", "{{ @ | length }}", "{{ @ | tojson }}",
    "{{ messages | tojson(indent=10 ** 10) }}", "{{ cycler(@).next() }}", "{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(@) }}",
    "{% set x = @ %}{{ x.y.z }}", "{{ raise_exception(@) }}", "{% include @ %}", "{% import 'x' as x %}", "{% extends 'x' %}",
    "{{ " + "(" * 300 + "@" + ")" * 300 + " }}", "{% if 1 %}" * 120 + "@" + "{% endif %}" * 120, "{{ @ | round(400) }}", "{{ 'a'.encode() }}",
    "{% set a = [1] * 1000 %}{% set b = [a] * 1000 %}{% set c = [b] * 1000 %}{{ c }}",
    "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "{% set n = namespace(x='ab') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% set a = @ %}" + "{% set a = [a, a, a, a] %}" * 40 + "{{ a ~ a }}", "{% set a = @ %}" + "{% set a = [a, a, a, a] %}" * 40 + "{{ a | tojson }}",
    "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(100) }}",
    "{{ 'x'.replace('', 'y' * 99999).replace('', 'z' * 99999) }}", "{{ ('a' * 9999).join(['b'] * 99999) }}", "{{ '{0:{1}}'.format(1, 10 ** 9) }}",
    "{{ 'a\\n' * 1000 | indent(10 ** 6) }}", "{{ 'a'.expandtabs(@) }}",
    "{{ messages | map(attribute=@) | list }}", "{{ messages | batch(@) | list }}", "{{ messages | slice(10 ** 10) | list }}", "{{ '\\ud800' }}",
    "{{ @ | int | string * 3 }}", "{{ 'x' | replace('', 'y' * 100000) | replace('', 'z' * 100000) }}", "{{ @ | float | int }}", "{{ @ | xmlattr }}",
    "{{ ('9' * 5000) | int }}", "{{ 10 ** 5000 }}", "{{ messages.append(@) }}", "{{ ''.__class__ }}", "{{ self }}", "{% break %}", "{{ @() }}",
)  # fmt: skip


def use_template(path: Path) -> None:
    tokenizer = load_model(path.parent).tokenizer
    assert tokenizer is not None
    tokenizer.encode(tokenizer.chat("ab"), begin=False)


PIECES = [(token.encode(), -float(at)) for at, token in enumerate(TOKENS)]


def llama2c_beside(folder: Path) -> None:
    """A tokenizer beside the checkpoint, and the checkpoint."""
    (folder / "tok40.bin").write_bytes(files.llama2c_tokenizer(PIECES))
    (folder / "m.bin").write_bytes(files.llama2c_bytes())


def make_llama2c(rng: Random) -> bytes:
    return mutate_bytes(rng, llama2c_good(rng.random() < 0.5), 28 if rng.random() < 0.6 else 2_000)


@cache
def llama2c_good(tied: bool) -> bytes:
    """A good checkpoint."""
    return files.llama2c_bytes(tied)


def make_scores(rng: Random) -> bytes:
    raw = files.llama2c_tokenizer(PIECES)
    return mutate_bytes(rng, raw, len(raw))


# --- chips and results ------------------------------------------------------------------------------

CHIP = make_chip("2x2", streamed=True).to_yaml()
DATASHEET = """kind: datasheet
id: own
aliases: [mine]
name: Own
vendor: us
base_chip: nvidia_h100_sxm
int8_tops: 100
fp8_tflops: 50.5
offchip_gb: 16
offchip_tb_per_s: 0.5
recall: [offchip_*, not offchip_gb]
ranges: {offchip_gb: {low: 15, high: 17, why: a doubt}}
assumed: {tdp_w: {value: 75, low: 50, high: 100, why: a guess}}
sources: [nowhere]
notes: none
"""
RESULTS = """- {id: a_b1, chip: nvidia_h100_sxm, model: llama-3.1-8b, kind: decode_rate, chips: 1, concurrency: 1, precision: fp8, parallelism: TP1,
   prompt_tokens: 128, tokens_per_s_per_user: 100.5, ttft_ms: 20, complete: true, seed_row: 3, url: nowhere}
- {id: b, chip: nvidia_h100_sxm, model: llama-3.1-8b, kind: offline_throughput, chips: 8, parallelism: 4 replicas x TP2, power_w: 700,
   tokens_per_s_total: 9000, prompt_tokens: 10, output_tokens: 20, complete: false}
- {id: c, chip: nvidia_h100_sxm, model: llama-3.1-8b, weights: fp8, framework: trtllm, framework_version: '1.0', chips: 8, tensor_parallel: 4,
   expert_parallel: 2, usable: true, why_not: '', prompt_tokens: 1024, output_tokens: 128, concurrency: 4, ttft_ms: 90.5, tpot_ms: 10}
"""
CSV = """id,tp_size,pp_size,mode,system,attention_dp_size,batch_size,isl,osl,silicon_ttft_ms,silicon_tpot_ms,model_path,gemm_quant_mode,\
precision,backend,backend_version,moe_ep_size
a,4,1,agg,h100_sxm,1,8,1024,128,90.5,10.25,meta/llama-3.1-8b,fp8,fp8,trtllm,1.0,1
b,8,2,disagg,b200_sxm,,,2048,256,,,x/y,,bf16,sglang,0.5.1,
"""
TREES = {text: yaml.safe_load(text) for text in (CHIP, DATASHEET, RESULTS)}


def make_yaml(text: str) -> Callable[[Random], bytes]:
    return lambda rng: mutate_yaml(rng, text, TREES[text])


def make_csv(rng: Random) -> bytes:
    if rng.random() < 0.5:
        return mutate_bytes(rng, CSV.encode(), len(CSV))
    rows = [line.split(",") for line in CSV.splitlines()]
    row = rng.choice(rows)
    row[rng.randrange(len(row))] = rng.choice(
        ("", "0", "-1", "nan", "inf", "1e999", "9" * 5_000, "x" * 200_000, "\0", '"', "a\nb", "1,2,3", "\ud800")
    )
    return "\n".join(map(",".join, rows)).encode("utf-8", "surrogatepass")


# --- programs ---------------------------------------------------------------------------------------


@cache
def program_parts(number: int) -> tuple[dict, bytes, list]:
    """Header and arrays of a good program, and the header's paths."""
    import tempfile

    if number == 0:
        program = assemble([MicroOp(Op.OPERAND, a=0x4000, s0=68, tokens=1, columns=64)])
    else:
        small = {"layers": 1, "width": 32, "heads": 2, "kv_heads": 1, "head_dim": 16, "hidden": 32, "vocabulary": 32}
        chip = make_chip(
            "1x1" if number == 1 else "2x2",
            streamed=number == 2,
            tile__sram__kib="64",
            tile__stream_kib=("16" if number == 2 else "0"),
        )
        program = compile_model(random_model(4, **small, context=16), chip)
    with tempfile.TemporaryDirectory() as folder:
        save(program, Path(folder) / "p")
        raw = (Path(folder) / "p").read_bytes()
    newline = raw.index(b"\n", len(MAGIC))
    header = json.loads(raw[len(MAGIC) : newline])
    begin = newline + 1 + -(newline + 1) % 64
    return header, raw[begin:], paths(header)


def make_program(rng: Random) -> bytes:
    header, data, known = program_parts(rng.choice((0, 1, 1, 2)))
    turn = rng.random()
    text = as_json(mutate_tree(rng, header, known) if turn < 0.6 else header).encode("utf-8", "surrogatepass")
    head = MAGIC + text + b"\n"
    if 0.5 < turn < 0.85:
        data = mutate_bytes(rng, data, sum(header["sizes"][:2]))
    raw = head + bytes(-len(head) % 64) + data
    return mutate_bytes(rng, raw, len(head)) if turn > 0.85 else raw


def use_program(path: Path) -> None:
    """All that `tapeout show` does with it short of its model."""
    program = load(path)
    for _ in program_lines(program):
        pass
    program.fingerprint()
    entry = program.entry("token_head")
    try:
        check_program(program)
        profile(program, entry, 0)
        predict(program, entry, program.context - 1)
    except BadInput as error:
        raise BadInput(str(path), str(error)) from error


def use_folder(path: Path) -> None:
    """The folder that a file lies in."""
    use_model(path.parent)


def make_index(rng: Random) -> bytes:
    return mutate_json(rng, index_tree())


def make_tokenizer_config(rng: Random) -> bytes:
    return mutate_json(rng, TOKENIZER_CONFIG)


KINDS = {
    "gguf": Kind("m.gguf", nothing, make_gguf, use_model),
    "safetensors": Kind("f/model.safetensors", folder_beside, make_safetensors, use_folder),
    "packed": Kind("f/model.safetensors", packed_beside, make_packed, use_folder),
    "packed_config": Kind("f/config.json", packed_beside, make_packed_config, use_folder),
    "index": Kind("f/model.safetensors.index.json", index_beside, make_index, use_folder),
    "config": Kind("f/config.json", folder_beside, make_config, use_folder),
    "tokenizer": Kind("f/tokenizer.json", folder_beside, make_tokenizer, use_folder),
    "tokenizer_config": Kind("f/tokenizer_config.json", folder_beside, make_tokenizer_config, use_folder),
    "template": Kind("f/chat_template.jinja", folder_beside, make_template, use_template),
    "llama2c": Kind("m.bin", llama2c_beside, make_llama2c, use_model),
    "scores": Kind("tok40.bin", llama2c_beside, make_scores, lambda path: use_model(path.parent / "m.bin")),
    "chip": Kind("c.yaml", nothing, make_yaml(CHIP), load_chip),
    "datasheet": Kind("d.yaml", nothing, make_yaml(DATASHEET), load_datasheet),
    "results": Kind("r.yaml", nothing, make_yaml(RESULTS), load_results),
    "results_csv": Kind("r.csv", nothing, make_csv, load_results),
    "program": Kind("p", nothing, make_program, use_program),
}  # fmt: skip
"""Every kind by its name, which is also its folder in tests/crashers."""
