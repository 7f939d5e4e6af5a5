"""Training: the scenes, the stages that train VisionReasoner-Tiny from nothing."""
