"""How good bytes are made bad: by position, by structure (JSON, YAML, GGUF) and by what parsers are known to trip over.

Every mutator takes a `random.Random` and something good, and gives bytes. Same generator, same bytes.
"""

import json
import struct
from random import Random
from typing import Any

EDGES = (
    0,
    1,
    2,
    7,
    8,
    31,
    32,
    255,
    256,
    65_535,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**53,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
"""Numbers at which lengths, counts and offsets go wrong."""
DEEP = (5, 60, 200, 990, 3_000, 100_000)
"""How deep lists are nested."""


def pick(rng: Random, *choices: Any) -> Any:
    """One of `choices`; a function is called."""
    choice = rng.choice(choices)
    return choice() if callable(choice) else choice


# --- bytes ------------------------------------------------------------------------------------------


def place(rng: Random, size: int, head: int) -> int:
    """A position in `size` bytes, mostly in the first `head`, where the structure is."""
    most = min(size, head) if rng.random() < 0.85 else size
    return rng.randrange(max(most, 1))


def mutate_bytes(rng: Random, raw: bytes, head: int) -> bytes:
    """One to three blows: cut, flip, overwrite by an edge number, delete, repeat, insert, move."""
    data = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(BLOWS)(rng, data, place(rng, len(data), head))
    return bytes(data)


def _cut(rng: Random, data: bytearray, at: int) -> None:
    del data[at:]


def _flip(rng: Random, data: bytearray, at: int) -> None:
    if data:
        data[at] ^= 1 << rng.randrange(8)


def _set(rng: Random, data: bytearray, at: int) -> None:
    if data:
        data[at] = rng.choice((0, 1, 10, 34, 39, 92, 127, 128, 192, 255, rng.randrange(256)))


def _edge(rng: Random, data: bytearray, at: int) -> None:
    size = rng.choice((4, 8))
    at -= rng.choice((0, at % size))
    value = rng.choice(EDGES) + rng.choice((-1, 0, 0, 1))
    data[at : at + size] = (value % (1 << 8 * size)).to_bytes(size, "little")


def _delete(rng: Random, data: bytearray, at: int) -> None:
    del data[at : at + rng.choice((1, 2, 4, 8, 16, 64))]


def _repeat(rng: Random, data: bytearray, at: int) -> None:
    size = rng.choice((1, 2, 4, 8, 16, 64, 300))
    data[at:at] = data[at : at + size] * rng.choice((1, 1, 2, 20))


def _insert(rng: Random, data: bytearray, at: int) -> None:
    data[at:at] = rng.choice((b"\0", b"\xff" * 8, b"\n", b'"', b"\xed\xa0\x80", rng.randbytes(rng.choice((1, 4, 8)))))


def _move(rng: Random, data: bytearray, at: int) -> None:
    size, source = rng.choice((1, 4, 8, 32, 64)), rng.randrange(len(data) or 1)
    data[at : at + size] = data[source : source + size]


BLOWS = (_cut, _flip, _set, _edge, _edge, _delete, _repeat, _insert, _move)


# --- trees: what JSON and YAML hold -----------------------------------------------------------------


def deep(rng: Random) -> "Verbatim":
    """Lists or mappings within each other, as text."""
    depth = rng.choice(DEEP)
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}")))
    return Verbatim(opening * depth + "1" + closing * depth)


class Verbatim(str):
    """Text that stands in the file as it is."""


def odd_value(rng: Random) -> Any:
    """A value that nobody expects."""
    return pick(
        rng,
        None, True, False, 0, -1, 1, 0.5, -0.0, 1e308, 1e-320, "", "a", "\ud800", "\u2028", "a\nb\x1b[31m", "x" * 5_000, [], {}, [[]],
        [1, "a", None], {"a": {"b": []}}, [0] * 2_000,
        lambda: rng.choice(EDGES), lambda: -rng.choice(EDGES), lambda: float(rng.choice(EDGES)), lambda: deep(rng),
        lambda: Verbatim(rng.choice(("NaN", "Infinity", "-Infinity", "1e999", "-1e999", ".nan", ".inf"))),
        lambda: Verbatim("9" * rng.choice((20, 400, 4_300, 5_000))), lambda: Verbatim("0x" + "f" * rng.choice((20, 4_000, 9_000))),
        lambda: {f"k{i}": i for i in range(rng.choice((1, 300)))},
    )  # fmt: skip


