"""Train networks: objective, loop, budget, starting point and publishing gate."""
