"""VisionReasoner-Tiny: its architecture, its tokenizer, and the supervised stages that train it from nothing."""
