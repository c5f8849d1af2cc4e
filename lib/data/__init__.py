"""Scans on the network's grid, and random patches of them."""
