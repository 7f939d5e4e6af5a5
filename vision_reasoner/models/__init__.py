"""What imports torch: the reasoner, the router, the segmenter, and how their checkpoints are found and loaded."""
