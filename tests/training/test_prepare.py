"""Rows to train on: true to the annotations, in the model's frame, in every engine's layout; bad ones are named."""

import io
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from tests.conftest import noise
from tests.support import drawings, releases
from vision_reasoner.data.annotations import read_instances, read_references
from vision_reasoner.data.rows import check_row, columns_of, load_rows, make_row, target_of
from vision_reasoner.data.solutions import Target
from vision_reasoner.data.tables import encode_image, load_table, write_table
from vision_reasoner.errors import DataError
from vision_reasoner.geometry import Box
from vision_reasoner.masks import Mask
from vision_reasoner.prompts import VISION_REASONER
from vision_reasoner.results import Instance, Prediction, Status, Task
from vision_reasoner.training import prepare
from vision_reasoner.training.grpo.rewards import compute_reward
from vision_reasoner.training.prepare import RowBuilder, Sample, grouped, main, masks_found_again, select

SIDE = 140


@pytest.fixture(autouse=True)
def quiet_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `datasets` keeps of a table is kept for the test alone."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def coco(tmp_path: Path, *more: object, **changes: Any) -> int:
    annotations, images = releases.write_coco(tmp_path, **changes)
    flags = ["--annotations", annotations, "--images", images, "--output_dir", tmp_path / "rows"]
    return run("coco", *flags, "--frame_side", SIDE, "--min_sam2_iou", 0, "--group_share", 0, *more)


def rows(folder: Path) -> dict[str, Any]:
    """By id."""
    return {row["id"]: row for row in load_rows(folder)}


# --- one row ----------------------------------------------------------------------------------------------------------
def test_a_target_is_the_masks_first_and_last_pixels_and_its_innermost_one() -> None:
    mask = releases.rectangle(11)  # x 40 to 79, y 20 to 59 of 200 x 100
    target = target_of(mask, (SIDE, SIDE))
    assert target is not None
    assert target.box == (28, 28, 56, 84), "x by 140 / 200, y by 140 / 100"
    assert target.point.x in (41, 42)
    assert 41 <= target.point.y <= 70
    assert target_of(mask, (200, 100)).box == (40, 20, 80, 60)  # type: ignore[union-attr]


def test_a_point_lies_in_its_object_where_the_middle_of_the_box_does_not() -> None:
    ring = np.zeros((100, 100), np.bool_)
    ring[10:90, 10:90] = True
    ring[20:85, 20:85] = False
    target = target_of(ring, (100, 100))
    assert target is not None
    assert ring[target.point.y, target.point.x]
    assert min(target.point) <= 17, "in the thick sides, top and left"


def test_what_is_less_than_a_pixel_of_the_frame_is_no_target() -> None:
    speck = np.zeros((100, 200), np.bool_)
    speck[3, 3] = True
    assert target_of(speck, (20, 10)) is None
    assert target_of(np.zeros((5, 5), np.bool_), (5, 5)) is None


# --- COCO, LVIS, references -------------------------------------------------------------------------------------------
def test_coco_rows_are_resized_to_a_square_and_earn_the_full_reward(tmp_path: Path) -> None:
    assert coco(tmp_path, "--no_target_share", 0.5) == 0
    found = rows(tmp_path / "rows")
    assert {i: row["problem"] for i, row in found.items() if row["solution"] != "[]"} == {
        "1/1": "cat",
        "1/2": "dog",
        "2/1": "cat",
    }, "not the sheep, which are a crowd"
    dogs = found["1/2"]
    assert list(dogs) == ["id", "problem", "solution", "image", "img_height", "img_width"]
    assert dogs["image"].size == (SIDE, SIDE)
    assert (dogs["img_height"], dogs["img_width"]) == (100, 200)
    assert [o["bbox_2d"] for o in json.loads(dogs["solution"])] == [[70, 14, 97, 69], [105, 56, 132, 125]]
    reply = f"<think>Two dogs.</think><answer>{dogs['solution']}</answer>"
    assert compute_reward(reply, dogs["solution"], model_size=(SIDE, SIDE)).total == 7


