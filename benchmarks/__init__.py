"""Scripted measurements; `results/` holds what they found."""
