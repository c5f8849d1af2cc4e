"""List, open, and delete studies."""
