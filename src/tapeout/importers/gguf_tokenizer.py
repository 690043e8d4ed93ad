"""A GGUF's `tokenizer.` metadata -> a tokenizer. Nothing of the vocabulary is made before the first text is encoded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tapeout.base.errors import BadInput
from tapeout.base.reading import shown
from tapeout.graph.types import Tokenizer
from tapeout.importers.chat import ChatTemplate
from tapeout.importers.gguf_file import GGUF, Strings
from tapeout.importers.scored import ScoredTokenizer, Vocabulary
from tapeout.importers.tokenizer import END_TOKENS, LibraryTokenizer

if TYPE_CHECKING:
    import tokenizers

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""GGUF's token types."""

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")


@dataclass(frozen=True, slots=True)
class Pre:
    """How a family cuts a text before byte-pair merges: digits one by one, then a pattern (none: GPT-2's own)."""

    digits: bool = False
    split: str = ""
    whole_words: bool = False
    """A word that is in the vocabulary is taken without looking at the merges."""
    begin: bool = False
    """Whether the begin-of-text token goes in front where the file does not say."""


PRES = {
    "gpt-2": Pre(),
    "smollm": Pre(digits=True),
    "llama-bpe": Pre(split=LLAMA3_SPLIT, whole_words=True, begin=True),
    "qwen2": Pre(split=QWEN2_SPLIT),
}
"""`tokenizer.ggml.pre` by name. Patterns are those of the families' own tokenizer.json."""

KEYS = frozenset(
    f"tokenizer.ggml.{key}"
    for key in (
        "model", "pre", "tokens", "token_type", "scores", "merges", "add_bos_token", "add_eos_token",
        "add_space_prefix", "remove_extra_whitespaces",
    )
)  # fmt: skip


def gguf_tokenizer(gguf: GGUF, vocabulary: int) -> Tokenizer | None:
    """The file's tokenizer, or None where it has none. Raises `BadInput` for one that is not understood."""
    where, metadata = gguf.file.name, gguf.metadata
    model = _word(metadata.get("tokenizer.ggml.model", "none"))
    if model == "none":
        return None
    for key in metadata:
        if key.startswith("tokenizer.ggml.") and key not in KEYS and not key.endswith(("_token_id", "_token_ids")):
            raise BadInput(where, f"{key} is not understood", "it may change how text is cut")
    if model not in MODELS:
        raise BadInput(where, f"tokenizer.ggml.model is {shown(model)}, not one of {', '.join(MODELS)}")
    if _flag(where, metadata, "add_eos_token", False):
        raise BadInput(where, "tokenizer.ggml.add_eos_token is true", "a prompt that ends the text cannot be continued")
    _check_tokens(where, metadata, vocabulary)
    return MODELS[model](where, metadata)


def _check_tokens(where: str, metadata: Mapping[str, Any], vocabulary: int) -> None:
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, Strings):
        raise BadInput(where, "tokenizer.ggml.tokens is not an array of strings")
    if len(tokens) != vocabulary:
        raise BadInput(where, f"tokenizer.ggml.tokens has {len(tokens):,} tokens, the embedding {vocabulary:,} rows")
    types = metadata.get("tokenizer.ggml.token_type")
    if types is not None and not (isinstance(types, np.ndarray) and len(types) == len(tokens)):
        raise BadInput(where, f"tokenizer.ggml.token_type is not an array of {len(tokens):,} numbers")
    for key, value in metadata.items():
        if key.startswith("tokenizer.ggml.") and key.endswith("_token_id") and not _is_id(value, vocabulary):
            raise BadInput(where, f"{key} is {shown(value)}, not a token id below {vocabulary:,}")


