"""`python -m vision_reasoner`: the command line of `inference`, and `download` for the released checkpoints."""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Hand over to the sub-command, which imports only what it needs."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments[:1] == ["download"]:
        from vision_reasoner.models.checkpoints import download_main

        return download_main(arguments[1:])
    from vision_reasoner.inference import main as inference_main

    return inference_main(arguments)


if __name__ == "__main__":
    sys.exit(main())