def test_quiet_means_no_progress(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert coco(tmp_path, "-q") == 0
    assert capsys.readouterr().err == ""


def test_rows_with_nothing_to_find_ask_for_what_is_not_there_and_are_no_more_than_wanted(tmp_path: Path) -> None:
    assert coco(tmp_path, "--no_target_share", 0.5) == 0
    nothing = [row["problem"] for row in rows(tmp_path / "rows").values() if row["solution"] == "[]"]
    assert 1 <= len(nothing) <= 3
    assert set(nothing) <= {"baseball bat", "dog", "sheep"}
    assert coco(tmp_path, "--no_target_share", 0, "--overwrite") == 0
    assert len(rows(tmp_path / "rows")) == 3


def test_lvis_rows_ask_for_no_category_that_is_not_annotated_to_the_end(tmp_path: Path) -> None:
    annotations, images = releases.write_lvis(tmp_path)
    flags = ["--annotations", annotations, "--images", images, "--output_dir", tmp_path / "rows", "--group-share=0"]
    assert run("lvis", *flags, "--frame_side", SIDE, "--min_sam2_iou", 0, "--no_target_share", 0.4) == 0
    found = rows(tmp_path / "rows")
    assert {(i, row["problem"]) for i, row in found.items() if row["solution"] != "[]"} == {
        ("1/1", "cat"),
        ("2/1", "cat"),
    }
    assert {row["problem"] for row in found.values() if row["solution"] == "[]"} == {"baseball bat"}


def test_each_phrase_of_a_reference_is_a_row(tmp_path: Path) -> None:
    refs, annotations, images = releases.write_refer(tmp_path)
    flags = ["--refs", refs, "--annotations", annotations, "--images", images, "--output_dir", tmp_path / "rows"]
    assert run("refcoco", *flags, "--min_sam2_iou", 0, "--group_share", 0, "--frame_side", SIDE) == 0
    found = rows(tmp_path / "rows")
    assert {row["problem"] for row in found.values()} == {"the cat", "cat on the left", "right dog"}
    assert found["1/0"]["solution"] == found["1/1"]["solution"]
    assert len(json.loads(found["2/0"]["solution"])) == 1


def test_grefcoco_rows_have_several_objects_or_none(tmp_path: Path) -> None:
    refs, annotations, images = releases.write_grefcoco(tmp_path)
    flags = ["--refs", refs, "--annotations", annotations, "--images", images, "--output_dir", tmp_path / "rows"]
    assert run("grefcoco", *flags, "--min_sam2_iou", 0, "--no_target_share", 0.5) == 0
    found = {row["problem"]: json.loads(row["solution"]) for row in rows(tmp_path / "rows").values()}
    assert len(found["the cat"]) == 2
    assert found["right dog"] == []


def test_a_borrowed_phrase_means_nothing_where_its_kind_of_object_is_not(tmp_path: Path) -> None:
    refs, annotations, images = releases.write_refer(tmp_path)
    instances = read_instances(annotations, images)
    borrowed = Counter(
        (found.image.id, found.query)
        for seed in range(20)
        for found in prepare.reference_samples(read_references(refs), instances, random.Random(seed))
        if not found.objects
    )
    assert list(borrowed) == [("2", "right dog")], "picture 1 has cats and dogs, picture 2 a cat alone"
    assert borrowed.total() < 20, "no other phrase stands in where the one drawn does not fit"


# --- what is left out -------------------------------------------------------------------------------------------------
def test_objects_that_are_too_small_or_too_many_cost_their_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert coco(tmp_path, "--min_side", 40, "--no_target_share", 0) == 0
    assert list(rows(tmp_path / "rows")) == ["2/1"]
    assert "Left out, an object is too small: 2." in capsys.readouterr().err
    assert coco(tmp_path, "--max_objects", 1, "--no_target_share", 0, "--overwrite") == 0
    assert set(rows(tmp_path / "rows")) == {"1/1", "2/1"}
    assert "Left out, it asks for more than 1 objects (--max_objects): 1." in capsys.readouterr().err


class FakeSegmenter:
    """Finds the annotated mask again, moved by some pixels."""

    def __init__(self, moved: int) -> None:
        self.moved = moved
        self.prompts: list[tuple[Any, Any]] = []

    def encode(self, image: Image.Image) -> tuple[int, int]:
        return image.size

    def masks(self, features: tuple[int, int], boxes: Any, points: Any) -> Iterator[tuple[Mask, float]]:
        for box, point in zip(boxes, points, strict=True):
            self.prompts.append((box, point))
            mask = np.zeros(features[::-1], np.bool_)
            x1, y1, x2, y2 = box
            mask[y1:y2, x1 + self.moved : x2 + self.moved] = True
            yield mask, 1.0


@pytest.mark.parametrize(("moved", "kept"), [(0, True), (4, True), (8, False)])
def test_objects_that_sam2_does_not_find_again_cost_their_request(moved: int, kept: bool) -> None:
    segmenter: Any = FakeSegmenter(moved)  # of 40 pixels' width: an IoU of 1, 36/44 and 32/48
    image, masks = noise(*releases.SIZE), [releases.rectangle(11), releases.rectangle(12)]
    assert masks_found_again(segmenter, image, masks, 0.7) is kept
    box, point = segmenter.prompts[0]
    assert box == releases.RECTANGLES[11], "edges, in pixels of the picture"
    assert releases.rectangle(11)[point[1], point[0]]


def test_the_released_segmenter_is_asked_unless_it_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vision_reasoner.models.segmenter import Segmenter

    asked = []

    def load(path: str, **_flags: Any) -> FakeSegmenter:
        asked.append(path)
        return FakeSegmenter(8)

    monkeypatch.setattr(Segmenter, "from_pretrained", load)
    assert coco(tmp_path, "--min_sam2_iou", 0.9, "--no_target_share", 0) == 3
    assert asked[0].endswith("sam2-hiera-large")
    assert "there are no rows to write" in capsys.readouterr().err
    assert coco(tmp_path, "--min_sam2_iou", 0.1, "--no_target_share", 0) == 0
    assert len(rows(tmp_path / "rows")) == 3


def test_sam2_itself_is_asked(tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--min_sam2_iou", 0.9, "--segmentation_model_path", bundle, "--device", "cpu"]
    assert coco(tmp_path, *flags, "--no_target_share", 0.5) == 0
    assert "Left out, SAM2 finds another mask: 3." in capsys.readouterr().err, "for this one says noise"
    assert {row["solution"] for row in rows(tmp_path / "rows").values()} == {"[]"}


def test_a_segmenter_that_is_not_there_is_said_with_the_way_around_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert coco(tmp_path, "--min_sam2_iou", 0.5, "--segmentation_model_path", tmp_path / "none") == 4
    assert capsys.readouterr().err.splitlines()[-1].endswith("or go without SAM2: --min_sam2_iou 0")


def test_boxes_alone_are_an_error_or_taken_as_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = releases.instances()["annotations"]
    for annotation in data:
        annotation["segmentation"] = []
    assert coco(tmp_path, "--no_target_share", 0, annotations=data) == 3
    assert "has a box but no outline" in capsys.readouterr().err
    assert coco(tmp_path, "--no_target_share", 0, "--boxes_as_masks", annotations=data) == 0
    assert json.loads(rows(tmp_path / "rows")["1/1"]["solution"])[0]["bbox_2d"] == [28, 28, 55, 83]
    assert coco(tmp_path, "--boxes_as_masks", "--min_sam2_iou", 0.5, annotations=data) == 2


def test_a_bad_picture_stops_the_work_unless_it_may_be_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations, images = releases.write_coco(tmp_path)
    (images / "000000000002.jpg").write_bytes(b"no picture")
    flags = ["coco", "--annotations", annotations, "--images", images, "--output_dir", tmp_path / "rows"]
    flags += ["--min_sam2_iou", 0, "--no_target_share", 0]
    assert run(*flags) == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert "000000000002.jpg" in last
    assert not list((tmp_path / "rows").iterdir()), "nothing half-written is left"
    assert run(*flags, "--skip_bad") == 0
    assert {row["id"].split("/")[0] for row in rows(tmp_path / "rows").values()} == {"1"}


@pytest.mark.parametrize(
    "polygon", [[5, 5, 2e8, 3e8, 25, 25], [5, 5, float("nan"), 5, 25, 25], [5, 5, 25, 5, 25, 25, 5]]
)
def test_an_outline_that_cannot_be_drawn_costs_its_request_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], polygon: list[float]
) -> None:
    data = releases.instances()["annotations"]
    data[4]["segmentation"] = [polygon]
    assert coco(tmp_path, "--no_target_share", 0, annotations=data) == 3
    assert coco(tmp_path, "--no_target_share", 0, "--skip_bad", annotations=data) == 0
    assert set(rows(tmp_path / "rows")) == {"1/1", "1/2"}
    assert "left out: annotation 15: a polygon has" in capsys.readouterr().err


