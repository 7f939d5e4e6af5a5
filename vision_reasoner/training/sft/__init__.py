"""Supervised fine-tuning of a reasoner on rows to train on."""
