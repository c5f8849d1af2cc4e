"""Settings of the app and the tasks made from them."""
