"""Annotations from files of other programs, and masks to files of other programs."""
