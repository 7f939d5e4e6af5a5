"""Files survive interruptions: whole or not at all, and lines that are torn are taken out and no others."""

import json

import pytest

from tests.conftest import largest_file
from vision_reasoner.errors import UsageError
from vision_reasoner.files import append_jsonl, atomic_folder, atomic_write, filter_jsonl, sha256


def everything(record):
    return bool(record) or True


def test_a_file_that_is_written_half_is_not_there_and_leaves_the_old_one(tmp_path):
    file = tmp_path / "new" / "file.json"
    atomic_write(file, lambda part: part.write_text("one"))

    def fails(part):
        part.write_text("tw")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(file, fails)
    assert file.read_text() == "one"
    assert list(file.parent.iterdir()) == [file]


def test_a_file_that_cannot_be_written_is_a_usage_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        atomic_write(tmp_path / "file" / "below", lambda part: part.write_text("x"))


def test_a_folder_is_replaced_when_the_new_one_is_filled_and_stays_otherwise(tmp_path):
    folder = tmp_path / "new" / "folder"
    with atomic_folder(folder) as part:
        (part / "one").touch()
    (folder.parent / ".folder.part").mkdir()  # left by a kill
    with atomic_folder(folder) as part:
        (part / "two").touch()
        assert (folder / "one").exists()

    def fails():
        with atomic_folder(folder) as part:
            (part / "three").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    assert [file.name for file in folder.iterdir()] == ["two"]
    assert list(folder.parent.iterdir()) == [folder]

    folder.rename(folder.parent / ".folder.old")  # as a kill between the renames leaves it
    with pytest.raises(KeyboardInterrupt):
        fails()
    assert [file.name for file in folder.iterdir()] == ["two"]


def test_lines_are_added_as_ascii_json(tmp_path):
    with (tmp_path / "lines").open("ab") as stream:
        append_jsonl(stream, [{"text": "two\nlines\u2028 狗"}, {"n": 1}])
        assert [json.loads(line) for line in (tmp_path / "lines").read_bytes().splitlines()] == [
            {"text": "two\nlines\u2028 狗"},
            {"n": 1},
        ]
        with pytest.raises(ValueError, match="JSON compliant"):
            append_jsonl(stream, [{"n": float("nan")}])


WHOLE = b'{"n": 1}\n{"n": 2}\n{"n": 3}\n'


@pytest.mark.parametrize("cut", range(len(WHOLE) + 1))
def test_wherever_a_file_is_cut_its_whole_lines_stay_and_can_be_added_to(tmp_path, cut):
    file = tmp_path / "lines.jsonl"
    file.write_bytes(WHOLE[:cut])
    seen: list[int] = []

    def see(record):
        seen.append(record["n"])
        return True

    filter_jsonl(file, see)
    assert seen == [1, 2, 3][: (cut + 1) // 9], "a line that lacks its end of line alone is whole"
    with file.open("ab") as stream:
        append_jsonl(stream, [{"n": 9}])
    assert [json.loads(line)["n"] for line in file.read_bytes().splitlines()] == [*seen, 9]
    assert list(tmp_path.iterdir()) == [file]


def test_a_whole_file_is_not_written_again(tmp_path):
    file = tmp_path / "lines.jsonl"
    file.write_bytes(WHOLE)
    before = file.stat()
    filter_jsonl(file, everything)
    assert file.stat().st_ino == before.st_ino


def test_lines_that_are_not_wanted_or_no_objects_are_taken_out(tmp_path, caplog):
    file = tmp_path / "lines.jsonl"
    file.write_bytes(b'{"n": 1}\n{"n": 2}{"n"\n\0\0\0\n[3]\n{"n": 4}\n')
    filter_jsonl(file, lambda record: record["n"] != 1)
    assert file.read_bytes() == b'{"n": 4}\n'
    assert "line 2 is truncated" in caplog.text
    filter_jsonl(tmp_path / "missing", everything)
    assert not (tmp_path / "missing").exists()


def test_an_error_while_looking_leaves_the_file_as_it_was(tmp_path):
    file = tmp_path / "lines.jsonl"
    file.write_bytes(WHOLE[:-4])

    def refuse(record):
        raise UsageError(f"not {record}")

    with pytest.raises(UsageError):
        filter_jsonl(file, refuse)
    assert file.read_bytes() == WHOLE[:-4]
    assert list(tmp_path.iterdir()) == [file]


def test_the_digest_is_sha256(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256(tmp_path / "file").startswith("ba7816bf8f01cfea")


def test_a_full_disk_is_one_line_and_what_was_whole_stays(tmp_path):
    file = tmp_path / "lines.jsonl"
    with file.open("ab") as stream:
        append_jsonl(stream, [{"n": 1}])
        with largest_file(20), pytest.raises(UsageError, match=r"lines.jsonl: cannot be written \(.*make room"):
            append_jsonl(stream, [{"n": 2}, {"n": 3, "long": "x" * 100}])
    assert file.stat().st_size == 20
    filter_jsonl(file, everything)
    with file.open("ab") as stream:
        append_jsonl(stream, [{"n": 3}])
    assert [json.loads(line)["n"] for line in file.read_text().splitlines()] == [1, 2, 3]


def test_garbage_among_lines_is_taken_out(tmp_path):
    file = tmp_path / "lines.jsonl"
    garbage = [b"\x00\xff" * 50, b"[" * 100_000, b"{}" * 3, b"null", b"\xf0\x9f", b"9" * 5000]
    file.write_bytes(b"\n".join([b'{"n": 1}', *garbage, b'{"n": 2}']))
    filter_jsonl(file, everything)
    assert file.read_bytes() == b'{"n": 1}\n{"n": 2}\n'
