"""A run: samples of a data set, workers that ask the model, and the folder of records that is left."""
