"""Texts that models are scored on: read, written as people write, and cut into windows. `tapeout eval` and bench/accuracy.py share it."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tapeout.base.errors import BadInput
from tapeout.graph.types import Tokenizer

JOINS = (
    (r" @([-,.])@ ", r"\1"),  # signs that the tokeniser cut words and numbers at
    (r" (n't|'(?:s|re|ve|ll|d|m|t))\b", r"\1"),  # English endings: it 's, did n't
    (r'" ([^"\n]*?) "', r'"\1"'),  # double quotes, by pairs within a line
    (r"(?<=s) '(?= )", "'"),  # the possessive of a plural
    (r" ' ([^'\n]*?) '(?= )", r" '\1'"),  # single quotes, by pairs
    (r"([(\[{]) ", r"\1"),  # brackets open at what follows
    (r" ([)\]}])", r"\1"),  # and close at what precedes
    (r" ([.,:;!?%])(?=[ \n\"')\]]|$)", r"\1"),  # these stand at the word before
    (r"([$£€#]) (?=\d)", r"\1"),  # and these at the number after
    (r"(?<=\d) – (?=\d)", "–"),  # ranges
    (r"(?<==) (?==)", ""),  # headings: = = A = = becomes == A ==
)
"""(pattern, replacement), applied in this order: WikiText's word-separating spaces are taken out again."""
WIKITEXT_SIGN = re.compile(r" @[-,.]@ ")
"""What only WikiText's tokenised form has."""


def detokenise_wikitext(text: str) -> str:
    """Text as people write it from WikiText's tokenised form; `<unk>` stays, and lines lose the blanks around them."""
    for pattern, replacement in JOINS:
        text = re.sub(pattern, replacement, text)
    return "\n".join(line.strip() for line in text.split("\n"))


DETOKENISERS: Mapping[str, Callable[[str], str]] = {"wikitext": detokenise_wikitext}
"""What `--detokenise` takes."""


def read_text(path: Path, detokenise: str = "") -> str:
    """A text file, its tokenised form undone by the detokeniser of that name. Raises `BadInput`."""
    if detokenise and detokenise not in DETOKENISERS:
        raise BadInput("--detokenise", f"{detokenise!r} is not known", f"choose from {', '.join(DETOKENISERS)}")
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise BadInput(str(path), f"cannot be read ({error.strerror})", "--text takes a text file") from error
    except UnicodeDecodeError as error:
        raise BadInput(str(path), f"is not UTF-8 text (byte {error.start})") from error
    return DETOKENISERS[detokenise](text) if detokenise else text


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens `start` to `end` of a text, run by themselves; those from `first` on are scored, each from all before it in the window."""

    start: int
    first: int
    end: int

    @property
    def scored(self) -> int:
        """How many tokens are scored."""
        return self.end - self.first


def cut_windows(tokens: int, window: int, stride: int, limit: int = 0) -> tuple[Window, ...]:
    """A window every `stride` tokens until the text ends. Scored is what no window before has seen, but never a window's first token.

    So with stride = window all tokens but the first of each window count, and with less the last `stride` of each window but the first
    one. The last window may be short. `limit`: at most so many tokens are scored, in whole windows; 0: all. Raises `BadInput`.
    """
    if window < 2:
        raise BadInput("--window", f"{window}", "a window has 2 tokens or more: one to predict the other from")
    if not 1 <= stride <= window:
        raise BadInput("--stride", f"{stride}", f"give 1 to the window, {window}")
    if tokens < window:
        raise BadInput(
            "--text", f"has {tokens} tokens, fewer than a window of {window}", "give a smaller --window, or more text"
        )
    if 0 < limit < window - 1 or limit < 0:
        raise BadInput(
            "--tokens",
            f"{limit}",
            f"a window of {window} scores {window - 1}; ask for as many, or 0 for the whole text",
        )
    windows = tuple(_windows(tokens, window, stride))
    scored = 0
    for at, one in enumerate(windows):
        scored += one.scored
        if 0 < limit < scored:
            return windows[:at]
    return windows


def _windows(tokens: int, window: int, stride: int) -> Iterator[Window]:
    seen = 0
    for start in range(0, tokens, stride):
        end = min(start + window, tokens)
        first = max(start + 1, seen)
        if first < end:
            yield Window(start, first, end)
        seen = end
        if end == tokens:
            return


@dataclass(frozen=True, slots=True)
class CutText:
    """Tokens of a text, its windows, and the UTF-8 bytes of what is scored."""

    ids: tuple[int, ...]
    windows: tuple[Window, ...]
    scored_bytes: int

    @property
    def scored(self) -> int:
        """How many tokens are scored."""
        return sum(window.scored for window in self.windows)


def spans(windows: Sequence[Window]) -> list[tuple[int, int]]:
    """(first, end) of the scored tokens, neighbouring windows' joined."""
    found: list[tuple[int, int]] = []
    for window in windows:
        if found and found[-1][1] == window.first:
            found[-1] = (found[-1][0], window.end)
        else:
            found.append((window.first, window.end))
    return found


def text_bytes(tokenizer: Tokenizer, ids: Sequence[int], first: int, end: int) -> int:
    """UTF-8 bytes that tokens `first` to `end` add to the text before them; first >= 1.

    The token before goes along: some tokenizers take the space off what begins a text. A character cut at an end counts 1 byte there.
    """
    return _size(tokenizer.decode(ids[first - 1 : end])) - _size(tokenizer.decode(ids[first - 1 : first]))


def _size(text: str) -> int:
    whole = text.strip("\ufffd")
    return len(whole.encode()) + len(text) - len(whole)
