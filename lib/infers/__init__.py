"""Serve inference tasks to MONAI Label."""
