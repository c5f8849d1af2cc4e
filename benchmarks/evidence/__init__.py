"""The parts of the paper's Table 1: datasets, rows, trainings, scores, tables and figures."""
