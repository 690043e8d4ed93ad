"""`Datasheet`: what was published about a chip, figure by figure, with where it comes from and how far it can be trusted.

Never what can be built (that is `ChipSpec`). A figure is cited from the row's sources, recalled from memory of a public source and unchecked,
or assumed by us with a range and a reason. What nobody published and we would not guess is listed in `unpublished`.
"""

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from tapeout.base.errors import BadInput
from tapeout.base.spec import Spec

Amount = Annotated[float, Field(ge=0)] | None
Count = Annotated[int, Field(ge=0)] | None
Need = Literal["compute", "memory", "power"]
NEEDS: tuple[Need, ...] = ("compute", "memory", "power")
"""What an estimate cannot do without."""

UNITS = {
    "sram_mb": "MB", "_tb_per_s": "TB/s", "_pb_per_s": "PB/s", "_gb_per_s_bidir": "GB/s", "_gbps_per_lane": "Gb/s", "_tops_total": "TOPS",
    "_tflops_total": "TFLOPS", "_tops_per_w": "TOPS/W", "_pj_per_mac": "pJ", "_mm2": "mm²", "_mm2_m": "M/mm²", "_tops": "TOPS", "_tflops": "TFLOPS",
    "_gb_total": "GB", "_gb_max": "GB", "_gb": "GB", "_mb": "MB", "_ghz": "GHz", "_nm": "nm", "_kw": "kW", "_w": "W", "_usd": "USD",
    "_usd_m": "M USD", "transistors_b": "billion", "weights_on_chip_m": "million",
}  # fmt: skip
"""How a figure's name ends -> its unit; the longest ending counts. What has no row is a count or a fraction."""


class FactOrigin(StrEnum):
    """Where a datasheet's figure comes from."""

    CITED = "cited"
    RECALL = "recall"
    """From memory of a public source, unchecked."""
    ASSUMED = "assumed"
    """Our guess, with a range and a reason."""
    OWN = "own"
    """Set by the person who edits the datasheet."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One figure: low <= value <= high. A cited figure that nobody doubts has low = value = high."""

    name: str
    value: float
    unit: str
    origin: FactOrigin
    low: float
    high: float
    why: str = ""
    """The reason of a guess or of a doubt."""
    sources: tuple[str, ...] = ()

    @property
    def spread(self) -> bool:
        """Whether it has a range."""
        return self.low < self.high


class Range(Spec):
    """A published figure that is doubted: what it may also be, and why."""

    low: Annotated[float, Field(ge=0)]
    high: Annotated[float, Field(ge=0)]
    why: str


class Assumed(Spec):
    """A guess for what was not published, and why."""

    value: Annotated[float, Field(ge=0)]
    low: Annotated[float, Field(ge=0)]
    high: Annotated[float, Field(ge=0)]
    why: str


