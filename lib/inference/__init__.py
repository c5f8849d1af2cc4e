"""Masks of trained networks and of clicks."""
