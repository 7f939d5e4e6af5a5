"""Measuring the library: speed here, quality on the published sets."""
