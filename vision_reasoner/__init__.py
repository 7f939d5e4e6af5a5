"""VisionReasoner: one model that finds, segments and counts what is asked for in a picture, and answers questions.

    from vision_reasoner import VisionReasoner

    model = VisionReasoner.from_pretrained()
    result = model.predict("assets/airplanes.png", "How many airplanes are there in this image?")
    print(result.thinking, result.count)

Names are imported when they are first used, so that importing the package costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from vision_reasoner.errors import CheckpointError as CheckpointError
    from vision_reasoner.errors import EngineError as EngineError
    from vision_reasoner.errors import ImageError as ImageError
    from vision_reasoner.errors import QueryError as QueryError
    from vision_reasoner.errors import ReplyError as ReplyError
    from vision_reasoner.errors import UsageError as UsageError
    from vision_reasoner.errors import VisionReasonerError as VisionReasonerError
    from vision_reasoner.geometry import Box as Box
    from vision_reasoner.geometry import Point as Point
    from vision_reasoner.images import load_image as load_image
    from vision_reasoner.model import VisionReasoner as VisionReasoner
    from vision_reasoner.models.engine import Watch as Watch
    from vision_reasoner.models.reasoner import ScriptedReasoner as ScriptedReasoner
    from vision_reasoner.parsing import parse_reply as parse_reply
    from vision_reasoner.results import Instance as Instance
    from vision_reasoner.results import Prediction as Prediction
    from vision_reasoner.results import Status as Status
    from vision_reasoner.results import Task as Task

_HOMES = {
    "VisionReasoner": "model",
    "Prediction": "results",
    "Instance": "results",
    "Task": "results",
    "Status": "results",
    "Box": "geometry",
    "Point": "geometry",
    "ScriptedReasoner": "models.reasoner",
    "Watch": "models.engine",
    "parse_reply": "parsing",
    "load_image": "images",
    "VisionReasonerError": "errors",
    "UsageError": "errors",
    "ImageError": "errors",
    "QueryError": "errors",
    "CheckpointError": "errors",
    "EngineError": "errors",
    "ReplyError": "errors",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
