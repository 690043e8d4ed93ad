"""The arithmetic contract of docs/numerics.md: formats, rounding, tables."""
