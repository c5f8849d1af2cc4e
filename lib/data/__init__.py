"""Resample scans to the grid of the network, and draw random patches of them."""