@pytest.mark.parametrize("change", [{"bbox": []}, {"image_id": 99}, {"bbox": [1, 2, 3]}, {"category_id": None}])
def test_a_bad_annotation_is_named_and_costs_no_more_than_its_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    data = releases.instances()["annotations"]
    data[4] |= change
    assert coco(tmp_path, "--no_target_share", 0, annotations=data) == 3
    assert "annotation 15 " in capsys.readouterr().err
    assert coco(tmp_path, "--no_target_share", 0, "--skip_bad", annotations=data) == 0
    assert set(rows(tmp_path / "rows")) == {"1/1", "1/2"}
    said = capsys.readouterr().err
    assert "instances_val2017.json: annotation 15 " in said
    assert "Left out, it cannot be used: 1." in said


def test_nothing_is_asked_of_a_heading_that_nobody_annotates(tmp_path: Path) -> None:
    names = releases.CATEGORIES | {0: "pets"}
    categories = [{"id": i, "name": name, "supercategory": "pets" if i else "none"} for i, name in names.items()]
    assert coco(tmp_path, "--no_target_share", 0.9, categories=categories) == 0
    assert "pets" not in {row["problem"] for row in rows(tmp_path / "rows").values()}


def test_references_that_are_bad_cost_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refs, annotations, images = releases.write_grefcoco(tmp_path)
    entries = json.loads(refs.read_text())
    silent = entries[0] | {"ref_id": 7, "sentences": []}
    stranger = entries[0] | {"ref_id": 8, "ann_id": [999]}
    releases.write_json(refs, [*entries, silent, stranger, {"ref_id": 9}])
    flags = ["--refs", refs, "--annotations", annotations, "--images", images, "--output_dir", tmp_path / "rows"]
    flags += ["--min_sam2_iou", 0, "--no_target_share", 0.5]
    assert run("grefcoco", *flags) == 3
    assert run("grefcoco", *flags, "--skip_bad") == 0
    assert {row["problem"] for row in rows(tmp_path / "rows").values()} == {
        "the cat",
        "cat on the left",
        "right dog",
    }
    said = capsys.readouterr().err
    assert "have no sentence and are passed over: 7" in said
    assert "left out: reference 8: the instances have no picture or annotation 999" in said
    assert "Left out, it cannot be used: 2." in said


