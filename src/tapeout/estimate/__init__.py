"""Shapes, a machine and a workload to figures, in closed form; one design or a million alike."""
