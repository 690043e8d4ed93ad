"""What a model computes on a calibration text, op by op: methods read there what the inputs of a matrix are like."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tapeout.base.errors import BadInput, Overflow
from tapeout.graph.float_mode import FloatEngine
from tapeout.graph.types import Matrix, Model, Op, Weight, op_inputs

F64 = NDArray[np.float64]


class Walk(FloatEngine):
    """Float mode op by op over all windows, so that a weight can change before what reads it is run."""

    def __init__(self, model: Model, windows: Sequence[Sequence[int]]):
        if not windows:
            raise BadInput("--calibration", "has no tokens", "give a text")
        super().__init__(model, max(map(len, windows)))
        self._windows = [np.asarray(one, np.int64) for one in windows]
        self._values: list[dict[str, NDArray]] = [{} for _ in windows]
        self._last: Mapping[str, Op] = {name: op for op in model.graph.ops for name in op_inputs(op)}

    @property
    def ops(self) -> tuple[Op, ...]:
        """All ops before the head, whose weights no method changes."""
        names = [op.out for op in self.model.graph.ops]
        return self.model.graph.ops[: names.index(self.model.graph.head)]

    def weight(self, name: str) -> NDArray[np.float32]:
        """A matrix as it is held."""
        return self._weights[name].astype(np.float32, copy=False)

    def hold(self, name: str, weight: Weight) -> None:
        """Compute with other numbers from now on."""
        assert isinstance(weight, Matrix), "only matrices change"
        self._weights[name] = weight.to_float(self.dtype)

    def run(self, op: Op) -> None:
        """One op on every window; values that no later op reads are let go. Raises Overflow."""
        for ids, values in zip(self._windows, self._values, strict=True):
            with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                values[op.out] = self._run(op, values, ids, 0)
            if not np.isfinite(values[op.out]).all():
                raise Overflow(op.out, "float mode")
            for name in set(op_inputs(op)):
                if self._last[name] is op:
                    del values[name]

    def values(self, name: str) -> list[NDArray]:
        """[tokens, width] of every window."""
        return [values[name] for values in self._values]

    def second_moment(self, name: str) -> F64:
        """Sum of x x^T over every token."""
        inputs = self.values(name)
        total = np.zeros((inputs[0].shape[1],) * 2)
        for x in inputs:
            total += x.T @ x
        return total

    def power(self, name: str) -> F64:
        """Mean of x^2 over every token."""
        total = sum(np.square(x, dtype=np.float64).sum(axis=0) for x in self.values(name))
        return np.asarray(total) / sum(map(len, self._windows))
