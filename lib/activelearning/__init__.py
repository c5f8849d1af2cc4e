"""Choose the next study of an annotator."""
