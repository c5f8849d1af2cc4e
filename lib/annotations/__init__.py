"""Represent, check and store annotations: clicks, absent labels and masks."""
