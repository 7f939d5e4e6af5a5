"""What comes in and goes out: bodies as forms or JSON, results, events, and errors in words."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from vision_reasoner.errors import ExitCode, UsageError, VisionReasonerError, one_line
from vision_reasoner.geometry import Box, Point
from vision_reasoner.results import Instance

MAX_QUERY = 4000  # characters
MAX_OBJECTS = 300  # of a request to segment, or of a correction
MAX_RUN_LENGTHS = 4 << 20  # characters of a mask
MAX_LABEL = 200

Whole = Annotated[int, Field(ge=0, le=1 << 20)]
Number = Annotated[float, Field(ge=0, le=1 << 20, allow_inf_nan=False)]
Id = Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="of a picture sent before, instead of `image`")]
TaskName = Literal["auto", "detection", "segmentation", "counting", "vqa"]


class Strict(BaseModel):
    """Nothing but what is listed."""

    model_config = ConfigDict(extra="forbid")


class PredictFields(Strict):
    """What goes with the picture to /v1/predict."""

    query: Annotated[str, Field(min_length=1, max_length=MAX_QUERY, description="what to find, count or answer")]
    task: Annotated[TaskName, Field(description="auto: the router decides")] = "auto"
    stream: Annotated[bool, Field(description="answer with server-sent events")] = False
    image_id: Id | None = None


class SegmentFields(Strict):
    """What goes with the picture to /v1/segment."""

    boxes: Annotated[
        list[tuple[Number, Number, Number, Number]],
        Field(min_length=1, max_length=MAX_OBJECTS, description="x1, y1, x2, y2 in pixels of the picture"),
    ]
    points: Annotated[
        list[tuple[Number, Number] | None] | None,
        Field(max_length=MAX_OBJECTS, description="for each box x, y inside the object, or null"),
    ] = None
    image_id: Id | None = None


class RouteBody(Strict):
    """The body of /v1/route."""

    query: Annotated[str, Field(min_length=1, max_length=MAX_QUERY)]


class MaskBody(Strict):
    """COCO's compressed run lengths."""

    size: tuple[Whole, Whole]
    counts: Annotated[str, Field(max_length=MAX_RUN_LENGTHS)]


class ObjectBody(Strict):
    """An object as people left it; boxes and points in pixels of the picture."""

    box: tuple[Whole, Whole, Whole, Whole]
    point: tuple[Whole, Whole] | None = None
    mask: MaskBody | None = None
    score: Annotated[float, Field(allow_inf_nan=False)] | None = None
    label: Annotated[str, Field(max_length=MAX_LABEL)] | None = None

    def instance(self) -> Instance:
        """It as an `Instance`.

        Raises:
            ValueError: the box is empty.
            DataError: the mask's run lengths are damaged.
        """
        mask: Any = None if self.mask is None else {"size": list(self.mask.size), "counts": self.mask.counts}
        return Instance(
            Box(*self.box), None if self.point is None else Point(*self.point), mask, self.score, label=self.label
        )


class ResultBody(Strict):
    """A result, or what people made of one: the body of /v1/corrections and /v1/export."""

    image_id: Id
    query: Annotated[str, Field(min_length=1, max_length=MAX_QUERY)]
    task: Literal["detection", "segmentation", "counting", "vqa"]
    objects: Annotated[list[ObjectBody], Field(max_length=MAX_OBJECTS)]
    thinking: Annotated[str, Field(max_length=1 << 16)] = ""
    answer: Annotated[str, Field(max_length=1 << 16)] | None = None


class ExportBody(ResultBody):
    """The body of /v1/export."""

    format: str


async def read_fields(request: Request, max_bytes: int) -> tuple[bytes | None, dict[str, Any]]:
    """The picture of a body and its other fields, from a multipart form or JSON; texts of a form are read as JSON
    where they are lists.

    Raises:
        HTTPException: it is neither, the picture is too large, or base64 is damaged.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        fields = await read_json(request)
        text = fields.pop("image", None)
        if text is None:
            return None, fields
        if not isinstance(text, str):
            raise HTTPException(422, "image: must be a picture's file as base64")
        try:
            data = base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
        except (binascii.Error, ValueError):
            raise HTTPException(422, "image: is no base64 of a picture's file") from None
        return _checked(data, max_bytes), fields
    if kind != "multipart/form-data":
        raise HTTPException(415, "send a form (multipart/form-data) with the picture as `image`, or JSON")
    async with request.form(max_files=1, max_fields=8, max_part_size=1 << 20) as form:
        upload = form.get("image")
        fields = {name: _form_value(value) for name, value in form.items() if name != "image"}
        if upload is None:
            return None, fields
        if not isinstance(upload, UploadFile):
            raise HTTPException(422, "image: must be a file")
        return _checked(await upload.read(max_bytes + 1), max_bytes), fields


async def read_json(request: Request) -> dict[str, Any]:
    """The JSON object of a body.

    Raises:
        HTTPException: it is none.
    """
    try:
        fields = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise HTTPException(422, "the body is no JSON") from None
    if not isinstance(fields, dict):
        raise HTTPException(422, "the body must be a JSON object")
    return fields


def _form_value(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("["):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _checked(data: bytes, max_bytes: int) -> bytes:
    if len(data) > max_bytes:
        raise HTTPException(413, f"the picture has more than {max_bytes:,} bytes; give a smaller one")
    return data


def problems(errors: Any) -> str:
    """What pydantic found wrong, in a line."""
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where}: {first['msg']}{more}" if where else f"{first['msg']}{more}"


def event(name: str, data: Mapping[str, Any]) -> str:
    """A server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def status_of(error: Exception) -> int:
    """The HTTP status that stands for one of our errors."""
    if isinstance(error, UsageError):
        return 400
    by_code = {ExitCode.INPUT: 422, ExitCode.CHECKPOINT: 503, ExitCode.ENGINE: 502}
    return by_code.get(error.exit_code, 500) if isinstance(error, VisionReasonerError) else 500


def words_of(error: Exception) -> str:
    """What went wrong, for people; nothing of how the server is built where it is not ours to tell."""
    if isinstance(error, VisionReasonerError):
        return one_line(error).removeprefix("the given bytes: ")
    if isinstance(error, ValidationError):
        return problems(error.errors())
    return "something unforeseen happened; the server's log has more under this request's id"
