"""Implement the methods that the paper compares with, from their own papers, for one structure a scan."""
