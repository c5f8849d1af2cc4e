"""Serve the studies, the annotations and the model of a project over HTTP."""
