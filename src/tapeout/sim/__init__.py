"""Runs a Program: every micro-op in its cycle, bit for bit, never the graph; hazards are errors."""
