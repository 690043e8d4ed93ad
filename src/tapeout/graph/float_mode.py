"""Float mode: the same graph in ordinary float arithmetic, on float weights or on quantized ones dequantized.

What losses are told against, and what is compared with other people's executors. Its bits mean nothing: BLAS sums.
Many tokens at once are quick; the weights are held dequantized in `dtype`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tapeout.base.errors import BadInput, Overflow
from tapeout.graph.check import check_step
from tapeout.graph.types import (
    Add,
    AddBias,
    AddPosition,
    Attention,
    Embed,
    GeGLU,
    Gelu,
    HeadNorm,
    LayerNorm,
    Linear,
    Matrix,
    Model,
    Op,
    RMSNorm,
    Rope,
    Scale,
    SoftCap,
    SwiGLU,
    op_weights,
)

QUERIES = 512
"""Query tokens per block of scores: bounds the memory of a long prefill."""


class FloatEngine:
    """Runs a model of float or quantized matrices; see base.engine.Engine. Activations are never quantized."""

    def __init__(self, model: Model, context: int | None = None, dtype: type[np.floating] = np.float32):
        self.model = model
        self.context = model.graph.context if context is None else context
        self.dtype = dtype
        self._held = 0
        self._head = model.graph.head
        names = {name for op in model.graph.ops for name in op_weights(op)}
        self._weights = {name: self._dense(name) for name in sorted(names)}
        self._cache: dict[str, tuple[NDArray, NDArray]] = {}
        for op in model.graph.ops:
            if isinstance(op, Attention):
                shape = (op.kv_heads, self.context, op.head_dim)
                self._cache[op.out] = np.zeros(shape, self.dtype), np.zeros(shape, self.dtype)

    def step(self, token_ids: Sequence[int], position: int, every: bool = False) -> NDArray[np.float32]:
        """Logits of the last token, or of every token where `every` is set; always float32. Raises Overflow."""
        ids = np.asarray(token_ids, np.int64)
        check_step(self.model.graph, ids, position, self._held, self.context)
        values: dict[str, NDArray] = {}
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            for op in self.model.graph.ops:
                if op.out == self._head and not every:
                    values = {name: value[-1:] for name, value in values.items()}
                values[op.out] = self._run(op, values, ids, position)
            logits = values[self.model.graph.output].astype(np.float32)
        if not np.isfinite(logits).all():
            raise Overflow(self.model.graph.output, "float mode")
        self._held = position + len(ids)
        return logits if every else logits[-1]

    def _run(self, op: Op, values: dict[str, NDArray], ids: NDArray[np.int64], position: int) -> NDArray:
        match op:
            case Embed():
                return self._weights[op.table][ids]
            case RMSNorm():
                return rms_norm(values[op.x], self._weights[op.weight], self.dtype(op.eps))
            case HeadNorm():
                heads = values[op.x].reshape(-1, op.head_dim)
                return rms_norm(heads, self._weights[op.weight], self.dtype(op.eps)).reshape(values[op.x].shape)
            case LayerNorm():
                x = values[op.x] - np.mean(values[op.x], axis=1, keepdims=True, dtype=self.dtype)
                return rms_norm(x, self._weights[op.weight], self.dtype(op.eps)) + self._weights[op.bias]
            case AddBias():
                return values[op.x] + self._weights[op.bias]
            case AddPosition():
                return values[op.x] + self._weights[op.table][position : position + len(ids)]
            case Scale():
                return values[op.x] * self.dtype(op.factor)
            case SoftCap():
                return np.tanh(values[op.x] / self.dtype(op.cap)) * self.dtype(op.cap)
            case Gelu():
                return gelu(values[op.x])
            case GeGLU():
                return gelu(values[op.gate]) * values[op.up]
            case Linear():
                return values[op.x] @ self._weights[op.weight].T
            case Rope():
                return rotate(values[op.x], position, op)
            case Attention():
                return self._attend(op, values, position)
            case SwiGLU():
                gate = values[op.gate]
                return gate / (1 + np.exp(-gate)) * values[op.up]
            case Add():
                return values[op.a] + values[op.b]

    def _attend(self, op: Attention, values: dict[str, NDArray], position: int) -> NDArray:
        tokens = len(values[op.q])
        end, group = position + tokens, op.heads // op.kv_heads
        k, v = self._cache[op.out]
        k[:, position:end] = values[op.k].reshape(tokens, op.kv_heads, op.head_dim).swapaxes(0, 1)
        v[:, position:end] = values[op.v].reshape(tokens, op.kv_heads, op.head_dim).swapaxes(0, 1)
        q = values[op.q].reshape(tokens, op.heads, op.head_dim)
        out = np.empty_like(q)
        scale = self.dtype(1 / np.sqrt(op.scale_of))
        for start in range(0, tokens, QUERIES):
            last = min(start + QUERIES, tokens)
            seen = position + last
            back = np.arange(position + start, seen)[:, None] - np.arange(seen)
            hidden = (back < 0) | (back >= op.window) if op.window else back < 0
            for head in range(op.heads):
                scores = q[start:last, head] @ k[head // group, :seen].T * scale
                if op.softcap:
                    scores = np.tanh(scores / self.dtype(op.softcap)) * self.dtype(op.softcap)
                scores[hidden] = -np.inf
                p = np.exp(scores - scores.max(axis=1, keepdims=True))
                out[start:last, head] = p @ v[head // group, :seen] / p.sum(axis=1, keepdims=True)
        return out.reshape(tokens, -1)

    def _dense(self, name: str) -> NDArray:
        weight = self.model.weights.get(name)
        if weight is None:
            raise BadInput(f"weight {name}", "is missing", "a shape-only model cannot be run")
        return weight.to_float(self.dtype) if isinstance(weight, Matrix) else weight.astype(self.dtype, copy=False)


def rms_norm(x: NDArray, weight: NDArray, eps: np.floating) -> NDArray:
    """x / sqrt(mean(x^2) + eps) * weight over the last axis."""
    mean = np.mean(x * x, axis=-1, keepdims=True, dtype=x.dtype)
    return x / np.sqrt(mean + eps) * weight


def gelu(x: NDArray) -> NDArray:
    """GELU by its tanh formula."""
    inner = x.dtype.type(np.sqrt(2 / np.pi)) * (x + x.dtype.type(0.044715) * x * x * x)
    return x.dtype.type(0.5) * x * (1 + np.tanh(inner))


def rotate(x: NDArray, position: int, op: Rope) -> NDArray:
    """Turn neighbours (2k, 2k + 1) of every head by position * theta^(-2k/rotary) / factors[k]."""
    (tokens, width), rotary = x.shape, op.rotary or op.head_dim
    speed = np.zeros(op.head_dim // 2)
    speed[: rotary // 2] = op.theta ** (-np.arange(0, rotary, 2) / rotary) / (np.array(op.factors) if op.factors else 1)
    angle = np.outer(np.arange(position, position + tokens), speed)[:, None]
    cos, sin = np.cos(angle).astype(x.dtype), np.sin(angle).astype(x.dtype)
    a, b = np.moveaxis(x.reshape(tokens, -1, op.head_dim // 2, 2), -1, 0)
    return np.stack((a * cos - b * sin, a * sin + b * cos), axis=-1).reshape(tokens, width)