# --- choosing and grouping --------------------------------------------------------------------------------------------
class Thing:
    """An object in name only."""

    def __init__(self, id: str) -> None:
        self.id = id

    def mask(self) -> Mask:
        raise AssertionError("not needed")


class FakeImage:
    def __init__(self, id: str) -> None:
        self.id = id

    def open(self) -> Image.Image:
        raise AssertionError("not needed")


def sample(n: int, number: int, image: str = "") -> Sample:
    things = tuple(Thing(f"{number}.{i}") for i in range(n))
    return Sample(f"{n}-{number}", f"phrase {number}", FakeImage(image or str(number)), things)


def chosen(
    samples: list[Sample], n: int, share: float = 0.0, make: Callable[[Sample], Any] | None = None
) -> Counter[int]:
    taken: Counter[int] = Counter()
    list(
        select(
            samples,
            make or (lambda s: {"id": s.id}),
            random.Random(0),
            n=n,
            no_target_share=share,
            balance=True,
            taken=taken,
            left_out=Counter(),
        )
    )
    return taken


def test_answers_are_balanced_by_number_of_objects_as_far_as_there_are_any() -> None:
    samples = [sample(n, i) for n, many in ((1, 100), (2, 50), (3, 5), (12, 40)) for i in range(many)]
    assert chosen(samples, 65) == {1: 20, 2: 20, 3: 5, 12: 20}
    assert chosen(samples, 1000).total() == 195


def test_balance_is_of_rows_that_were_made_not_of_those_tried() -> None:
    samples = [sample(n, i) for n in (1, 2) for i in range(60)]
    assert chosen(samples, 40, make=lambda s: "bad" if len(s.objects) == 2 and int(s.id[2:]) % 2 else {"id": s.id}) == {
        1: 20,
        2: 20,
    }


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_the_share_with_nothing_to_find_holds_to_the_end(share: float) -> None:
    taken = chosen([sample(0, i) for i in range(500)] + [sample(1, i) for i in range(50)], 1000, share)
    assert taken[1] == 50
    assert abs(taken[0] - share * taken.total()) <= 1


