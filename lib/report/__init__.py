"""What a project has come to, as one page to read."""
