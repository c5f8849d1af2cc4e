"""Datasets, rows, trainings, scores, tables and figures of the paper's Table 1."""
