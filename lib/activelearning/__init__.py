"""Which study an annotator gets next."""
