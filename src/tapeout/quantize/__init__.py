"""Model -> Model with other weights, one file per method."""

from tapeout.quantize.round_to_nearest import quantize as quantize
