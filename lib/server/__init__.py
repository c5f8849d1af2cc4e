"""What stands between the network and the routes of the server."""
