"""Compare the readings of several people, and decide between them."""
