"""The README's two diagrams of the method, with images of this folder inside.

python assets/diagrams.py        # writes overview.svg and pipeline.svg beside this file; needs Pillow alone

Both are opaque and follow the reader's light or dark mode. Lengths are units of a viewBox that is 1000 wide.
"""

import base64
import io
from pathlib import Path
from xml.sax.saxutils import escape

from PIL import Image

ASSETS = Path(__file__).resolve().parent
# Where `visualize` puts the panels of a result of a 640 x 480 image: image, boxes and points, masks.
PANELS = {"image": (12, 38, 780, 614), "boxes": (792, 38, 1560, 614), "masks": (1572, 38, 2340, 614)}
STYLE = """
  text { font-family: -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; font-size: 15px; fill: #1f2328 }
  .bold { font-weight: 600 } .small { font-size: 13px } .muted { fill: #59636e }
  .code { font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 12.5px }
  .page { fill: #ffffff; stroke: #d1d9e0 } .card { fill: #f6f8fa; stroke: #d1d9e0 }
  .frame { fill: #fff8e6; stroke: #d4a72c } .model { fill: #e8f0fe; stroke: #4a7bd0 }
  .arrow { fill: none; stroke: #59636e; stroke-width: 1.6; marker-end: url(#head) }
  .line { fill: none; stroke: #59636e; stroke-width: 1.6 } .head { fill: #59636e }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .muted { fill: #9198a1 }
    .page { fill: #0d1117; stroke: #3d444d } .card { fill: #151b23; stroke: #3d444d }
    .frame { fill: #2b2412; stroke: #9e7a1f } .model { fill: #16263f; stroke: #4a7bd0 }
    .arrow, .line { stroke: #9198a1 } .head { fill: #9198a1 }
  }
"""


def box(x: float, y: float, width: float, height: float, kind: str = "card") -> str:
    """A rounded rectangle; `kind` is a class of `STYLE`."""
    return f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>'


def words(x: float, y: float, *lines: str, kind: str = "", anchor: str = "start", leading: float = 19) -> str:
    """Lines of text, the first with its baseline at `y`."""
    return "\n".join(
        f'<text class="{kind}" x="{x}" y="{y + leading * i:g}" text-anchor="{anchor}">{escape(line)}</text>'
        for i, line in enumerate(lines)
    )


def path(*points: tuple[float, float], kind: str = "arrow") -> str:
    """A line through `points`, with a head at its end where `kind` is "arrow"."""
    return f'<path class="{kind}" d="M' + " L".join(f"{x} {y}" for x, y in points) + '"/>'


def thumbnail(image: Image.Image, x: float, y: float, width: int, height: int) -> str:
    """`image` in that place, embedded, for a browser loads nothing from outside of an SVG in an <img>."""
    out = io.BytesIO()
    image.convert("RGB").resize((2 * width, 2 * height), Image.Resampling.LANCZOS).save(out, "JPEG", quality=80)
    data = base64.b64encode(out.getvalue()).decode()
    return f'<image x="{x}" y="{y}" width="{width}" height="{height}" href="data:image/jpeg;base64,{data}"/>'


def panel(name: str, which: str) -> Image.Image:
    """One panel of a result under assets/results/."""
    with Image.open(ASSETS / f"results/{name}.jpg") as result:
        return result.crop(PANELS[which])


def source(name: str) -> Image.Image:
    """An example's image."""
    with Image.open(ASSETS / f"{name}.png") as image:
        return image.convert("RGB")


def svg(title: str, height: int, *parts: str) -> str:
    """A whole file."""
    head = '<path class="head" d="M0 0 L10 5 L0 10 z"/>'
    marker = (
        f'<marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">{head}'
    )
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 {height}" role="img">'
    lines = [opening, f"<title>{escape(title)}</title>", f"<style>{STYLE}</style>", f"<defs>{marker}</marker></defs>"]
    return "\n".join([*lines, box(0.5, 0.5, 999, height - 1, "page"), *parts, "</svg>", ""])


def overview() -> str:
    """Four kinds of requests, one system, four kinds of answers."""
    rows = (
        ("donuts", ("“detect the", "donuts”"), panel("donuts", "boxes"), ("Detection", "boxes and", "inner points")),
        (
            "stand_higher",
            ("“find what can", "make the woman", "stand higher?”"),
            panel("stand_higher", "masks"),
            ("Segmentation", "and a mask", "for each object"),
        ),
        (
            "airplanes",
            ("“How many air-", "planes are there", "in this image?”"),
            panel("airplanes", "boxes"),
            ("Counting", "10, and where", "each of them is"),
        ),
        ("company_name", ("“What is name", "of the company?”"), None, ("Question", "an answer", "in words")),
    )
    top, step, height = 60, 118, 104
    parts = [
        words(149, 38, "an image and a request in plain words", kind="muted", anchor="middle"),
        words(500, 38, "one system", kind="muted", anchor="middle"),
        words(851, 38, "what comes back", kind="muted", anchor="middle"),
        box(365, top, 270, 3 * step + height, "card"),
        words(500, top + 32, "VisionReasoner", kind="bold", anchor="middle"),
    ]
    stages = (
        ("TaskRouter", ("a small language model", "reads what is asked for")),
        ("Reasoner", ("a vision-language model", "<think> compares … </think>", "and lists boxes and points")),
        ("SAM2", ("turns boxes and points", "into masks, if wanted")),
    )
    y = top + 52.0
    for i, (name, lines) in enumerate(stages):
        tall = 56 + 19 * len(lines)
        parts += [box(385, y, 230, tall, "model"), words(500, y + 28, name, kind="bold", anchor="middle")]
        parts.append(words(500, y + 52, *lines, kind="small", anchor="middle"))
        if i + 1 < len(stages):
            parts.append(path((500, y + tall), (500, y + tall + 40)))
        y += tall + 44
    for i, (name, request, result, (task, *answer)) in enumerate(rows):
        y = top + step * i
        parts += [box(20, y, 258, height), thumbnail(source(name), 28, y + 8, 117, 88)]
        parts.append(words(155, y + 58 - 19 * (len(request) - 1) / 2, *request))
        parts.append(path((278, y + height / 2), (361, y + height / 2)))
        parts.append(path((635, y + height / 2), (718, y + height / 2)))
        parts.append(box(722, y, 258, height))
        if result is None:
            parts.append(words(788.5, y + 60, "LUMEN", kind="bold", anchor="middle"))
        else:
            parts.append(thumbnail(result, 730, y + 8, 117, 88))
        parts += [words(857, y + 37, task, kind="bold"), words(857, y + 59, *answer, kind="small muted", leading=18)]
    return svg("Overview: four kinds of requests, one system, four kinds of answers", 540, *parts)


