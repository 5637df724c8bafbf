"""A file that is replaced is whole whenever it is read."""

import os

import pytest

from charlstm.runtime.files import replace_file


def test_text_and_bytes_take_the_place_of_what_was_there(tmp_path):
    path = tmp_path / "file"
    for content in "naïve\n", b"\xff\r\n", "":
        replace_file(path, content)
        assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert os.listdir(tmp_path) == ["file"]


def test_whoever_reads_meanwhile_reads_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with path.open() as reader:
        replace_file(path, "new, and longer")
        assert reader.read() == "old"
    assert path.read_text() == "new, and longer"


def test_what_cannot_be_written_leaves_everything_as_it_was(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(OSError):
        replace_file(folder, "text")
    with pytest.raises(FileNotFoundError):
        replace_file(folder / "absent" / "file", "text")
    assert os.listdir(tmp_path) == ["folder"] and os.listdir(folder) == []


def test_processes_with_the_same_id_do_not_share_a_draft(tmp_path, monkeypatch):
    """In a container the only process has the id 1, and two containers may share a folder."""
    path, sync = tmp_path / "file", os.fsync

    def sync_after_another(descriptor):
        monkeypatch.setattr(os, "fsync", sync)
        replace_file(path, "another's")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", sync_after_another)
    replace_file(path, "ours")
    assert path.read_text() == "ours" and os.listdir(tmp_path) == ["file"]
