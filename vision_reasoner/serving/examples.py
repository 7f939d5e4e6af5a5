"""Examples of bodies and answers, for /docs and /openapi.json."""

from typing import Any

from pydantic import BaseModel

Responses = dict[int | str, dict[str, Any]]

IMAGE_ID = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
REQUEST_ID = "6f1c0c0b9d7e4b0c8f1f0e6b1a2d3c4e"
OBJECT = {
    "box": [69, 63, 176, 178],
    "point": [96, 120],
    "mask": {"size": [480, 640], "counts": "fZQ1:g>1O2N..."},
    "score": 0.94,
    "likelihood": None,
    "label": None,
}
RESULT = {
    "image_size": [640, 480],
    "query": "please segment the donuts",
    "task": "segmentation",
    "status": "ok",
    "count": 1,
    "instances": [OBJECT],
    "answer": None,
    "thinking": "I look for donuts: (42,70). 1 donut.",
    "reply": "<think>I look for donuts: (42,70). 1 donut.</think><answer>[...]</answer>",
    "warnings": [],
    "timings": {"route": 0.03, "prefill": 0.2, "decode": 0.9, "segment": 0.4},
    "image_id": IMAGE_ID,
    "request_id": REQUEST_ID,
}
PREDICT = {"query": "please segment the donuts", "task": "auto", "stream": False}
SEGMENT = {"boxes": [[69, 63, 176, 178]], "points": [[96, 120]]}
CORRECTED = {
    "image_id": IMAGE_ID,
    "query": "please segment the donuts",
    "task": "segmentation",
    "objects": [{"box": OBJECT["box"], "point": OBJECT["point"], "mask": OBJECT["mask"], "label": "donut"}],
}


def _answers(example: Any, *, stream: str | None = None) -> Responses:
    """What may come back: the example, and the errors that all have in common."""
    content: dict[str, Any] = {"application/json": {"example": example}}
    if stream is not None:
        content["text/event-stream"] = {"schema": {"type": "string"}, "example": stream}
    texts = {
        401: "the key is missing or wrong",
        408: "the picture took too long to arrive",
        413: "the picture's file is too large",
        422: "the picture or a field cannot be used",
        429: "too many requests wait; Retry-After says for how many seconds",
        504: "it took too long",
    }
    error = {
        "error": {"type": "ImageError", "message": "the picture is damaged; get it again", "request_id": REQUEST_ID}
    }
    errors: Responses = {
        status: {"description": text, "content": {"application/json": {"example": error}}}
        for status, text in texts.items()
    }
    return {200: {"description": "fine", "content": content}, **errors}


STREAM = (
    'event: accepted\ndata: {"image_id": "2c26...", "request_id": "6f1c...", "waiting": 0}\n\n'
    'event: text\ndata: {"start": 0, "text": "<think>I look"}\n\n'
    'event: text\ndata: {"start": 13, "text": " for donuts"}\n\n'
    'event: result\ndata: {"task": "segmentation", "count": 5, ...}\n\n'
)
PREDICTION = _answers(RESULT, stream=STREAM)
SEGMENTATION = _answers({"instances": [OBJECT], "image_id": IMAGE_ID, "request_id": REQUEST_ID})
ROUTE = _answers({"task": "segmentation", "warning": None})
CORRECTION = _answers({"saved": 12, "file": "corrections/segmentation.jsonl"})
EXPORT: Responses = {
    **_answers(None),
    200: {"description": "the file", "content": {"application/zip": {}, "image/png": {}, "application/json": {}}},
}
HEALTH: Responses = {
    200: {"description": "it does", "content": {"application/json": {"example": {"status": "ok", "model": "loading"}}}}
}
READY: Responses = {
    200: {"description": "it is", "content": {"application/json": {"example": {"model": "ready"}}}},
    503: {"description": "it is not"},
}
MODELS: Responses = {
    200: {
        "description": "fine",
        "content": {
            "application/json": {
                "example": {
                    "object": "list",
                    "data": [
                        {
                            "id": "vision_reasoner",
                            "object": "model",
                            "parts": {"reasoner": "VisionReasoner-7B", "router": "TaskRouter-1.5B"},
                            "version": "0.1.0",
                        }
                    ],
                    "saves_corrections": True,
                }
            }
        },
    }
}


def body_of(fields: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """The request body of an address that takes a picture: a form with its file, or JSON with base64."""
    schema = fields.model_json_schema()
    file = {"type": "string", "format": "binary", "description": "the picture's file"}
    text = {"type": "string", "format": "byte", "description": "the picture's file as base64"}

    def with_image(image: dict[str, Any]) -> dict[str, Any]:
        return {**schema, "properties": {"image": image, **schema["properties"]}}

    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": with_image(file)},
                "application/json": {"schema": with_image(text), "example": {"image": "iVBORw0KGgo...", **example}},
            },
        }
    }