def _is_id(value: Any, vocabulary: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < vocabulary


def _word(value: Any) -> str:
    """A name; what is none is no name that is known."""
    return value if isinstance(value, str) else shown(value)


def _flag(where: str, metadata: Mapping[str, Any], key: str, default: bool) -> bool:
    value = metadata.get(f"tokenizer.ggml.{key}", default)
    if not isinstance(value, bool | int):
        raise BadInput(where, f"tokenizer.ggml.{key} is {shown(value)}, not true or false")
    return bool(value)


def _special(metadata: Mapping[str, Any], kind: int) -> list[int]:
    types = metadata.get("tokenizer.ggml.token_type")
    return [] if types is None else np.flatnonzero(types == kind).tolist()


def _end_ids(metadata: Mapping[str, Any]) -> frozenset[int]:
    """Ids of end of text and end of turn: those the file names, and control tokens known by name."""
    named = (metadata.get(f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom"))
    tokens = metadata["tokenizer.ggml.tokens"]
    known = (token for token in _special(metadata, CONTROL) if tokens[token] in END_TOKENS)
    return frozenset([*(token for token in named if token is not None), *known])


def _chat(where: str, metadata: Mapping[str, Any]) -> ChatTemplate | None:
    template = metadata.get("tokenizer.chat_template")
    if not isinstance(template, str):
        return None
    bos, eos = (_token(metadata, key) for key in ("bos", "eos"))
    return ChatTemplate(where, template, bos, eos)


def _token(metadata: Mapping[str, Any], key: str) -> str:
    token = metadata.get(f"tokenizer.ggml.{key}_token_id")
    return "" if token is None else metadata["tokenizer.ggml.tokens"][token]


def _byte_pairs(where: str, metadata: Mapping[str, Any]) -> Tokenizer:
    """GPT-2's kind: byte-level symbols and an ordered list of merges."""
    pre = _word(metadata.get("tokenizer.ggml.pre"))
    if pre not in PRES:
        raise BadInput(where, f"tokenizer.ggml.pre is {shown(pre)}, not one of {', '.join(PRES)}")
    if not isinstance(metadata.get("tokenizer.ggml.merges"), Strings):
        raise BadInput(where, "tokenizer.ggml.merges is not an array of strings")
    begins = _flag(where, metadata, "add_bos_token", PRES[pre].begin)
    prefix = _flag(where, metadata, "add_space_prefix", False)
    bos = metadata.get("tokenizer.ggml.bos_token_id")
    return LibraryTokenizer(
        where,
        build=lambda: _build(where, metadata, PRES[pre], prefix),
        begin_ids=(bos,) if begins and bos is not None else (),
        end_ids=_end_ids(metadata),
        template=_chat(where, metadata),
    )


def _build(where: str, metadata: Mapping[str, Any], pre: Pre, prefix: bool) -> "tokenizers.Tokenizer":
    from tokenizers import AddedToken, Tokenizer, decoders, models

    tokens = list(metadata["tokenizer.ggml.tokens"])
    ids = {token: index for index, token in enumerate(tokens)}
    if len(ids) != len(tokens):
        raise BadInput(where, f"tokenizer.ggml.tokens has {len(tokens) - len(ids):,} tokens twice")
    merges = _merges(where, metadata, ids)
    unknown = metadata.get("tokenizer.ggml.unknown_token_id")
    unk_token = None if unknown is None else tokens[unknown]
    tokenizer = Tokenizer(models.BPE(ids, merges, unk_token=unk_token, ignore_merges=pre.whole_words))
    tokenizer.pre_tokenizer = _pre_tokenizer(pre, prefix)
    tokenizer.decoder = decoders.ByteLevel()
    for kinds, special in (((UNKNOWN, CONTROL), True), ((USER_DEFINED,), False)):
        found = [tokens[index] for kind in kinds for index in _special(metadata, kind)]
        tokenizer.add_tokens([AddedToken(token, special=special, normalized=False) for token in found])
    return tokenizer


def _merges(where: str, metadata: Mapping[str, Any], ids: Mapping[str, int]) -> list[tuple[str, str]]:
    merges = []
    for index, merge in enumerate(metadata["tokenizer.ggml.merges"]):
        left, _, right = merge.partition(" ")
        if not (left in ids and right in ids and left + right in ids):
            raise BadInput(where, f"merge {index} ({merge!r}) joins tokens that are not in the vocabulary")
        merges.append((left, right))
    return merges


def _pre_tokenizer(pre: Pre, add_prefix_space: bool) -> Any:
    from tokenizers import Regex, pre_tokenizers

    steps: list[Any] = []
    if pre.digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if pre.split:
        steps.append(pre_tokenizers.Split(Regex(pre.split), "isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=not pre.split))
    return pre_tokenizers.Sequence(steps)


def _scored(where: str, metadata: Mapping[str, Any]) -> Tokenizer:
    """SentencePiece's kind: pieces with scores, spaces written as U+2581."""
    scores = metadata.get("tokenizer.ggml.scores")
    tokens = metadata["tokenizer.ggml.tokens"]
    if not (isinstance(scores, np.ndarray) and len(scores) == len(tokens)):
        raise BadInput(where, f"tokenizer.ggml.scores is not an array of {len(tokens):,} numbers")
    bos = metadata.get("tokenizer.ggml.bos_token_id", 1)
    if bos >= len(tokens):
        raise BadInput(where, f"has no token {bos}, the begin of text where tokenizer.ggml.bos_token_id is missing")
    specials = [*_special(metadata, UNKNOWN), *_special(metadata, CONTROL)]
    return ScoredTokenizer(
        build=lambda: Vocabulary(
            [token.replace("▁", " ").encode() for token in tokens],
            scores.tolist(),
            {token: tokens[token] for token in specials},
            metadata.get("tokenizer.ggml.unknown_token_id", 0),
        ),
        begin_id=bos if _flag(where, metadata, "add_bos_token", True) else None,
        end_ids=_end_ids(metadata),
        space_in_front=_flag(where, metadata, "add_space_prefix", True),
        template=_chat(where, metadata),
    )


MODELS = {"gpt2": _byte_pairs, "llama": _scored}
"""`tokenizer.ggml.model` by name."""
