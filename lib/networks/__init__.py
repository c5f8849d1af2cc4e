"""Build networks, and store and publish trained ones."""
