"""Import annotations from other programs, and export masks to them."""
