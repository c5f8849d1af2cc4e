"""The MONAI Label training task."""
