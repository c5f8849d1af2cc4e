"""Make masks by trained networks and from clicks."""
