"""Training: `tiny` trains VisionReasoner-Tiny from nothing, `grpo` improves a checkpoint, `prepare` makes rows."""

from pathlib import Path

_HERE = Path(__file__).resolve().parent
# Commands stay where they were before the modules moved: `python -m vision_reasoner.training.vision` is tiny/vision.py.
__path__ += [str(_HERE / "tiny"), str(_HERE / "grpo"), str(_HERE.parent / "scenes")]