def test_grouped_requests_share_a_picture_and_no_object() -> None:
    samples = [sample(1, i, image=str(i % 3)) for i in range(30)] + [sample(0, 99, image="1")]
    joined = grouped(samples, 1.0, random.Random(0))
    assert sorted(i for s in joined for i in s.id.split("+")) == sorted(s.id for s in samples), "each once"
    assert {len(s.objects) for s in joined} >= {0, 2, 3}
    one = next(s for s in joined if len(s.objects) == 3)
    assert one.query.count("phrase") == 3
    assert ", " in one.query
    assert " and " in one.query
    assert len({o.id for o in one.objects}) == 3
    assert [s.id for s in grouped(samples, 0.0, random.Random(0)) if "+" in s.id] == []


def test_phrases_for_the_same_object_are_never_joined() -> None:
    first, second = sample(1, 7, image="p"), sample(1, 7, image="p")
    assert len(grouped([first, second], 1.0, random.Random(0))) == 2


def test_the_same_seed_gives_the_same_rows(tmp_path: Path) -> None:
    written = []
    for seed in (3, 3, 4):
        assert coco(tmp_path, "--seed", seed, "--group_share", 0.5, "--overwrite") == 0
        written.append((tmp_path / "rows/train-00000-of-00001.parquet").read_bytes())
    assert written[0] == written[1] != written[2]


# --- scenes -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def plain_sprites(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "cached_sprites", lambda _drawings: drawings.sprites())


@pytest.mark.usefixtures("plain_sprites")
def test_scenes_are_asked_for_objects_and_for_what_is_not_there(tmp_path: Path) -> None:
    flags = ["--n", 24, "--no_target_share", 0.2, "--output_dir", tmp_path / "rows"]
    assert run("scenes", *flags) == 0
    table = load_rows(tmp_path / "rows")
    assert len(table) == 24
    numbers = Counter(len(json.loads(row["solution"])) for row in table)
    assert 1 <= numbers[0] <= 5
    assert len(numbers) >= 5
    kinds = Counter(row["id"].partition("-")[2].partition("-")[2] for row in table)
    assert kinds["count"]
    assert kinds["absent"] >= numbers[0] - kinds["purpose"]
    assert all(row["image"].size == (280, 280) for row in table)
    assert all(check_row(row) == 280 for row in table)


@pytest.mark.usefixtures("plain_sprites")
def test_scenes_of_another_seed_or_in_held_out_words_are_others(tmp_path: Path) -> None:
    found = []
    flags: tuple[list[object], ...] = ([], [], ["--seed", 2], ["--held_out"])
    for number, more in enumerate(flags):
        prepare.painted_scene.cache_clear()
        assert run("scenes", "--n", 4, "--output_dir", tmp_path / str(number), *more) == 0
        found.append([row["problem"] for row in load_rows(tmp_path / str(number))])
    assert found[0] == found[1]
    assert len({tuple(problems) for problems in found}) == 3


def test_scenes_are_for_the_frame_of_the_small_checkpoint() -> None:
    config = Path(__file__).parents[2] / "pretrained_models/VisionReasoner-Tiny/reasoner/config.json"
    assert json.loads(config.read_text())["frame_side"] == prepare.TINY_SIDE


# --- layouts ----------------------------------------------------------------------------------------------------------
@lru_cache
def encoded_noise(width: int, height: int) -> dict[str, Any]:
    return encode_image(noise(width, height))


def published(**changes: Any) -> dict[str, Any]:
    """A row as Ricky06662/VisionReasoner_multi_object_* have them."""
    objects = [{"bbox_2d": [10, 20, 110, 220], "point_2d": [60, 120]}]
    return {
        "id": "7",
        "problem": "The Dog.",
        "solution": json.dumps(objects),
        "image": encoded_noise(840, 840),
        "img_height": 480,
        "img_width": 640,
        **changes,
    }


def write(folder: Path, *entries: dict[str, Any]) -> Path:
    write_table(folder, "train", columns_of("hub"), entries)
    return folder


def test_published_rows_load_as_they_are(tmp_path: Path) -> None:
    table = load_rows(write(tmp_path / "published", published(), published(id="8", solution="[]")))
    assert table.column_names == ["id", "problem", "solution", "image", "img_height", "img_width"]
    assert table[0]["image"].size == (840, 840)
    table.save_to_disk(tmp_path / "saved")
    assert load_rows(tmp_path / "saved")[1]["id"] == "8"
    datasets.DatasetDict(train=table).save_to_disk(tmp_path / "both")
    assert load_rows(tmp_path / "both")[1]["id"] == "8"
    assert load_rows(tmp_path / "published/train-00000-of-00001.parquet")[1]["id"] == "8"
    assert datasets.load_dataset(str(tmp_path / "published"), split="train")[1]["id"] == "8"


