"""Make demo studies with known truth, and annotate them by a scripted annotator."""
