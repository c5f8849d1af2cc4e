"""Measure speed and accuracy; each module prints a table."""