TEXT = VISION_REASONER.text_for("The Dog.")
SOLUTION = published()["solution"]


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("hub", {"id": "7", "problem": "The Dog.", "solution": SOLUTION, "img_height": 480, "img_width": 640}),
        ("trl", {"id": "7", "prompt": [{"role": "user", "content": TEXT}], "solution": SOLUTION}),
        (
            "verl",
            {
                "data_source": "vision_reasoner",
                "prompt": [{"role": "user", "content": "<image>" + TEXT}],
                "ability": "perception",
                "reward_model": {"style": "rule", "ground_truth": SOLUTION},
                "extra_info": {"index": 0, "split": "train", "id": "7", "frame_side": 840},
            },
        ),
        ("easyr1", {"id": "7", "problem": "<image>" + TEXT, "answer": SOLUTION}),
    ],
)
def test_each_engine_gets_its_columns(tmp_path: Path, layout: str, expected: dict[str, Any]) -> None:
    source = write(tmp_path / "published", published())
    assert run("rows", "--data", source, "--format", layout, "--output_dir", tmp_path / "out") == 0
    row = load_table(tmp_path / "out", "train")[0]
    (image,) = row.pop("images", None) or [row.pop("image")]
    assert row == expected
    assert np.array_equal(np.asarray(image), np.asarray(noise(840, 840))), "without loss"


def test_any_source_is_written_for_any_engine(tmp_path: Path) -> None:
    assert coco(tmp_path, "--format", "easyr1", "--no_target_share", 0) == 0
    row = load_table(tmp_path / "rows", "train")[0]
    assert row["images"][0].size == (SIDE, SIDE)
    assert row["problem"].startswith('<image>Please find "')


def test_a_placeholder_in_a_request_is_refused_where_it_would_be_taken_for_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "published", published(problem="the <image> sign"))
    assert run("rows", "--data", source, "--format", "verl", "--output_dir", tmp_path / "out") == 3
    assert "row '7': <image> in the problem" in capsys.readouterr().err
    assert run("rows", "--data", source, "--format", "trl", "--output_dir", tmp_path / "out") == 0
    source = write(tmp_path / "more", published(problem="the <image> sign"), published(id="8"))
    assert run("rows", "--data", source, "--format", "verl", "--output_dir", tmp_path / "verl", "--skip_bad") == 0
    (row,) = load_table(tmp_path / "verl", "train")["extra_info"]
    assert (row["id"], row["index"]) == ("8", 0)


def test_rows_can_be_numbered_and_divided(tmp_path: Path) -> None:
    numbered = columns_of("hub") | {"id": datasets.Value("int64")}
    write_table(tmp_path / "rows", "train", numbered, [published(id=i) for i in range(3)])
    for flags, ids in ((["--skip", 2], ["2"]), (["--n", 2], ["0", "1"]), (["--skip", 1, "--n", 1], ["1"])):
        assert run("rows", "--data", tmp_path / "rows", *flags, "--output_dir", tmp_path / "out", "--overwrite") == 0
        assert load_table(tmp_path / "out", "train")["id"][:] == ids


# --- bad rows and tables ----------------------------------------------------------------------------------------------
def solution(**changes: Any) -> str:
    entry = {"bbox_2d": [10, 20, 110, 220], "point_2d": [60, 120], **changes}
    return json.dumps([{k: v for k, v in entry.items() if v is not None}])


BAD_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "no point": ({"solution": solution(point_2d=None)}, "point_2d"),
    "no box": ({"solution": solution(bbox_2d=None)}, "bbox_2d"),
    "a box outside the frame": ({"solution": solution(bbox_2d=[10, 20, 110, 841])}, "leaves the frame of 840x840"),
    "a point outside the frame": ({"solution": solution(point_2d=[-1, 20])}, "leaves the frame of 840x840"),
    "corners out of order": ({"solution": solution(bbox_2d=[110, 20, 10, 220])}, "order"),
    "an empty solution": ({"solution": ""}, "no JSON list"),
    "no solution": ({"solution": None}, "no JSON text"),
    "a solution that is no list": ({"solution": "{}"}, "no JSON list"),
    "an empty problem": ({"problem": "  "}, "the problem is empty"),
    "a picture that cannot be read": ({"image": {"bytes": b"no picture", "path": None}}, "no picture that can be read"),
    "an empty picture": ({"image": {"bytes": b"", "path": None}}, "empty"),
    "no picture": ({"image": None}, "it has no picture"),
    "a picture that is not resized": ({"image": encoded_noise(840, 600)}, "840x600, not resized to a square"),
}


