"""The contract of the chip: micro-ops, their encoding, timing, footprints and meaning; programs, traces, the static checker.

Compiler, simulator and RTL meet here and nowhere else.
"""
