"""The one place that joins rooms: load, quantize, compile, generate, measure, compare."""