class Datasheet(Spec):
    """A chip, or a system of `chips` chips of kind `base_chip`; a system's memory and its `_total` figures are of all its chips together.

    TOPS and TFLOPS are dense unless a name says sparse.
    """

    kind: Literal["datasheet"] = "datasheet"
    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    aliases: tuple[str, ...] = ()
    name: str
    vendor: str
    family: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")] = "other"
    status: str = ""

    is_system: bool = False
    base_chip: str | None = None
    chips: Count = None
    chips_per_node: Count = None
    nodes_per_rack: Count = None
    topology: str | None = None
    system: str | None = None

    process: str | None = None
    node_nm: Amount = None
    die_mm2: Amount = None
    die_note: str | None = None
    dies_per_package: Count = None
    dies_per_board: Count = None
    asics_per_board: Count = None
    package_mm: str | None = None
    transistors_b: Amount = None
    clock_ghz: Amount = None
    clock_note: str | None = None

    int4_tops: Amount = None
    int8_tops: Amount = None
    fp4_tflops: Amount = None
    fp4_note: str | None = None
    fp8_tflops: Amount = None
    fp8_note: str | None = None
    bfp8_tflops: Amount = None
    fp16_tflops: Amount = None
    fp16_tflops_note: str | None = None
    bf16_tflops: Amount = None
    fp32_tflops: Amount = None
    fp16_sparse_tflops: Amount = None
    int8_tops_total: Amount = None
    fp8_tflops_total: Amount = None
    bfp8_tflops_total: Amount = None
    number_format: str | None = None
    flops_utilisation_claim: Amount = None
    efficiency_tops_per_w: Amount = None
    efficiency_pj_per_mac: Amount = None

    tiles: Count = None
    microarchitecture: str | None = None
    matrix_unit: str | None = None
    noc: str | None = None
    fabric_pb_per_s: Amount = None
    execution_model: str | None = None

    sram_mb: Amount = None
    sram_detail: str | None = None
    sram_tb_per_s: Amount = None
    sram_per_tile_mb: Amount = None
    l2_tb_per_s: Amount = None
    sram_gb_total: Amount = None
    sram_pb_per_s: Amount = None
    weight_storage: str | None = None
    weight_bits: str | None = None
    weights_on_chip_m: Amount = None
    """Weights held in ROM, metal or flash, where they are multiplied."""
    weights_per_mm2_m: Amount = None
    offchip_type: str | None = None
    offchip_gb: Amount = None
    offchip_gb_max: Amount = None
    offchip_note: str | None = None
    offchip_tb_per_s: Amount = None
    offchip_bw_note: str | None = None
    ddr_gb: Amount = None
    ddr_tb_per_s: Amount = None

    c2c_links: Count = None
    c2c_lanes_per_link: Count = None
    c2c_gbps_per_lane: Amount = None
    c2c_gb_per_s_bidir: Amount = None
    """Of one chip, the sum of both directions."""
    c2c_links_note: str | None = None
    c2c_latency_note: str | None = None
    die_to_die_tb_per_s: Amount = None
    scale_up_tb_per_s: Amount = None
    host_interface: str | None = None

    tdp_w: Amount = None
    tdp_note: str | None = None
    typical_w: Amount = None
    board_tdp_w: Amount = None
    board_max_w: Amount = None
    system_power_w: Amount = None
    system_power_kw: Amount = None
    system_power_note: str | None = None
    cooling: str | None = None
    board_price_usd: Amount = None
    price_usd: Amount = None
    production_cost_usd: Amount = None
    nre_usd_m: Amount = None
    chips_for_llama2_70b: Count = None

    confidence: str = ""
    recall: tuple[str, ...] = ()
    """Fields, patterns such as offchip_*, or `all`, from memory and unchecked; `not NAME` takes one out again."""
    recall_percent: Annotated[float, Field(gt=0, lt=100)] = 20
    """How far a figure from memory may be off, where `ranges` says nothing better."""
    ranges: dict[str, Range] = Field(default_factory=dict)
    assumed: dict[str, Assumed] = Field(default_factory=dict)
    own: tuple[str, ...] = ()
    """Figures that the person who edits this datasheet answers for."""
    unpublished: tuple[Need, ...] = ()
    """What an estimate needs, nobody published, and we would not guess."""
    sources: tuple[str, ...] = ()
    notes: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.is_system and not (self.base_chip and self.chips):
            raise ValueError("a system names its base_chip and how many chips it has")
        for name in (*self.ranges, *self.assumed, *self.own):
            if name not in NUMBERS:
                raise ValueError(f"{name!r} is no figure of a datasheet")
        for name, guess in self.assumed.items():
            if getattr(self, name) is not None:
                raise ValueError(f"{name} is both stated and assumed; leave one out")
            _ordered(name, guess.value, guess)
        for name, doubt in self.ranges.items():
            if getattr(self, name) is None:
                raise ValueError(f"ranges: {name} has no value")
            _ordered(name, getattr(self, name), doubt)
        for pattern in self.recall:
            bare = pattern.removeprefix("not ")
            if bare != "all" and not any(fnmatchcase(name, bare) for name in type(self).model_fields):
                raise ValueError(f"recall: {pattern!r} matches no field")
        for need in self.unpublished:
            if need not in self.missing():
                raise ValueError(f"{need} is listed as unpublished, but figures for it are here")
        return self

    def fact(self, name: str) -> Fact | None:
        """A figure by the name of its field, None where it is neither published nor assumed."""
        assert name in NUMBERS, f"{name} is no figure of a datasheet"
        unit = unit_of(name)
        guess = self.assumed.get(name)
        if guess:
            return Fact(name, guess.value, unit, FactOrigin.ASSUMED, guess.low, guess.high, guess.why)
        value = getattr(self, name)
        if value is None:
            return None
        origin = self.origin(name)
        doubt = self.ranges.get(name)
        low, high = value, value
        if doubt:
            low, high = doubt.low, doubt.high
        elif origin is FactOrigin.RECALL and name not in EXACT:
            low, high = (value * (1 + sign * self.recall_percent / 100) for sign in (-1, 1))
        sources = () if origin is FactOrigin.OWN else self.sources
        return Fact(name, value, unit, origin, low, high, doubt.why if doubt else "", sources)

    def facts(self) -> tuple[Fact, ...]:
        """Every figure there is, in the order of the fields."""
        found = (self.fact(name) for name in NUMBERS)
        return tuple(fact for fact in found if fact)

    def value(self, name: str) -> float | None:
        """The value of a figure, None where there is none."""
        fact = self.fact(name)
        return fact.value if fact else None

    def low(self, name: str) -> float | None:
        """The least a figure may be, None where there is none."""
        fact = self.fact(name)
        return fact.low if fact else None

    def high(self, name: str) -> float | None:
        """The most a figure may be, None where there is none."""
        fact = self.fact(name)
        return fact.high if fact else None

    def origin(self, name: str) -> FactOrigin:
        """How the field is marked, text fields too."""
        if name in self.own:
            return FactOrigin.OWN
        if name in self.assumed:
            return FactOrigin.ASSUMED
        recalled = False
        for pattern in self.recall:
            bare = pattern.removeprefix("not ")
            if bare == "all" or fnmatchcase(name, bare):
                recalled = bare == pattern
        return FactOrigin.RECALL if recalled else FactOrigin.CITED

    def peaks(self) -> dict[str, Fact]:
        """The dense peak of every number format: {"fp8": ..., "int8": ...}."""
        found = {name.rsplit("_", 1)[0]: self.fact(name) for name in COMPUTE}
        return {form: fact for form, fact in found.items() if fact and fact.value}

    def missing(self) -> tuple[Need, ...]:
        """What an estimate needs and this sheet lacks. A system has its chips' figures: ask `catalogue.one_chip`."""
        if self.is_system:
            return ()
        have = {
            "compute": bool(self.peaks()),
            "memory": any(all(self.value(name) for name in pair) for pair in MEMORIES),
            "power": any(self.value(name) for name in ("tdp_w", "typical_w", "board_tdp_w")),
        }
        return tuple(need for need in NEEDS if not have[need])

    def require(self) -> None:
        """Raises `BadInput` that names what an estimate needs and nobody published."""
        lacks = self.missing()
        if lacks:
            examples = {"compute": "fp8_tflops", "memory": "offchip_gb and offchip_tb_per_s", "power": "tdp_w"}
            raise BadInput(
                f"{self.id}.{lacks[0]}",
                f"{' and '.join(lacks)} of {self.name} {'were' if len(lacks) > 1 else 'was'} never published",
                f"set {', '.join(examples[need] for need in lacks)} of a chip of your own (tapeout chips {self.id} --yaml)",
            )

    def to_yaml(self) -> str:
        """The text form, defaults left out; `from_text` reads it back to an equal sheet."""
        return yaml.dump(
            self.to_data(), Dumper=_Dumper, sort_keys=False, width=130, allow_unicode=True, default_flow_style=False
        )

    def to_data(self) -> dict[str, Any]:
        """Plain data: what was stated, whole numbers as such."""
        return _whole({"kind": self.kind} | self.model_dump(mode="json", exclude_none=True, exclude_defaults=True))

    def with_fields(self, changes: dict[str, str], where: str) -> Self:
        """A copy with fields changed. A changed figure loses its marks and becomes the changer's own. Raises `BadInput`."""
        plain = [field for field in changes if field in NUMBERS]
        data = self.model_dump(mode="json", exclude_none=True)
        for field in plain:
            data["ranges"].pop(field, None)
            data["assumed"].pop(field, None)
        data["own"] = list(dict.fromkeys([*self.own, *plain]))
        fresh = {field: yaml.safe_load(changes[field]) for field in plain}
        changed = self.from_data(data | fresh | {"unpublished": []}, where)
        rest = {field: text for field, text in changes.items() if field not in plain}
        return super(Datasheet, changed).with_fields(rest, where) if rest else changed


