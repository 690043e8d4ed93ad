"""A jinja2 environment in which a template pays for what it makes, before it is made. It reaches nothing but its arguments.

A chat template is a program out of a file: it may loop, repeat, pad and nest. Each turn of a loop, call, filter, operator and output costs
as much as it handles or will make, out of one purse; an empty purse ends it. jinja2's own sandbox keeps it from everything else.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

PURSE = 5_000_000
"""Signs, items and turns that a template may make; a real one needs a few times the length of its prompt."""
PER_SIGN = 200
"""What each sign of the prompt adds to the purse."""
CALL, TURN, STEP = 1_000, 50, 5
"""A call, a turn of a loop, and any other step, in signs that are made in the same time."""
WORD_BITS = 32
_NUMBER = re.compile(r"\d+")


class Purse:
    """What is left to pay with."""

    def __init__(self, left: int):
        self.left = left

    def pay(self, price: int) -> None:
        """Raises jinja2's `TemplateError` where that is more than is left."""
        self.left -= price
        if self.left < 0:
            from jinja2 import TemplateError

            raise TemplateError("it makes more than a template may")

    def weigh(self, *values: Any) -> int:
        """Signs and items in `values`, however deep and however often; as much is paid for looking."""
        weight, todo = 0, list(values)
        while todo:
            value, own = todo.pop(), STEP
            if isinstance(value, str | bytes):
                own += len(value)
            elif isinstance(value, int):
                own += value.bit_length() // WORD_BITS
            elif isinstance(value, Mapping):
                todo += [*value.keys(), *value.values()]
            elif isinstance(value, list | tuple | set | frozenset):
                todo += value
            weight += own
            self.pay(own)
        return weight

    def price(self, name: str, value: Any, *arguments: Any) -> None:
        """Pay for a filter or a method `name` of `value`: numbers are widths or counts, and what is put in may be put in everywhere."""
        self.pay(CALL)
        size, put = self.weigh(value), self.weigh(*arguments)
        numbers = sum(abs(number) for number in arguments if isinstance(number, int))
        self.pay(numbers * (size if name in EVERYWHERE else 1))
        if name == "replace":
            old, new = (len(part) if isinstance(part, str) else STEP for part in (*arguments, "", "")[:2])
            self.pay(size // max(old, 1) * new)
        elif name in EVERYWHERE:
            self.pay(size * put)
        if name in FORMATS:
            self.pay(sum(int(digits[:9]) for digits in _NUMBER.findall(value if isinstance(value, str) else "")))

    def operator(self, sign: str, left: Any, right: Any) -> None:
        """Pay for `left` sign `right`."""
        self.pay(STEP)
        sizes = self.weigh(left), self.weigh(right)
        if sign == "%":
            self.price("format", left, *(right if isinstance(right, tuple) else (right,)))
        elif sign == "**" and isinstance(left, int) and isinstance(right, int):
            self.pay(left.bit_length() * abs(right) // WORD_BITS)
        elif sign == "*":
            plain = isinstance(left, int | float) and isinstance(right, int | float)
            one, two = (
                abs(part) if isinstance(part, int) and not plain else size
                for part, size in zip((left, right), sizes, strict=True)
            )
            self.pay(one * two)


EVERYWHERE = frozenset({"join", "translate", "indent", "wordwrap", "expandtabs", "xmlattr", "map", "tojson", "pprint"})
"""Filters and methods that may put an argument in at every place of a value."""
FORMATS = frozenset({"format", "format_map"})
"""Whose value says how wide its fields are."""


def paying_environment(prompt: str, filters: Mapping[str, Callable[..., Any]]) -> "jinja2.Environment":
    """An environment with a purse of its own, and `filters` beside jinja2's: for one rendering of one template."""
    from jinja2 import nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    purse = Purse(PURSE + PER_SIGN * len(prompt))

    class Paying(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"+", "*", "**", "%"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            purse.operator(operator, left, right)
            return super().call_binop(context, operator, left, right)

        def call(__self, __context: Any, __obj: Any, *args: Any, **named: Any) -> Any:
            inner = getattr(__obj, "__wrapped__", __obj)
            purse.price(getattr(inner, "__name__", ""), getattr(inner, "__self__", None), *args, *named.values())
            made = super().call(__context, __obj, *args, **named)
            purse.weigh(made)
            return made

        def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
            tree = super()._parse(source, name, filename)
            for loop in tree.find_all(nodes.For):
                text = sum(len(part.data) for part in loop.find_all(nodes.TemplateData))
                steps = sum(1 for _ in loop.find_all(nodes.Node))
                loop.iter = nodes.Filter(loop.iter, "_turns", [nodes.Const(text + TURN + steps * STEP)], [], None, None)
            for joined in tree.find_all(nodes.Concat):
                joined.nodes = [nodes.Filter(part, "_weighed", [], [], None, None) for part in joined.nodes]
            return tree

    def turns(items: Iterable[Any], price: int) -> Iterator[Any]:
        for item in items:
            purse.pay(price)
            yield item

    def weighed(value: Any) -> Any:
        purse.weigh(value)
        return value

    environment = Paying(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"], finalize=weighed)
    del environment.globals["lipsum"]
    environment.filters = {name: _paid(purse, name, made) for name, made in (environment.filters | filters).items()}
    environment.filters |= {"_turns": turns, "_weighed": weighed}
    return environment


def _paid(purse: Purse, name: str, made: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that is paid for before it works, and what it makes after."""
    skipped = 1 if hasattr(made, "jinja_pass_arg") else 0

    @wraps(made)
    def paid(*args: Any, **named: Any) -> Any:
        value, *arguments = args[skipped:]
        purse.price(name, value, *arguments, *named.values())
        result = made(*args, **named)
        purse.weigh(result)
        return result

    return paid
