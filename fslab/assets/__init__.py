"""Fonts and templates that ship with the package."""
