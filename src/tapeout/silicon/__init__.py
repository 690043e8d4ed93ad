"""Counts and technology tables to energy and area, first order, every figure with its range."""