@pytest.mark.parametrize(("change", "complaint"), BAD_ROWS.values(), ids=BAD_ROWS)
@pytest.mark.parametrize("place", [0, 1], ids=["first", "later"])
def test_a_row_that_cannot_be_trained_on_is_named_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], complaint: str, place: int
) -> None:
    entries = [published(id="fine"), published(id="fine too")]
    entries.insert(place, published(id="bad", **change))
    source = write(tmp_path / "published", *entries)
    assert run("rows", "--data", source, "--output_dir", tmp_path / "out") == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert "row 'bad': " in last
    assert complaint in last
    assert not list(tmp_path.glob("out/*"))


def test_rows_that_cannot_be_trained_on_can_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = [published(id=f"bad {i}", **change) for i, (change, _) in enumerate(BAD_ROWS.values())]
    source = write(tmp_path / "published", *entries, published(id="fine"))
    assert run("rows", "--data", source, "--output_dir", tmp_path / "out", "--skip_bad") == 0
    assert [row["id"] for row in load_rows(tmp_path / "out")] == ["fine"]
    errors = capsys.readouterr().err
    assert f"Left out, it cannot be used: {len(BAD_ROWS)}." in errors
    assert "left out: row 'bad 0': " in errors


def test_rows_with_a_bad_answer_are_found_before_a_picture_is_looked_at(tmp_path: Path) -> None:
    source = write(tmp_path / "published", published(), published(id="bad", solution=solution(point_2d=None)))
    with pytest.raises(DataError, match="row 'bad'"):
        load_rows(source)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["rows", "--data", "{tmp}/none"], "no such file or folder"),
        (["rows", "--data", "{tmp}/train2014"], "no parquet files train-*"),
        (["rows", "--data", "{tmp}/other", "--split", "val"], "no parquet files val-*"),
        (["rows", "--data", "{tmp}/other"], "no table of training rows, without problem, solution"),
        (["rows", "--data", "{tmp}/text.parquet"], "cannot be read as a data set"),
        (["coco", "--annotations", "{tmp}/none.json", "--images", "{tmp}"], "none.json: cannot be read"),
        (["coco", "--annotations", "{tmp}/list.json", "--images", "{tmp}"], "is no COCO or LVIS instances file"),
        (
            ["refcoco", "--refs", "{tmp}/refs(unc).p", "--annotations", "{tmp}/instances.json"]
            + ["--images", "{tmp}/train2014", "--refs_split", "testA"],
            "has no split 'testA'; it has train, val",
        ),
    ],
)
def test_missing_files_and_wrong_formats_are_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    write_table(tmp_path / "other", "train", {"id": datasets.Value("string")}, [{"id": "1"}])
    (tmp_path / "text.parquet").write_text("no parquet")
    releases.write_json(tmp_path / "list.json", [])
    releases.write_refer(tmp_path)
    given = [a.format(tmp=tmp_path) for a in arguments]
    assert run(*given, "--output_dir", tmp_path / "out") == 3
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert complaint in last


