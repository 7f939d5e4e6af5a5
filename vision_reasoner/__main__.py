"""`python -m vision_reasoner`, which is the same as `vision-reasoner` and `python vision_reasoner/inference.py`."""

import sys

from vision_reasoner.inference import main

if __name__ == "__main__":
    sys.exit(main())
