"""What is wished of a chip, as a file: lines, each a figure with a limit or a yes-or-no fact. `flow.check` judges a chip by it."""

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tapeout.base.errors import BadInput
from tapeout.base.spec import Spec
from tapeout.chip.datasheet import NUMBERS, unit_of
from tapeout.flow.estimates import FIGURES

Natural = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]

ESTIMATED = FIGURES | {"tokens_per_joule": "tokens/J", "requests_per_chip": "requests"}
"""What `estimate.NAME` may name -> its unit."""
Fact = Literal["formats", "network", "compiles"]
"""formats: multiplied as they are, all of those named. network: one of the words stands in what is known of links. compiles: from one of these."""


class Asked(Spec):
    """The workload of a line; what is not stated comes from the file's own."""

    model: str = "llama-3.1-70b"
    weights: str = "int4"
    chips: Natural = 0
    """0: all of a system, one of a chip."""
    batch: Count = 1
    """Requests open at once; with `per_chip` so many for every chip."""
    per_chip: bool = False
    prompt_tokens: Count = 512
    output_tokens: Count = 128
    recipe: str = ""


class Rival(Spec):
    """Another chip: the line is then about our figure over its. Its workload is the line's, but for what is stated here."""

    chip: str
    chips: Natural = 0
    weights: str = ""


class Line(Spec):
    """`figure` (chip.FIELD of a datasheet, or estimate.FIGURE) with at_least, at_most or both; or `fact` with `of`."""

    line: str
    figure: str = ""
    at_least: float | None = None
    at_most: float | None = None
    workload: Asked | None = None
    against: Rival | None = None
    fact: Fact | None = None
    of: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_kind(self) -> "Line":
        if bool(self.figure) == bool(self.fact):
            raise ValueError("a line has a figure or a fact")
        if self.fact:
            if not self.of or self.at_least is not None or self.at_most is not None or self.workload or self.against:
                raise ValueError("a fact has `of` and nothing else")
            return self
        if self.of or (self.at_least is None and self.at_most is None):
            raise ValueError("a figure has at_least or at_most, and no `of`")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least {self.at_least:g} is more than at_most {self.at_most:g}")
        if self.source == "chip" and self.workload:
            raise ValueError("a workload belongs to an estimate")
        known = {"chip": NUMBERS, "estimate": tuple(ESTIMATED)}.get(self.source)
        if known is None or self.name not in known:
            example = f"estimate.{', estimate.'.join(ESTIMATED)}"
            raise ValueError(
                f"{self.figure!r} is neither {example} nor chip. and a figure of a datasheet, as chip.sram_mb"
            )
        return self

    @property
    def source(self) -> str:
        """chip or estimate."""
        return self.figure.partition(".")[0]

    @property
    def name(self) -> str:
        """The figure without its source."""
        return self.figure.partition(".")[2]

    @property
    def unit(self) -> str:
        """Of the limits; empty for a count or a ratio."""
        return "" if self.against else ESTIMATED.get(self.name, "") if self.source == "estimate" else unit_of(self.name)


class WishList(Spec):
    """The file: lines, and the workload that counts where a line says nothing."""

    name: str
    about: str = ""
    workload: Asked = Asked()
    lines: Annotated[tuple[Line, ...], Field(min_length=1)]

    def asked(self, line: Line, model: str = "") -> Asked:
        """A line's whole workload; `model` is what the user named instead."""
        stated = line.workload.model_dump(exclude_unset=True) if line.workload else {}
        return self.workload.model_copy(update=stated | ({"model": model} if model else {}))


def shipped() -> tuple[str, ...]:
    """Names of the files that ship with the package."""
    folder = resources.files("tapeout") / "data" / "specs"
    return tuple(sorted(Path(item.name).stem for item in folder.iterdir() if item.name.endswith(".yaml")))


def load_wishes(name: str) -> WishList:
    """A shipped file by name, else a path. Raises `BadInput`."""
    if name in shipped():
        text = (resources.files("tapeout") / "data" / "specs" / f"{name}.yaml").read_text(encoding="utf-8")
        return WishList.from_text(text, name)
    if not Path(name).is_file():
        raise BadInput("--spec", f"{name!r} is no file", f"shipped: {', '.join(shipped())}")
    return WishList.from_file(Path(name))
