"""What every executor is to the generation loop: the reference, the fast twin, the program and, later, the RTL."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Engine(Protocol):
    """Takes tokens in order of position and keeps the KV cache between calls."""

    context: int
    """The most positions it can hold."""

    def step(self, token_ids: Sequence[int], position: int, every: bool = False) -> NDArray[np.float32]:
        """Run `token_ids` at positions `position`, `position + 1`, ...; earlier positions are already held.

        Returns the logits of the last token, shape [vocabulary], or of every token, shape [tokens, vocabulary],
        where `every` is set. Bits do not depend on how a text is cut into calls.
        """
        ...
