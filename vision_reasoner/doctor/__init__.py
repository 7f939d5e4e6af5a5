"""`vision-reasoner doctor`: whether a model, its engine and its prompt agree about the frame, and what else works."""
