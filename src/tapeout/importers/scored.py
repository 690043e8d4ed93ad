"""SentencePiece's byte-pair tokenizer as llama2.c runs it: join the neighbours whose join scores best, again and again.

The `tokenizers` library cannot express it exactly: it ranks pairs, where this ranks results and takes the leftmost of
equals.
"""

import heapq
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from tapeout.importers.chat import ChatTemplate

BYTE_TOKEN = re.compile(rb"<0x([0-9A-F]{2})>")


class Vocabulary:
    """Pieces with scores. specials: id -> text of tokens that are recognised in a text and left out when decoding."""

    def __init__(self, pieces: Sequence[bytes], scores: Sequence[float], specials: Mapping[int, str], unknown: int):
        self.scores, self.specials, self.unknown = scores, specials, unknown
        found = [BYTE_TOKEN.fullmatch(piece) for piece in pieces]
        self.text = [bytes([int(byte[1], 16)]) if byte else piece for piece, byte in zip(pieces, found, strict=True)]
        self.bytes = {self.text[token]: token for token, byte in enumerate(found) if byte}
        ordinary = [token for token, byte in enumerate(found) if not byte and token not in specials]
        self.ids = {pieces[token]: token for token in reversed(ordinary)}
        self.special_ids = {text: token for token, text in specials.items() if text}
        longest_first = sorted(self.special_ids, key=len, reverse=True)
        self._specials = re.compile(f"({'|'.join(map(re.escape, longest_first))})") if longest_first else None

    def parts(self, text: str) -> list[str]:
        """Ordinary text and special tokens in turn, beginning and ending with (perhaps empty) ordinary text."""
        return self._specials.split(text) if self._specials else [text]

    def symbols(self, character: str) -> list[int]:
        """The tokens of one character: its own, else one per byte of its UTF-8."""
        raw = character.encode()
        if raw in self.ids:
            return [self.ids[raw]]
        return [self.bytes.get(raw[i : i + 1], self.unknown) for i in range(len(raw))]

    def merge(self, tokens: list[int]) -> list[int]:
        """Join neighbours, best score first, leftmost among equals, until no join is in the vocabulary."""
        left = list(range(-1, len(tokens) - 1))
        right = [*range(1, len(tokens)), -1][: len(tokens)]
        heap: list[tuple[float, int, int, int, int]] = []

        def offer(a: int, b: int) -> None:
            if a >= 0 and b >= 0:
                joined = self.ids.get(self.text[tokens[a]] + self.text[tokens[b]])
                if joined is not None:
                    heapq.heappush(heap, (-self.scores[joined], a, tokens[a], tokens[b], joined))

        for at in range(len(tokens) - 1):
            offer(at, at + 1)
        while heap:
            _, at, first, second, joined = heapq.heappop(heap)
            after = right[at]
            if tokens[at] != first or after < 0 or tokens[after] != second:
                continue
            tokens[at], tokens[after] = joined, GONE
            right[at] = right[after]
            if right[at] >= 0:
                left[right[at]] = at
            offer(left[at], at)
            offer(at, right[at])
        return [token for token in tokens if token != GONE]


GONE = -1
"""A place whose token was joined into its left neighbour's."""


class ScoredTokenizer:
    """Text to ids and back over a `Vocabulary`, which `build` makes at the first use."""

    def __init__(
        self,
        build: Callable[[], Vocabulary],
        begin_id: int | None,
        end_ids: frozenset[int],
        space_in_front: bool = True,
        template: ChatTemplate | None = None,
    ):
        self._build, self._begin_id, self._space, self._template = build, begin_id, space_in_front, template
        self.end_ids = end_ids
        self.has_chat = template is not None

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return self._build()

    def encode(self, text: str, begin: bool = True) -> list[int]:
        """Token ids of `text`, special tokens in it recognised; the begin-of-text token in front, once."""
        ids = self._ids(text)
        if not begin or self._begin_id is None or ids[:1] == [self._begin_id]:
            return ids
        return [self._begin_id, *ids]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens left out.

        Where the begin-of-text token is the first of `ids`, so is the space that `encode` put after it.
        """
        vocabulary = self._vocabulary
        raw = b"".join(vocabulary.text[token] for token in ids if token not in vocabulary.specials)
        if self._space and ids and ids[0] == self._begin_id:
            raw = raw.removeprefix(b" ")
        return raw.decode(errors="replace")

    def chat(self, prompt: str) -> str:
        """`prompt` as one user message in the model's chat template. Only where `has_chat`."""
        assert self._template is not None, "this model has no chat template"
        return self._template.render(prompt)

    def _ids(self, text: str) -> list[int]:
        vocabulary, ids = self._vocabulary, []
        for index, part in enumerate(vocabulary.parts(text)):
            if index % 2:
                ids.append(vocabulary.special_ids[part])
            elif part:
                words = f" {part}" if self._space else part
                ids += vocabulary.merge([token for character in words for token in vocabulary.symbols(character)])
        return ids
