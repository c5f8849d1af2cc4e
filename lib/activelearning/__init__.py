"""Choose the study that an annotator gets next."""
