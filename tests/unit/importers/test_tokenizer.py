"""Tokenizers: from GGUF metadata, from tokenizer.json, by scores; and chat templates."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from files import VOCABULARY, boolean, byte_symbols, gguf_bytes, gguf_metadata, numbers, text, texts, u32, write_folder
from tapeout.base.errors import BadInput
from tapeout.importers.chat import ChatTemplate
from tapeout.importers.gguf_file import read_gguf
from tapeout.importers.gguf_tokenizer import gguf_tokenizer
from tapeout.importers.scored import ScoredTokenizer, Vocabulary
from tapeout.importers.tokenizer import folder_tokenizer

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ġ t", "h e", "Ġt he", "1 2"]
TOKENS = [*SPECIALS, *byte_symbols(), "Ġt", "he", "Ġthe", "12"]


def byte_pair_metadata(**changes: Any) -> dict:
    metadata = gguf_metadata(
        tokenizer__ggml__model=text("gpt2"),
        tokenizer__ggml__pre=text("smollm"),
        tokenizer__ggml__tokens=texts(TOKENS),
        tokenizer__ggml__token_type=numbers(5, [3] * len(SPECIALS) + [1] * (len(TOKENS) - len(SPECIALS))),
        tokenizer__ggml__merges=texts(MERGES),
        tokenizer__ggml__bos_token_id=u32(1),
        tokenizer__ggml__eos_token_id=u32(2),
        tokenizer__ggml__add_bos_token=boolean(False),
    )
    return metadata | {f"tokenizer.{key.replace('__', '.')}": value for key, value in changes.items()}


def from_gguf(folder: Path, vocabulary: int = len(TOKENS), **changes: Any):
    path = folder / "m.gguf"
    path.write_bytes(gguf_bytes(byte_pair_metadata(**changes), {}))
    return gguf_tokenizer(read_gguf(path), vocabulary)


def names(ids: list[int]) -> list[str]:
    return [TOKENS[token] for token in ids]


def test_byte_pairs_merge_in_order(tmp_path: Path):
    tokenizer = from_gguf(tmp_path)
    assert names(tokenizer.encode("in the")) == ["i", "n", "Ġthe"]


def test_smollm_cuts_digits_one_by_one_and_gpt2_does_not(tmp_path: Path):
    assert names(from_gguf(tmp_path).encode("12")) == ["1", "2"]
    assert names(from_gguf(tmp_path, ggml__pre=text("gpt-2")).encode("12")) == ["12"]


def test_special_tokens_are_recognised_and_left_out(tmp_path: Path):
    tokenizer = from_gguf(tmp_path)
    ids = tokenizer.encode("<|im_start|>he<|im_end|>")
    assert names(ids) == ["<|im_start|>", "he", "<|im_end|>"]
    assert tokenizer.decode(ids) == "he"
    assert tokenizer.end_ids == frozenset({0, 2})


def test_the_begin_token_stands_in_front_once(tmp_path: Path):
    tokenizer = from_gguf(tmp_path, ggml__add_bos_token=boolean(True))
    assert names(tokenizer.encode("he")) == ["<|im_start|>", "he"]
    assert names(tokenizer.encode("<|im_start|>he")) == ["<|im_start|>", "he"]
    assert names(tokenizer.encode("he", begin=False)) == ["he"]


def test_every_text_survives_bytes(tmp_path: Path):
    tokenizer = from_gguf(tmp_path)
    for words in ("naïve café 東京 🎉", " \n\t tabs  and   spaces ", "12345 it's"):
        assert tokenizer.decode(tokenizer.encode(words)) == words


def test_llama3_and_qwen2_cut_numbers_differently(tmp_path: Path):
    three = {"ggml__tokens": texts([*TOKENS[:-1], "23"]), "ggml__merges": texts([*MERGES[:3], "2 3"])}
    llama3 = from_gguf(tmp_path, ggml__pre=text("llama-bpe"), **three)
    qwen2 = from_gguf(tmp_path, ggml__pre=text("qwen2"), **three)
    assert llama3.encode("1234") == [TOKENS.index("1"), len(TOKENS) - 1, TOKENS.index("4")]
    assert len(qwen2.encode("1234")) == 4


def test_a_merge_of_strangers_is_refused_when_the_vocabulary_is_made(tmp_path: Path):
    tokenizer = from_gguf(tmp_path, ggml__merges=texts(["q q"]))
    with pytest.raises(BadInput, match=r"^m\.gguf: merge 0 \('q q'\) joins tokens that are not in the vocabulary$"):
        tokenizer.encode("a")


def test_a_vocabulary_of_another_size_is_refused(tmp_path: Path):
    with pytest.raises(BadInput, match=r"has 263 tokens, the embedding 40 rows$"):
        from_gguf(tmp_path, VOCABULARY)


def scored_pieces() -> list[tuple[bytes, float]]:
    pieces = [(b"<unk>", 0.0), (b"<s>", 0.0), (b"</s>", 0.0)]
    pieces += [(b"<0x%02X>" % byte, 0.0) for byte in range(256)]
    words = [b" ", b"a", b"b", b"c", b"ab", b"bc", b"abc", b" a", b"aa", b"aaa", b"ca"]
    return pieces + [(word, -float(at % 7)) for at, word in enumerate(words)]


def vocabulary() -> Vocabulary:
    pieces, scores = zip(*scored_pieces(), strict=True)
    return Vocabulary(pieces, scores, {0: "<unk>", 1: "<s>", 2: "</s>"}, 0)


def naive_merge(found: Vocabulary, tokens: list[int]) -> list[int]:
    """llama2.c's loop as it stands."""
    while True:
        best, best_at, best_token = -1e10, -1, -1
        for at in range(len(tokens) - 1):
            joined = found.ids.get(found.text[tokens[at]] + found.text[tokens[at + 1]])
            if joined is not None and found.scores[joined] > best:
                best, best_at, best_token = found.scores[joined], at, joined
        if best_at < 0:
            return tokens
        tokens = [*tokens[:best_at], best_token, *tokens[best_at + 2 :]]