def paths(tree: Any, at: tuple = ()) -> list[tuple]:
    """The way to every value in a tree, the tree itself left out."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path for key, value in items for path in ((*at, key), *paths(value, (*at, key)))]


def copied(tree: Any) -> Any:
    """A tree of its own."""
    if isinstance(tree, dict):
        return {key: copied(value) for key, value in tree.items()}
    return [copied(value) for value in tree] if isinstance(tree, list) else tree


def mutate_tree(rng: Random, tree: Any, known: list[tuple] | None = None) -> Any:
    """One or two values replaced, nudged, removed, renamed, repeated or moved. `known`: paths of `tree`, where they are many."""
    tree = copied(tree)
    if rng.random() < 0.02:
        return odd_value(rng)
    for _ in range(rng.choice((1, 1, 2))):
        where = rng.choice(known if known else paths(tree) or [()])
        node = tree
        for key in where[:-1]:
            node = node[key] if isinstance(node, list | dict) and _has(node, key) else None
        if where and isinstance(node, list | dict) and _has(node, where[-1]):
            rng.choice(TURNS)(rng, node, where[-1])
    return tree


def _has(node: Any, key: Any) -> bool:
    return key in node if isinstance(node, dict) else isinstance(key, int) and key < len(node)


def _replace(rng: Random, node: Any, key: Any) -> None:
    node[key] = odd_value(rng)


def _nudge(rng: Random, node: Any, key: Any) -> None:
    value = node[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        node[key] = [value] if rng.random() < 0.5 else str(value)[: rng.randrange(20)]
    else:
        node[key] = rng.choice(
            (value + 1, value - 1, -value, value * 2, value * 1024, float(value), str(value), rng.choice(EDGES))
        )


def _drop(rng: Random, node: Any, key: Any) -> None:
    del node[key]


def _rename(rng: Random, node: Any, key: Any) -> None:
    if isinstance(node, dict):
        node[rng.choice(("", "x", "__metadata__", f"{key}x", "\x00", "k" * 3_000))] = node.pop(key)
    else:
        node.insert(key, odd_value(rng))


def _again(rng: Random, node: Any, key: Any) -> None:
    if isinstance(node, dict):
        node[rng.choice(list(node))] = node[key]
    else:
        node.append(node[key])


TURNS = (_replace, _replace, _nudge, _nudge, _drop, _rename, _again)


def as_json(tree: Any) -> str:
    """JSON, with `Verbatim` as it stands."""
    kept: list[str] = []

    def hold(value: Any) -> Any:
        if isinstance(value, Verbatim):
            kept.append(value)
            return f"@verbatim{len(kept) - 1}@"
        if isinstance(value, dict):
            return {key: hold(item) for key, item in value.items()}
        return [hold(item) for item in value] if isinstance(value, list) else value

    text = json.dumps(hold(tree))
    for index, verbatim in enumerate(kept):
        text = text.replace(f'"@verbatim{index}@"', verbatim)
    return text


def twice(rng: Random, text: str) -> str:
    """JSON or YAML in flow style with one of its members a second time."""
    commas = [at for at, sign in enumerate(text) if sign == ","]
    if len(commas) < 2:
        return text
    first = rng.randrange(len(commas) - 1)
    member = text[commas[first] : commas[first + 1]]
    return text[: commas[first + 1]] + member + text[commas[first + 1] :]


def mutate_json(rng: Random, tree: Any, known: list[tuple] | None = None) -> bytes:
    """JSON of a mutated tree, sometimes with its text hit as well."""
    text = as_json(mutate_tree(rng, tree, known) if rng.random() < 0.9 else tree)
    if rng.random() < 0.1:
        text = twice(rng, text)
    raw = text.encode("utf-8", "surrogatepass")
    return mutate_bytes(rng, raw, len(raw)) if rng.random() < 0.2 else raw


# --- YAML -------------------------------------------------------------------------------------------

LAUGHS = "".join(f"b{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 9) if i else '1'}]\n" for i in range(12))
MERGES = "".join(
    f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 9)}]}}\n" if i else "m0: &m0 {a: 1}\n" for i in range(9)
)
SNIPPETS = (
    LAUGHS, MERGES, "a: &a [*a]\n", "a: &a {b: *a}\n", "&a a: *a\n", "? [1, 2]\n: 3\n", "? {a: 1}\n: 3\n", "a: *nowhere\n", "<<: 5\n",
    "a: !!python/object/apply:os.system [ls]\n", "a: !!int ''\n", "a: !!int x\n", "a: !!float x\n", "a: !!timestamp x\n",
    "a: !!binary é\n", "a: 2001-99-99\n", "a: 2001-01-01 25:61:61\n", "a: !!null x\n", "a: !!bool x\n", "a: !!set [1]\n", "a: !!omap {a: 1}\n",
    "a: !!pairs [1]\n", "a: !!merge x\n", "a: !!value x\n", "a: !!str [1]\n", "a: !!map [1]\n", "a: !!seq {a: 1}\n", "=: 1\n", "a: =\n",
    "a: 1:2:3:4:5:6\n", "a: " + ":".join(["59"] * 3_000) + "\n", "a: " + ":".join(["59"] * 400) + ".5\n", "a: 0b12\n", "a: 0o9\n",
    "a: 0x\n", "a: 1_000\n", "a: ._\n", "a: -.\n", "a: 1e9999\n", "%YAML 9.9\n---\n", "---\n---\n", "...\n", "\t\n", "a: b: c\n", "- a\n",
    "a: 'x\n", "a: |9\n x\n", "\x00", "\x07", "\ufeff", "a: " + "[" * 2_000, "a: " + "{" * 2_000, "- " * 3_000 + "1\n",
)  # fmt: skip
"""What YAML can say and a spec never should."""


def mutate_yaml(rng: Random, text: str, tree: Any) -> bytes:
    """YAML (or JSON, which is YAML) of a mutated tree, or text with something odd put in."""
    turn = rng.random()
    if turn < 0.5:
        return mutate_json(rng, tree)
    if turn < 0.75:
        lines = text.splitlines(keepends=True)
        at = rng.randrange(len(lines) + 1)
        indent = rng.choice(("", "  ", "    "))
        lines.insert(at, "".join(indent + line for line in rng.choice(SNIPPETS).splitlines(keepends=True)))
        return "".join(lines).encode()
    if turn < 0.9:
        lines = text.splitlines(keepends=True)
        at = rng.randrange(len(lines))
        key, colon, _ = lines[at].partition(":")
        lines[at] = key + colon + " " + as_json(odd_value(rng)) + "\n"
        return "".join(lines).encode("utf-8", "surrogatepass")
    return mutate_bytes(rng, text.encode(), len(text))


# --- GGUF -------------------------------------------------------------------------------------------

Key = tuple[bytes, int, bytes]
"""(key, value type, value)."""
Row = tuple[bytes, tuple[int, ...], int, int]
"""(name, dimensions, type, offset)."""


def gguf_raw(
    keys: list[Key], rows: list[Row], data: bytes, counts: tuple[int, int] | None = None, version: int = 3
) -> bytes:
    """A GGUF file of these parts, whatever they say."""
    tensors, metadata = counts or (len(rows), len(keys))
    out = b"GGUF" + struct.pack("<IQQ", version, tensors, metadata)
    for key, kind, raw in keys:
        out += struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + raw
    for name, shape, kind, offset in rows:
        out += struct.pack("<Q", len(name)) + name + struct.pack("<I", len(shape))
        out += struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", kind, offset)
    return out + bytes(-len(out) % 32) + data


def array(kind: int, count: int, raw: bytes = b"") -> tuple[int, bytes]:
    """A GGUF array that claims `count` elements of `kind`."""
    return 9, struct.pack("<IQ", kind, count) + raw


def odd_gguf_value(rng: Random) -> tuple[int, bytes]:
    """A metadata value of any type, or of none."""
    edge, word = rng.choice(EDGES), struct.pack("<Q", 1) + b"a"
    nested = struct.pack("<IQIQ", 9, 1, 4, 0)
    return pick(
        rng,
        *((kind, struct.pack("<Q", edge)[:size]) for kind, size in SIZES.items()),
        (6, struct.pack("<f", rng.choice((float("nan"), float("inf"), -1.0, 0.0, 1e-45)))),
        (8, struct.pack("<Q", 3) + b"abc"), (8, struct.pack("<Q", 2) + b"\xff\xfe"), (8, struct.pack("<Q", edge)), (8, bytes(8)),
        array(rng.randrange(14), edge), array(8, 2, word + struct.pack("<Q", edge)), array(4, 3, bytes(12)), array(8, 0), array(5, 0),
        array(6, 1, bytes(4)), array(9, 2, nested + nested), array(8, 1, word), (13, b""), (2**32 - 1, b""),
    )  # fmt: skip


SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def mutate_gguf(rng: Random, keys: list[Key], rows: list[Row], data: bytes, aim: bytes = b"") -> bytes:
    """Metadata, table or counts changed; with `aim` only the keys that begin with it."""
    keys, rows, counts, version = list(keys), list(rows), None, 3
    for _ in range(rng.choice((1, 1, 2, 3))):
        aimed = [at for at, row in enumerate(keys) if row[0].startswith(aim)] or [0]
        at, tensor = rng.choice(aimed), rng.randrange(len(rows))
        turn = rng.randrange(4 if aim else 10)
        key, kind, raw = keys[at]
        if turn < 2:
            keys[at] = (key, *odd_gguf_value(rng))
        elif turn == 2:
            keys[at] = (rng.choice((b"", b"\xff", key + b"x", keys[0][0], b"llama.x\n", key * 200)), kind, raw)
        elif turn == 3:
            keys[at] = (key, kind, mutate_bytes(rng, raw, 32))
        elif turn == 4:
            other = rng.choice((rng.choice(list(NAMES)), b"general.alignment", key))
            keys.append((other, *odd_gguf_value(rng)))
        elif turn == 5:
            counts = rng.choice(((rng.choice(EDGES), len(keys)), (len(rows), rng.choice(EDGES))))
        elif turn == 6:
            version = rng.choice((0, 1, 2, 4, 3 << 24, 2**32 - 1))
        else:
            rows[tensor] = _odd_row(rng, rows, tensor)
    raw = gguf_raw(keys, rows, data, counts, version)
    return mutate_bytes(rng, raw, len(raw) - len(data)) if rng.random() < 0.1 else raw


def _odd_row(rng: Random, rows: list[Row], at: int) -> Row:
    name, shape, kind, offset = rows[at]
    edge = rng.choice(EDGES)
    return pick(
        rng,
        (name, (edge, *shape[1:]), kind, offset), (name, (*shape, edge), kind, offset), (name, (), kind, offset), (name, shape[::-1], kind, offset),
        (name, shape, rng.choice((0, 1, 2, 3, 8, 14, 30, 31, 2**31, edge % 2**32)), offset), (name, shape, kind, edge),
        (name, shape, kind, rng.choice(rows)[3]), (name, shape, kind, offset + rng.choice((1, 4, 32))), (rng.choice(rows)[0], shape, kind, offset),
        (rng.choice((b"", b"\xff", b"a\nb", name * 100)), shape, kind, offset), (name, (edge, edge), kind, offset),
    )  # fmt: skip


NAMES = (
    b"tokenizer.ggml.model", b"tokenizer.ggml.pre", b"tokenizer.ggml.tokens", b"tokenizer.ggml.token_type", b"tokenizer.ggml.scores",
    b"tokenizer.ggml.merges", b"tokenizer.ggml.add_bos_token", b"tokenizer.ggml.add_eos_token", b"tokenizer.ggml.bos_token_id",
    b"tokenizer.ggml.add_space_prefix", b"tokenizer.ggml.eos_token_id", b"tokenizer.ggml.unknown_token_id", b"tokenizer.chat_template",
    b"llama.rope.scaling.type", b"llama.rope.scaling.factor", b"llama.expert_count", b"llama.attention.causal", b"split.count", b"llama.vocab_size",
    b"llama.attention.key_length", b"llama.attention.value_length", b"llama.tensor_data_layout", b"general.quantization_version",
)  # fmt: skip
