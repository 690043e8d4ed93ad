"""Tokenizers of the `tokenizers` library behind `graph.types.Tokenizer`, from a tokenizer.json or built from a GGUF.

The library, and the vocabulary, are loaded when the first text is encoded or decoded.
"""

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tapeout.base.errors import BadInput
from tapeout.importers.chat import ChatTemplate

if TYPE_CHECKING:
    import tokenizers

END_TOKENS = frozenset(
    {"</s>", "<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|end|>", "<|eot|>"}
)
"""Special tokens that end a text or a turn wherever they appear in a vocabulary."""


class LibraryTokenizer:
    """A tokenizer of the library. `build` makes it, at the first use."""

    def __init__(
        self,
        build: "Callable[[], tokenizers.Tokenizer]",
        begin_ids: tuple[int, ...],
        end_ids: frozenset[int],
        template: ChatTemplate | None = None,
    ):
        self._build, self._begin_ids, self._template = build, begin_ids, template
        self.end_ids = end_ids
        self.has_chat = template is not None

    @cached_property
    def _tokenizer(self) -> "tokenizers.Tokenizer":
        return self._build()

    def encode(self, text: str, begin: bool = True) -> list[int]:
        """Token ids of `text`, special tokens in it recognised.

        The begin-of-text token goes in front where the model has one, unless `text` (a chat template's) brings it.
        """
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        front = list(self._begin_ids) if begin else []
        return ids if ids[: len(front)] == front else front + ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens left out."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True)

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
    config = read_json(folder / "tokenizer_config.json", default={})
    bos, eos = (_text(config.get(key)) for key in ("bos_token", "eos_token"))
    known = {tokenizer.token_to_id(token) for token in {eos, *END_TOKENS}} - {None}
    template = _template(folder, config)
    return LibraryTokenizer(
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
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise BadInput(str(path), f"cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(str(path), f"is not JSON ({error})") from error
    if not isinstance(data, dict):
        raise BadInput(str(path), f"holds a {type(data).__name__}, not a mapping")
    return data


def _load(path: Path) -> "tokenizers.Tokenizer":
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise BadInput(str(path), f"is not a tokenizer that the tokenizers library reads ({error})") from error


def _text(token: Any) -> str:
    """The text of a special token as tokenizer_config.json gives it: a string, or a mapping with `content`."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else ""


def _template(folder: Path, config: dict[str, Any]) -> str | None:
    """The chat template: chat_template.jinja, else the configuration's (the one named "default" of several)."""
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):
        template = {row.get("name"): row.get("template") for row in template if isinstance(row, dict)}.get("default")
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
