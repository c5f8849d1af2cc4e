"""Speed and accuracy, measured by hand: each module prints a table."""
