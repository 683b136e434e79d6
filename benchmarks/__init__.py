"""Scripted measurements; `results/` holds what they found. They run in the environment the command line sets up."""

from fslab.__main__ import set_environment

set_environment()
