"""Serve the pages that a browser opens."""