@given(st.text("abc ", max_size=40))
def test_the_heap_merges_as_the_plain_loop_does(words: str):
    found = vocabulary()
    tokens = [token for character in words for token in found.symbols(character)]
    assert found.merge(list(tokens)) == naive_merge(found, tokens)


def test_scored_pieces_fall_back_to_bytes_and_back():
    tokenizer = ScoredTokenizer(vocabulary, 1, frozenset({2}))
    space = vocabulary().ids[b" "]
    assert tokenizer.encode("é") == [1, space, 3 + 0xC3, 3 + 0xA9]
    assert tokenizer.decode(tokenizer.encode("aé b")) == "aé b"
    assert tokenizer.encode("a</s>")[-1] == 2


def test_a_gguf_of_sentencepiece_kind(tmp_path: Path):
    pieces = scored_pieces()
    tokenizer = from_gguf(
        tmp_path,
        len(pieces),
        ggml__model=text("llama"),
        ggml__tokens=texts([piece.decode().replace(" ", "▁") for piece, _ in pieces]),
        ggml__scores=numbers(6, [score for _, score in pieces]),
        ggml__token_type=numbers(5, [2, 3, 3] + [6] * 256 + [1] * (len(pieces) - 259)),
        ggml__add_bos_token=boolean(True),
    )
    assert tokenizer.encode("abc") == ScoredTokenizer(vocabulary, 1, frozenset()).encode("abc")
    assert tokenizer.decode(tokenizer.encode("abc é")) == "abc é"


def test_a_folder_with_template_and_post_processor(tmp_path: Path):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "a": 2, "<unk>": 3}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    config = {
        "bos_token": {"content": "<s>"},
        "eos_token": "</s>",
        "chat_template": "{{ bos_token }}{{ messages[0].content }}",
    }
    folder = write_folder(tmp_path / "f", tokenizer__json=tokenizer.to_str().encode())
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    found = folder_tokenizer(folder, frozenset())
    assert found is not None
    assert (found.encode("a a"), found.end_ids, found.has_chat) == ([0, 2, 2], frozenset({1}), True)
    assert found.encode(found.chat("a")) == [0, 2]
    (folder / "chat_template.jinja").write_text("only {{ messages[0].content }}")
    newer = folder_tokenizer(folder, frozenset())
    assert newer is not None
    assert newer.chat("this") == "only this"


def test_templates_are_trimmed_as_transformers_trims_them():
    lines = ["{% for m in messages %}", "    {% if m.role == 'user' %}", "{{ m.content | tojson }}", "    {% endif %}"]
    template = "\n".join([*lines, "{% endfor %}"])
    assert ChatTemplate("m", template).render("é<") == '"é<"\n'


def test_a_template_that_fails_or_reaches_out_is_refused():
    with pytest.raises(BadInput, match=r"^m: the chat template fails \(no tools here\)$"):
        ChatTemplate("m", "{{ raise_exception('no tools here') }}").render("")
    with pytest.raises(BadInput, match=r"^m: the chat template fails \(access to attribute '__class__'"):
        ChatTemplate("m", "{{ ''.__class__.__mro__ }}").render("")
