"""The structs of engine.h."""

from ctypes import Structure, c_float, c_int32, c_void_p, sizeof


class MatrixStruct(Structure):
    """`Matrix`."""

    _fields_ = (
        ("tiles", c_void_p), ("exponent", c_void_p),
        *((name, c_int32) for name in (
            "rows", "blocks", "groups", "columns", "bits", "offset", "halves", "has_minimum", "tile_bytes", "period", "fits",
            "deep",
        )),
        ("factor", c_float),
    )  # fmt: skip


class OpStruct(Structure):
    """`Op`."""

    _fields_ = (
        *((name, c_int32) for name in (
            "kind", "stage", "width", "x_width", "last_only", "heads", "kv_heads", "head_dim", "group", "offset", "context",
            "window", "most_key", "most_value",
        )),
        *((name, c_float) for name in ("eps", "inverse", "constant", "factor")),
        *((name, c_void_p) for name in (
            "a", "b", "c", "out", "out2", "weight", "scale", "minimum",
            "keys", "values", "n_keys", "n_values", "e_values", "power_keys",
        )),
    )  # fmt: skip


class PacketsStruct(Structure):
    """`Packets`."""

    _fields_ = tuple((name, c_void_p) for name in "codes factor sums half_sums scaled half_scaled e_max".split())


class PlanStruct(Structure):
    """`Plan`."""

    _fields_ = (
        *((name, c_void_p) for name in ("ops", "sine", "exp2", "sigmoid", "gelu", "reciprocal")),
        ("packets", PacketsStruct), ("scores", c_void_p), ("weights", c_void_p),
        *((name, c_int32) for name in ("count", "context", "tokens", "wanted")),
        *((name, c_void_p) for name in ("ids", "position", "stream", "logits")),
    )  # fmt: skip


SIZES = tuple(sizeof(struct) for struct in (MatrixStruct, OpStruct, PacketsStruct, PlanStruct))
"""In the order of the library's `size_of`."""

KINDS = {
    "Turns": 0, "Embed": 1, "RMSNorm": 2, "HeadNorm": 2, "Linear": 3, "Rope": 4, "Attention": 5, "SwiGLU": 6, "Add": 7,
    "GeGLU": 8, "Gelu": 9, "LayerNorm": 10, "AddBias": 11, "AddPosition": 12, "Scale": 13, "SoftCap": 14,
}  # fmt: skip
"""Op -> its number in engine.h; Turns makes the cosines and sines that Rope reads."""
