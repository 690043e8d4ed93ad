"""Chat templates, rendered as the `transformers` library renders them: sandboxed jinja2 with trimmed blocks.

The clock is not offered (`strftime_now` is undefined, and templates that ask for it fall back on a fixed date), so the
same prompt is always the same text.
"""

import json
from dataclasses import dataclass
from typing import Any, NoReturn

from tapeout.base.errors import BadInput


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A template and the texts of the tokens it may name; `where` is for messages."""

    where: str
    template: str
    bos_token: str = ""
    eos_token: str = ""

    def render(self, prompt: str) -> str:
        """`prompt` as one user message, ready to be answered. Raises `BadInput` where the template fails, or makes far too much."""
        from tapeout.importers.sandbox import paying_environment

        try:
            environment = paying_environment(prompt, {"tojson": _to_json})
            environment.globals["raise_exception"] = _refuse
            text = environment.from_string(self.template).render(
                messages=[{"role": "user", "content": prompt}],
                add_generation_prompt=True,
                bos_token=self.bos_token,
                eos_token=self.eos_token,
            )
            text.encode()
        except Exception as error:  # a program of somebody else's: whatever it raises
            raise BadInput(self.where, f"the chat template fails ({' '.join(str(error).split())})") from error
        return text


def _refuse(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)
