"""The one exception for what a user got wrong, and two for what a program does at run time. Our own mistakes are asserts with text."""


class BadInput(Exception):
    """A mistake in what the user gave: where it is, what came, what is allowed, what to do.

    Printed on one line, exit code 2, no traceback:
    ``chip.tile.matrix.lanes: 12 is not one of 8, 16, 32``
    """

    def __init__(self, where: str, problem: str, hint: str = ""):
        self.where, self.problem, self.hint = where, problem, hint = _plain(where), _plain(problem), _plain(hint)
        super().__init__(f"{where}: {problem}" + (f"; {hint}" if hint else ""))

    def inside(self, parent: str) -> "BadInput":
        """The same error seen from one level further out: `tile` inside `chip` reads `chip.tile`."""
        return BadInput(f"{parent}.{self.where}", self.problem, self.hint)


MOST_SIGNS = 1_200
"""Of each part of a message: names and texts from a file may be of any length."""


def _plain(text: str) -> str:
    """`text` on one line: signs that do not print are escaped, and the middle of what is too long is left out."""
    if len(text) > MOST_SIGNS:
        text = f"{text[: MOST_SIGNS // 2]} ... {text[-MOST_SIGNS // 2 :]}"
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


class Overflow(ArithmeticError):
    """A binary32 result overflowed to infinity at run time; `where` names the op or micro-op."""

    def __init__(self, where: str, detail: str = ""):
        self.where = where
        super().__init__(f"{where}: a result is too large for binary32" + (f" ({detail})" if detail else ""))


class Hazard(Exception):
    """The program did what a chip without handshakes cannot survive; the text names the micro-ops."""