def pipeline() -> str:
    """The way of one request, and the frame that coordinates are in at each step."""
    image = source("stand_higher")
    tasks = (
        ("detection", "boxes, points"),
        ("segmentation", "and masks"),
        ("counting", "number of boxes"),
        ("VQA", "text"),
    )
    parts = [
        box(20, 20, 220, 70),
        words(130, 42, "request", kind="small muted", anchor="middle"),
        words(130, 62, "“find what can make the", "woman stand higher?”", anchor="middle"),
        path((240, 55), (286, 55)),
        box(290, 20, 150, 70, "model"),
        words(365, 50, "TaskRouter", kind="bold", anchor="middle"),
        words(365, 71, "Qwen2.5, 1.5 B", kind="small muted", anchor="middle"),
        path((440, 55), (486, 55)),
    ]
    for i, (task, answer) in enumerate(tasks):
        x = 490 + 124 * i
        parts += [box(x, 20, 116, 70), words(x + 58, 50, task, kind="bold", anchor="middle")]
        parts.append(words(x + 58, 71, answer, kind="small muted", anchor="middle"))
    parts += [
        path((548, 90), (548, 112), (796, 112), (796, 90), kind="line"),
        path((672, 90), (672, 112), kind="line"),
        words(572, 133, "prompt: Please find “…” with bboxs and points. …", kind="small muted"),
        # the model's frame
        box(290, 150, 690, 228, "frame"),
        words(306, 174, "frame of the model: 840 × 840", kind="small bold"),
        path((560, 112), (560, 196)),
        thumbnail(image, 306, 190, 150, 150),
        words(381, 362, "resized, aspect ignored", kind="small muted", anchor="middle"),
        path((456, 265), (486, 265)),
        box(490, 200, 140, 130, "model"),
        words(560, 248, "Reasoner", kind="bold", anchor="middle"),
        words(560, 270, "Qwen2.5-VL, 7 B", "trained by GRPO", kind="small muted", anchor="middle"),
        path((630, 265), (656, 265)),
        box(660, 186, 304, 158),
        words(
            672,
            210,
            "<think>",
            "Something that can be climbed to",
            "stand higher: the ladder.",
            "</think>",
            "<answer>",
            '[{"bbox_2d": [420,216,702,606],',
            '  "point_2d": [570,312]}]</answer>',
            kind="code",
        ),
        # the original image
        box(20, 170, 220, 208),
        words(130, 192, "image, W × H pixels", kind="small bold", anchor="middle"),
        thumbnail(image, 30, 204, 200, 150),
        words(130, 371, "upright, RGB", kind="small muted", anchor="middle"),
        path((240, 265), (302, 265)),
        # back
        path((812, 344), (812, 426)),
        words(824, 405, "× W / 840, × H / 840", kind="small muted"),
        box(722, 430, 258, 196),
        words(851, 452, "Parser: boxes and points", kind="bold", anchor="middle"),
        words(851, 471, "in pixels of the image", kind="small muted", anchor="middle"),
        thumbnail(panel("stand_higher", "boxes"), 765, 482, 173, 130),
        path((722, 528), (634, 528)),
        words(678, 518, "prompts", kind="small muted", anchor="middle"),
        box(490, 463, 140, 130, "model"),
        words(560, 518, "SAM2", kind="bold", anchor="middle"),
        words(560, 540, "for segmentation", kind="small muted", anchor="middle"),
        path((130, 378), (130, 404), (560, 404), (560, 459)),
        words(345, 424, "the image as it is, encoded once", kind="small muted", anchor="middle"),
        path((490, 528), (282, 528)),
        words(386, 518, "one mask each", kind="small muted", anchor="middle"),
        box(20, 430, 258, 196),
        words(149, 452, "Masks", kind="bold", anchor="middle"),
        words(149, 471, "in pixels of the image", kind="small muted", anchor="middle"),
        thumbnail(panel("stand_higher", "masks"), 63, 482, 173, 130),
        words(
            500,
            654,
            "VQA: the image keeps its own size, the question is the whole prompt, and the reply is the answer.",
            kind="small muted",
            anchor="middle",
        ),
    ]
    return svg("Pipeline: the way of one request and the frames of its coordinates", 672, *parts)


if __name__ == "__main__":
    (ASSETS / "overview.svg").write_text(overview(), encoding="utf-8")
    (ASSETS / "pipeline.svg").write_text(pipeline(), encoding="utf-8")
