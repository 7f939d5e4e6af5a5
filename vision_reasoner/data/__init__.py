"""Data sets: readers of official annotations, rows, and opening a data set; for training and evaluation alike."""