@pytest.mark.parametrize(
    "flags",
    [
        ["--n", "0"],
        ["--no_target_share", "1"],
        ["--frame_side", "0"],
        ["--max_objects", "0"],
        ["--min_side", "-1"],
        ["--group_share", "1.5"],
        ["--group_share", "nan"],
        ["--min_sam2_iou", "-0.1"],
        ["--min_sam2_iou", "70"],
    ],
)
def test_numbers_that_make_no_sense_are_refused(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert coco(tmp_path, *flags) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: {flags[0]} ")


@pytest.mark.parametrize("flags", [["--n", "0"], ["--skip", "-1"]])
def test_no_rows_and_negative_skips_are_refused(tmp_path: Path, flags: list[str]) -> None:
    assert run("rows", "--data", write(tmp_path / "rows", published()), "--output_dir", tmp_path / "out", *flags) == 2


def test_what_lies_there_is_not_written_over_unless_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert coco(tmp_path) == 0
    assert coco(tmp_path) == 3
    assert "--overwrite" in capsys.readouterr().err
    assert coco(tmp_path, "--split", "test") == 0, "another split has room beside it"
    assert set(datasets.load_dataset(str(tmp_path / "rows"))) == {"train", "test"}


# --- tables -----------------------------------------------------------------------------------------------------------
def test_large_tables_become_several_files_and_equal_pictures_are_kept_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = [published(id=str(i)) for i in range(40)]
    one_size = len(many[0]["image"]["bytes"])
    monkeypatch.setattr("vision_reasoner.data.tables.SHARD_BYTES", 20 * one_size)
    folder = write(tmp_path / "rows", *many)
    files = sorted(folder.glob("*.parquet"))
    assert [f.name for f in files] == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    assert [row["id"] for row in load_rows(folder)] == [str(i) for i in range(40)]
    assert sum(f.stat().st_size for f in files) < 5 * one_size


def test_masks_are_written_as_they_are(tmp_path: Path) -> None:
    lists = datasets.List(datasets.List(datasets.Value("bool")))
    first, last = releases.rectangle(11), releases.rectangle(12)[:5, :7]
    write_table(tmp_path / "t", "test", {"mask": lists}, [{"mask": mask} for mask in (first, None, last)])
    read = load_table(tmp_path / "t", "test")["mask"]
    assert read[1] is None
    assert np.array_equal(np.array(read[0]), first)
    assert np.array_equal(np.array(read[2]), last)


def test_a_row_takes_pictures_as_bytes_or_decoded() -> None:
    target = target_of(releases.rectangle(11), (SIDE, SIDE))
    assert isinstance(target, Target)
    row = make_row("1", "the cat", noise(*releases.SIZE), [target], SIDE)
    assert check_row(row) == SIDE
    assert check_row({**row, "image": Image.open(io.BytesIO(row["image"]["bytes"]))}) == SIDE
    assert (row["img_height"], row["img_width"]) == (100, 200)


def test_a_maker_says_why_there_is_no_row() -> None:
    class Photo:
        id = "1"

        def open(self) -> Image.Image:
            return noise(*releases.SIZE)

    class Cat:
        id = "11"

        def mask(self) -> Mask:
            return releases.rectangle(11)

    request = Sample("1", "the cat", Photo(), (Cat(),))
    assert RowBuilder(SIDE, min_side=60).row(request) == "an object is too small"
    segmenter: Any = FakeSegmenter(30)
    assert RowBuilder(SIDE, 1, segmenter, 0.7).row(request) == "SAM2 finds another mask"
    assert isinstance(RowBuilder(SIDE, 1).row(request), dict)


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, vision_reasoner.training.prepare, evaluation.prepare\n"
    code += "sys.exit(','.join({'torch', 'datasets', 'pyarrow', 'scipy', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


# --- corrections ------------------------------------------------------------------------------------------------------
def test_results_are_rows_where_they_are_of_their_picture_and_list_objects(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise(60, 40).save(tmp_path / "a.png")
    found = Instance(Box(6, 4, 36, 24))
    results = [
        Prediction((60, 40), "dogs", Task.DETECTION, instances=[found]),
        Prediction((60, 40), "cats", Task.COUNTING, status=Status.NONE),
        Prediction((60, 40), "ants", Task.COUNTING, answer="5"),
    ]
    file = tmp_path / "results.jsonl"
    file.write_text("".join(json.dumps({"image": "a.png"} | one.to_json()) + "\n" for one in results))
    command = ["corrections", "--data", str(file), "--no_target_share", "0.5", "--output_dir", str(tmp_path / "rows")]
    assert main(command) == 0
    solutions = {row["problem"]: json.loads(row["solution"]) for row in load_rows(tmp_path / "rows")}
    assert solutions == {
        "dogs": [{"bbox_2d": [84, 84, 503, 503], "point_2d": solutions["dogs"][0]["point_2d"]}],
        "cats": [],
    }
    assert "1 results left out: they state a count" in capsys.readouterr().err
    noise(40, 60).save(tmp_path / "a.png")
    assert main([*command, "--overwrite"]) == 3
    assert "is 40x60, and its results are of 60x40" in capsys.readouterr().err
