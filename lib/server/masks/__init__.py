"""Store and accept masks."""
