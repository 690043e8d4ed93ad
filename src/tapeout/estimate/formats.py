"""Number formats as the estimator sees them: bytes per weight with its scales, and which multipliers a chip would use."""

from dataclasses import dataclass

from tapeout.base.errors import BadInput


@dataclass(frozen=True, slots=True)
class Format:
    """`bits`: the width of the multipliers that it runs on where a chip has them. `kv_bytes`: what engines store K and V in beside it.

    `head_bytes`: of embedding and head, which most serving formats leave in 16 bits.
    """

    name: str
    weight_bytes: float
    bits: int
    kv_bytes: float
    head_bytes: float
    note: str
    float4: bool = False
    """Weights that a chip without 4-bit float multipliers must widen first."""


FORMATS = {
    row.name: row
    for row in (
        Format("bf16", 2.0, 16, 2.0, 2.0, "also fp16"),
        Format("fp8", 1.0, 8, 1.0, 2.0, "a scale per tensor or channel"),
        Format("fp8_block", 1.0, 8, 2.0, 2.0, "a scale per 128 x 128; KV cache in 16 bits"),
        Format("int8", 1.0625, 8, 1.0625, 1.0625, "ours: groups of 32 with fp16 scale, K and V with a scale per head"),
        Format("int4", 0.5625, 8, 1.0625, 0.5625, "ours: groups of 32 with fp16 scale, int8 activations"),
        Format("int4m", 0.625, 8, 1.0625, 0.625, "ours: the same with fp16 minimum"),
        Format("ternary", 0.3125, 8, 1.0625, 0.3125, "ours: 2 bits, fp16 scale per 32"),
        Format("int8g64", 1.0625, 8, 1.0625, 1.0625, "ours: groups of 64, whose scale lies twice in the chip"),
        Format("int4g64", 0.5625, 8, 1.0625, 0.5625, "ours: the same in 4 bits"),
        Format("int4mg64", 0.625, 8, 1.0625, 0.625, "ours: the same with fp16 minimum"),
        Format("int6", 0.8125, 8, 1.0625, 0.8125, "ours: 6 bits, fp16 scale per 32"),
        Format("int3", 0.4375, 8, 1.0625, 0.4375, "ours: 3 bits, fp16 scale per 32"),
        Format("binary", 0.1875, 8, 1.0625, 0.1875, "ours: 1 bit, fp16 scale per 32"),
        Format(
            "q4_k",
            0.6875,
            8,
            1.0625,
            0.6875,
            "ours: K-quant with its scales multiplied out, 24 bits per scale and minimum",
        ),
        Format("q5_k", 0.8125, 8, 1.0625, 0.8125, "ours: the same with 5-bit codes"),
        Format("q6_k", 0.9375, 8, 1.0625, 0.9375, "ours: 6-bit codes, a scale of 24 bits per 16"),
        Format("nvfp4", 0.5625, 4, 1.0, 2.0, "E2M1 with an FP8 scale per 16", float4=True),
        Format("mxfp4", 0.53125, 4, 1.0, 2.0, "E2M1 with an exponent per 32", float4=True),
        Format("bfp8", 1.0625, 8, 1.0625, 1.0625, "an exponent per 16"),
        Format("bfp4", 0.5625, 8, 1.0625, 1.0625, "an exponent per 16; attention and head in bfp8 beside it"),
        Format("q4nx", 0.5625, 8, 2.0, 0.5625, "4 bits with a scale per group, KV cache in 16 bits"),
        Format("rom_3_6", 0.4375, 8, 1.0, 0.4375, "3-bit base and 6-bit rows, 3.5 bits on average: an assumption"),
    )
}
ALIASES = {"fp16": "bf16", "stored": "bf16", "mxint8": "bfp8"}


def number_format(name: str) -> Format:
    """The row of a format. Raises `BadInput` with the names there are."""
    row = FORMATS.get(ALIASES.get(name, name))
    if row is None:
        raise BadInput(
            "--weights", f"{name!r} is not a format that can be estimated", f"one of {', '.join([*FORMATS, *ALIASES])}"
        )
    return row
