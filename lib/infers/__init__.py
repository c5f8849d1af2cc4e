"""MONAI Label inference tasks."""
