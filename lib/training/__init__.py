"""The method in plain torch: objective, loop, budget, starting point, publish gate."""
