"""What a family of decoders has beside a Llama's layers: biases, other norms, windows, caps. `llama.py` builds graphs from it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Style:
    """The default is Llama's own."""

    qkv_bias: bool = False
    biases: bool = False
    """o and the feed-forward have biases too."""
    qk_norm: bool = False
    """Q and K are normed head by head before they are rotated."""
    layer_norm: bool = False
    """Norms take the mean away and have a bias."""
    post_norms: bool = False
    """What attention and feed-forward add is normed before it is added."""
    activation: str = "silu"
    """Or "gelu", by its tanh formula."""
    gated: bool = True
    """Else the feed-forward has no gate."""
    embed_scale: float = 1.0
    """What the embedding is multiplied with."""
    positions: bool = False
    """A learned vector per position is added to the embedding, and nothing is rotated."""
    rotary: int = 0
    """Numbers of a head that are rotated; 0: all."""
    factors: tuple[float, ...] = ()
    """How much slower each rotated pair turns, in layers that are not local."""
    local_layers: tuple[bool, ...] = ()
    """Which layers attend to a window; () none."""
    window: int = 0
    local_theta: float = 0.0
    """RoPE's base in local layers; 0: that of the others."""
    scalar: float = 0.0
    """Scores are divided by its square root; 0: a head's width."""
    score_cap: float = 0.0
    logit_cap: float = 0.0

    def local(self, layer: int) -> bool:
        """Whether a layer attends to a window."""
        return bool(self.local_layers) and self.local_layers[layer]


LLAMA = Style()
