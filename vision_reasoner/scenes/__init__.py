"""Drawn scenes whose truth is known, and the requests about them, for training and evaluating VisionReasoner-Tiny."""