def unit_of(name: str) -> str:
    """The unit that a figure's name ends in, empty for a count or a fraction."""
    fits = [end for end in UNITS if name.endswith(end)]
    return UNITS[max(fits, key=len)] if fits else ""


def _ordered(name: str, value: float, span: Range | Assumed) -> None:
    if not span.low <= value <= span.high:
        raise ValueError(f"{name}: {value:g} is not between {span.low:g} and {span.high:g}")


def _whole(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _whole(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_whole(value) for value in data]
    return int(data) if isinstance(data, float) and data.is_integer() else data


class _Dumper(yaml.SafeDumper):
    """Blocks for what is long, one line for a guess and for a list of short words."""


def _compact(dumper: yaml.SafeDumper, data: Any, tag: str, represent: Any) -> yaml.Node:
    short = all(len(str(item)) < 25 for item in data) if isinstance(data, list) else len(data.get("why", 99 * " ")) < 80
    return represent(tag, data, flow_style=bool(short and data))


_Dumper.add_representer(list, lambda d, x: _compact(d, x, "tag:yaml.org,2002:seq", d.represent_sequence))
_Dumper.add_representer(dict, lambda d, x: _compact(d, x, "tag:yaml.org,2002:map", d.represent_mapping))

NUMBERS: tuple[str, ...] = tuple(
    name for name, field in Datasheet.model_fields.items() if field.annotation in (Amount, Count)
)
"""The fields that are figures."""
EXACT = frozenset(name for name in NUMBERS if not unit_of(name)) | {"node_nm"}
"""Counts and the node: right or wrong, but not a little off."""
COMPUTE = tuple(name for name in NUMBERS if name.endswith(("_tops", "_tflops")) and "sparse" not in name)
MEMORIES = (("offchip_gb", "offchip_tb_per_s"), ("sram_mb", "sram_tb_per_s"))
