"""Average precision of a run: which boxes are ranked how, and against which truth."""

import json

import pytest

from evaluation.runner.ranking import Annotations, annotations_of, measure_ranking, rank
from evaluation.runner.samples import Samples
from evaluation.suites import SUITES
from tests.support.runs import make_data, right
from vision_reasoner.data.sources import open_source
from vision_reasoner.errors import DataError


@pytest.fixture
def samples(tmp_path):
    return Samples(SUITES["detection"], open_source(make_data(tmp_path / "data", "detection", 6)))


def records(samples, **changes):
    made = []
    for i in range(samples.source.n):
        found = right(samples[i]).to_json()
        instances = [{**instance, **changes} for instance in found["instances"]]
        made.append(
            {
                "image_id": samples[i].image_id,
                "size": found["image_size"],
                "truth": samples[i].truth,
                "instances": instances,
            }
        )
    return made


def values(annotations, found):
    return {(f["name"], f["protocol"]): f["value"] for f in measure_ranking(annotations, found)}


def test_the_true_boxes_have_an_average_precision_of_one(samples):
    found = values(annotations_of(samples), records(samples))
    assert found["COCO AP", "official"] == found["COCO AP", "upstream"] == pytest.approx(1)


def test_the_official_protocol_ranks_by_likelihood_and_upstream_by_area(samples):
    made = records(samples)
    for record in made:  # a large wrong box that the model finds unlikely
        record["instances"].append({"box": [0, 0, 96, 64], "likelihood": -9.0})
    found = values(annotations_of(samples), made)
    assert found["COCO AP", "official"] == pytest.approx(1)
    assert found["COCO AP", "upstream"] < 0.7


def test_without_likelihoods_there_is_no_official_figure(samples):
    found = values(annotations_of(samples), records(samples, likelihood=None))
    assert found["COCO AP", "official"] is None
    assert found["COCO AP", "upstream"] == pytest.approx(1)


def test_images_that_were_not_asked_about_count_upstream_only(samples):
    annotations, found = annotations_of(samples), records(samples)[:3]
    assert values(annotations, found)["COCO AP", "official"] == pytest.approx(1)
    assert values(annotations, found)["COCO AP", "upstream"] < 1
    ranked = rank(annotations, found, "official")
    assert ranked is not None
    assert len(ranked.image_ids) == 2, "two rows share a picture"


def test_an_instances_file_of_coco_is_read_with_its_crowds_and_areas(samples):
    image_ids = sorted(set(samples.image_ids))
    number = {image_id: 100 + i for i, image_id in enumerate(image_ids)}
    coco = {
        "info": {},
        "images": [{"id": n, "image_id": name, "file_name": "x.jpg"} for name, n in number.items()],
        "annotations": [
            {
                "id": 1,
                "image_id": 100,
                "category_id": 1,
                "bbox": [1, 2, 3, 4],
                "area": 5,
                "iscrowd": 1,
                "segmentation": [],
            }
        ],
        "categories": [{"id": 1, "name": "dog", "supercategory": "animal"}],
    }
    annotations = Annotations.from_json(coco)
    assert annotations.numbers == number
    assert annotations.instances["annotations"] == [
        {"image_id": 100, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 5, "iscrowd": 1}
    ]
    again = Annotations.from_json(json.loads(json.dumps(annotations.to_json())))
    assert again == annotations
    plain = Annotations.from_json({**coco, "images": [{"id": 7}], "annotations": []})
    assert plain.numbers == {"7": 7}


def test_a_picture_that_the_annotations_do_not_have_is_said(samples):
    with pytest.raises(DataError, match="image p2 is not in the annotations"):
        rank(Annotations({"images": [], "annotations": [], "categories": []}, {"p0": 1}), records(samples), "official")
