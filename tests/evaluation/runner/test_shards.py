"""A run in parts: joined, they are the run without parts; anything else is refused."""

import json
import re
import shutil

import pytest

from evaluation.merge import main
from evaluation.report import main as report
from evaluation.runner.evaluate import collect
from evaluation.runner.records import MANIFEST, METRICS, SAMPLES
from evaluation.runner.samples import Samples
from evaluation.runner.shards import parse_shard, shard_folder
from evaluation.suites import SUITES
from tests.support.runs import make_data, manifest_of
from tests.support.toys import toy_model, toy_run, various
from vision_reasoner.data.sources import open_source
from vision_reasoner.errors import UsageError


def run_shards(data, suite, folder, of, *, model=None, batch_size=3, numbers=None, **manifest):
    samples = Samples(SUITES[suite], open_source(data))
    toy = model or toy_model()
    for number in numbers or range(1, of + 1):
        part = parse_shard(f"{number}/{of}")
        shard = {"number": number, "of": of, "batch_size": batch_size}
        whole = manifest_of(samples, shard=shard, **manifest)
        collect(samples, lambda: toy, shard_folder(folder, part), whole, batch_size=batch_size, quiet=True)
    return toy


@pytest.fixture
def data(tmp_path):
    return make_data(tmp_path / "data", "counting")


@pytest.mark.parametrize("of", [1, 3, 7])
@pytest.mark.parametrize("suite", ["segmentation", "detection", "counting"])
def test_joined_shards_are_the_run_without_shards(tmp_path, suite, of, capsys):
    data = make_data(tmp_path / "data", suite)
    whole = toy_model()
    toy_run(data, suite, tmp_path / "whole", whole)
    parts = run_shards(data, suite, tmp_path / "run", of)
    batches = {tuple(batch) for batch in whole.reasoner.batches}
    assert {tuple(batch) for batch in parts.reasoner.batches} == batches, "every sample in the same company"
    assert main([str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / METRICS).read_bytes() == (tmp_path / "whole" / METRICS).read_bytes()
    assert f"{suite} on toys" in capsys.readouterr().out
    manifests = [json.loads((tmp_path / name / MANIFEST).read_text()) for name in ("run", "whole")]
    assert manifests[0] == manifests[1]


def test_shards_may_be_named_and_lie_anywhere(tmp_path, data):
    run_shards(data, "counting", tmp_path / "elsewhere", 2)
    folders = [str(tmp_path / "elsewhere" / f"shard-{number}-of-2") for number in (2, 1)]
    assert main([str(tmp_path / "joined"), *folders]) == 0
    assert report([str(tmp_path / "joined")]) == 0


def test_a_shard_is_no_run(tmp_path, data, capsys):
    run_shards(data, "counting", tmp_path / "run", 2)
    assert report([str(tmp_path / "run" / "shard-1-of-2")]) == 3
    assert "is a shard of a run; python -m evaluation.merge" in capsys.readouterr().err
    assert not (tmp_path / "run" / "shard-1-of-2" / METRICS).exists()


def test_failed_samples_of_shards_are_failed_samples(tmp_path, data, capsys):
    run_shards(
        data, "counting", tmp_path / "run", 2, model=toy_model(lambda i: RuntimeError("odd") if i == 4 else various(i))
    )
    assert main([str(tmp_path / "run")]) == 7
    assert "1 samples failed" in capsys.readouterr().err
    assert main([str(tmp_path / "run"), "--overwrite", "--max_errors", "1"]) == 0


def damage_missing(folder, _data):
    (folder / "shard-2-of-3").rename(folder.parent / "away")


def damage_twice(folder, data):
    run_shards(data, "counting", folder.parent / "again", 3, numbers=[2])
    (folder.parent / "again" / "shard-2-of-3").rename(folder / "shard-2-of-3-again")


def damage_unfinished(folder, _data):
    samples = folder / "shard-2-of-3" / SAMPLES
    samples.write_bytes(samples.read_bytes()[:-30])


def damage_foreign(folder, data):
    run_shards(
        data, "counting", folder, 3, numbers=[2], checkpoint={"reasoner": {"name": "Toy", "digest": "1" * 64}}, n=10
    )


def damage_other_batches(folder, data):
    run_shards(data, "counting", folder, 3, numbers=[2], batch_size=5)


def damage_overlapping(folder, _data):
    lines = (folder / "shard-1-of-3" / SAMPLES).read_bytes()
    with (folder / "shard-2-of-3" / SAMPLES).open("ab") as samples:
        samples.write(lines)


def damage_whole(folder, _data):
    manifest = json.loads((folder / "shard-2-of-3" / MANIFEST).read_text())
    del manifest["shard"]
    (folder / "shard-2-of-3" / MANIFEST).write_text(json.dumps(manifest))


def damage_finished(folder, _data):
    assert main([str(folder)]) == 0


@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        (damage_missing, 2, "of the 3 shards 2 are missing"),
        (damage_twice, 2, "are both shard 2 of 3"),
        (damage_unfinished, 3, "1 of 10 samples are missing"),
        (damage_foreign, 2, "no shard of the same run .*checkpoint.reasoner.digest was"),
        (damage_other_batches, 2, "no shard of the same run .*shard.batch_size was"),
        (damage_overlapping, 3, "is there twice"),
        (damage_whole, 2, "holds a whole run, no shard"),
        (damage_finished, 2, "holds a run; give another folder, or --overwrite"),
    ],
)
def test_what_is_not_all_shards_of_one_run_is_refused(tmp_path, data, capsys, damage, code, message):
    folder = tmp_path / "run"
    run_shards(data, "counting", folder, 3)
    if damage in (damage_foreign, damage_other_batches):
        shutil.rmtree(folder / "shard-2-of-3")
    damage(folder, data)
    capsys.readouterr()
    assert main([str(folder)]) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(f"^error: .*{message}", line)


def test_a_folder_without_shards_is_refused(tmp_path, capsys):
    assert main([str(tmp_path)]) == 3
    assert "holds no shards" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "-1/4", "1", "1/4/5", "a/b", "1 / 4", "", "1/1e3"])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(UsageError, match="give I/N"):
        parse_shard(text)
