"""Set up the process of the server: its log, its files, where it listens."""
