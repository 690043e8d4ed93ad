"""Tokenizers of the `tokenizers` library behind `graph.types.Tokenizer`, from a tokenizer.json or built from a GGUF.

The library, and the vocabulary, are loaded when the first text is encoded or decoded.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapeout.base.errors import BadInput
from tapeout.base.reading import MOST_JSON_BYTES, parse_json, read_bytes, read_text
from tapeout.importers.chat import ChatTemplate

if TYPE_CHECKING:
    import tokenizers

END_TOKENS = frozenset(
    {"</s>", "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>", "<|eot|>"}
)
"""Special tokens that end a text or a turn wherever they appear in a vocabulary."""


@contextmanager
def library(where: str) -> Iterator[None]:
    """What the library raises or panics with becomes a `BadInput`: all that it works on came from the file."""
    try:
        yield
    except BadInput:
        raise
    except BaseException as error:  # the library raises nothing narrower, and its panics are no `Exception`
        if not (isinstance(error, Exception) or type(error).__name__ == "PanicException"):
            raise
        raise BadInput(where, f"is not a tokenizer that the tokenizers library can use ({error})") from error


class LibraryTokenizer:
    """A tokenizer of the library. `build` makes it, at the first use; `where` is for messages."""

    def __init__(
        self,
        where: str,
        build: "Callable[[], tokenizers.Tokenizer]",
        begin_ids: tuple[int, ...],
        end_ids: frozenset[int],
        template: ChatTemplate | None = None,
    ):
        self._where, self._build, self._begin_ids, self._template = where, build, begin_ids, template
        self.end_ids = end_ids
        self.has_chat = template is not None

    @cached_property
    def _tokenizer(self) -> "tokenizers.Tokenizer":
        with library(self._where):
            return self._build()

    def encode(self, text: str, begin: bool = True) -> list[int]:
        """Token ids of `text`, special tokens in it recognised.

        The begin-of-text token goes in front where the model has one, unless `text` (a chat template's) brings it.
        """
        tokenizer = self._tokenizer
        with library(self._where):
            ids = tokenizer.encode(text, add_special_tokens=False).ids
        front = list(self._begin_ids) if begin else []
        return ids if ids[: len(front)] == front else front + ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens left out."""
        tokenizer = self._tokenizer
        with library(self._where):
            return tokenizer.decode(list(ids), skip_special_tokens=True)

    def chat(self, prompt: str) -> str:
        """`prompt` as one user message in the model's chat template. Only where `has_chat`."""
        assert self._template is not None, "this model has no chat template"
        return self._template.render(prompt)


def folder_tokenizer(folder: Path, end_ids: frozenset[int]) -> LibraryTokenizer | None:
    """The tokenizer of a Hugging Face folder, or None where it has no tokenizer.json. Raises `BadInput`.

    end_ids: those that the model's own configuration names; the tokenizer's are added.
    """
    path = folder / "tokenizer.json"
    if not path.exists():
        return None
    tokenizer = _load(path)
    with library(str(path)):
        return _dressed(folder, tokenizer, end_ids)


def _dressed(folder: Path, tokenizer: "tokenizers.Tokenizer", end_ids: frozenset[int]) -> LibraryTokenizer:
    """The tokenizer with what the folder's configuration says about it."""
    config = read_json(folder / "tokenizer_config.json", default={})
    bos, eos = (_text(config.get(key)) for key in ("bos_token", "eos_token"))
    known = {tokenizer.token_to_id(token) for token in {eos, *END_TOKENS}} - {None}
    template = _template(folder, config)
    return LibraryTokenizer(
        f"{folder.name}/tokenizer.json",
        build=lambda: tokenizer,
        begin_ids=_begin_ids(tokenizer, config, bos),
        end_ids=end_ids | frozenset(token for token in known if token is not None),
        template=None if template is None else ChatTemplate(folder.name, template, bos, eos),
    )


def read_json(path: Path, default: Any = None) -> Any:
    """The JSON mapping in `path`; `default` (if given) where there is no such file. Raises `BadInput`."""
    if default is not None and not path.exists():
        return default
    try:
        data = parse_json(read_bytes(path, MOST_JSON_BYTES))
    except (ValueError, RecursionError) as error:
        raise BadInput(str(path), f"is not JSON ({error})") from error
    if not isinstance(data, dict):
        raise BadInput(str(path), f"holds a {type(data).__name__}, not a mapping")
    return data


def _load(path: Path) -> "tokenizers.Tokenizer":
    from tokenizers import Tokenizer

    raw = read_bytes(path, MOST_JSON_BYTES)
    if raw[:64].lstrip()[:1] != b"{":
        raise BadInput(str(path), "is not a tokenizer that the tokenizers library can use (it is no mapping)")
    with library(str(path)):
        return Tokenizer.from_buffer(raw)


def _text(token: Any) -> str:
    """The text of a special token as tokenizer_config.json gives it: a string, or a mapping with `content`."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else ""


def _template(folder: Path, config: dict[str, Any]) -> str | None:
    """The chat template: chat_template.jinja, else the configuration's (the one named "default" of several)."""
    path = folder / "chat_template.jinja"
    if path.exists():
        return read_text(path)
    template = config.get("chat_template")
    if isinstance(template, list):
        named = [row for row in template if isinstance(row, dict) and row.get("name") == "default"]
        template = named[-1].get("template") if named else None
    return template if isinstance(template, str) else None


def _begin_ids(tokenizer: "tokenizers.Tokenizer", config: dict[str, Any], bos: str) -> tuple[int, ...]:
    """What goes in front of a text: as `add_bos_token` says, else as the tokenizer's own post-processor does it."""
    says = config.get("add_bos_token")
    if isinstance(says, bool):
        bos_id = tokenizer.token_to_id(bos)
        return (bos_id,) if says and bos_id is not None else ()
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    dressed = tokenizer.encode("a", add_special_tokens=True).ids
    starts = (at for at in range(len(dressed)) if dressed[at : at + len(plain)] == plain)
    return tuple(dressed[: next(starts, 0)])
