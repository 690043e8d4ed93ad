"""Text is printed as it settles: a character whose bytes come in several tokens waits for its last one."""

from types import SimpleNamespace

from tapeout.flow.run import TokenPrinter


def printed(tokens: list[int]) -> list[str]:
    """What a model of one token per byte prints, token by token, and at the end."""
    parts: list[str] = []
    tokenizer = SimpleNamespace(decode=lambda ids: bytes(ids).decode(errors="replace"))
    printer = TokenPrinter(SimpleNamespace(tokenizer=tokenizer), parts.append)  # type: ignore[arg-type]
    for token in tokens:
        printer.add(token)
    printer.finish()
    return [part for part in parts if part]


def test_a_character_of_three_tokens_is_printed_once_and_whole():
    assert printed(list("a€b".encode())) == ["a", "€", "b"]


def test_half_a_character_at_the_end_is_shown_as_such():
    assert printed(list("a€".encode())[:3]) == ["a", "\ufffd"]


def test_a_byte_that_is_no_character_does_not_hold_back_what_follows():
    assert "".join(printed([0xFF, *b"ok"])) == "\ufffdok"
