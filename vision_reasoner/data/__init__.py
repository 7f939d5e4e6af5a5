"""Data sets, for training and evaluation alike: official annotations, solutions, rows, tables, opening any source."""
