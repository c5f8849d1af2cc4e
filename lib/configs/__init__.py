"""Read the settings of the app, and make its tasks from them."""
