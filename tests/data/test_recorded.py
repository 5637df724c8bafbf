"""The text of a run is found again."""

import hashlib
import io
import json
import os
import sys
from pathlib import Path

import pytest

from charlstm.data.corpora import open_corpus
from charlstm.data.corpus import load_corpus
from charlstm.data.recorded import open_again, open_recorded
from charlstm.data.registry import CORPORA
from charlstm.errors import UserError

TEXT = b"the text of the run"

pytestmark = pytest.mark.usefixtures("cache")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def send(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def send_nothing(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "empty":
        send(monkeypatch, b"")
    else:
        monkeypatch.setattr(sys, "stdin", None if how == "closed" else Terminal())


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What a run in the working folder `home` records of its text, `book.txt`."""
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    Path("book.txt").write_bytes(TEXT)
    return record("book.txt")


def record(spec: str) -> dict[str, object]:
    corpus = load_corpus(spec, 0.1, 0.1)
    found = {"name": corpus.name, "sha256": corpus.sha256, "num_bytes": len(corpus.data)}
    return json.loads(json.dumps(found | {"source": corpus.source}))


def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


def test_a_text_is_found_from_another_working_folder(recorded, tmp_path, monkeypatch) -> None:
    elsewhere(tmp_path, monkeypatch)
    assert open_recorded("book.txt", recorded).data.tobytes() == TEXT
    Path("book.txt").write_bytes(b"another text of that name")
    assert open_recorded("book.txt", recorded).data.tobytes() == TEXT


@pytest.mark.parametrize("spec", [".", "*.txt"])
def test_a_folder_and_a_pattern_are_found_from_another_working_folder(
    recorded, tmp_path, monkeypatch, spec: str
) -> None:
    recorded = record(spec)
    elsewhere(tmp_path, monkeypatch)
    found = open_recorded(spec, recorded)
    assert found.data.tobytes() == TEXT
    assert (found.name, found.path) == (spec, recorded["source"])


def test_a_text_that_was_moved_with_its_run_is_found_by_its_spec(recorded, tmp_path) -> None:
    (tmp_path / "home" / "book.txt").rename(tmp_path / "book.txt")
    assert open_recorded("../book.txt", recorded).data.tobytes() == TEXT
    del recorded["source"]  # as older checkpoints
    assert open_recorded("../book.txt", recorded).data.tobytes() == TEXT


def test_a_text_that_is_gone_is_found_in_the_cache_by_its_digest(recorded) -> None:
    open_corpus(".")  # makes a copy
    Path("book.txt").write_bytes(b"another text")
    found = open_recorded("book.txt", recorded)
    assert found.data.tobytes() == TEXT and found.name == "book.txt"


def test_a_damaged_copy_is_not_taken_for_the_text(recorded, cache: Path) -> None:
    open_corpus(".")
    Path("book.txt").unlink()
    [copy] = cache.rglob("*.bin")
    copy.write_bytes(b"damaged")
    with pytest.raises(UserError, match="is not found"):
        open_recorded("book.txt", recorded)


def test_a_registered_corpus_is_found_by_its_digest(recorded, monkeypatch) -> None:
    corpus = CORPORA["names"]
    wanted = recorded | {"name": "names", "sha256": corpus.digest.sha256}
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(UserError, match=r"corpus 'names' is not in .* could not be fetched"):
        open_recorded("book.txt", wanted)


def test_a_text_that_is_nowhere_is_described_with_the_cure(recorded) -> None:
    Path("book.txt").write_bytes(b"another text")
    with pytest.raises(UserError) as caught:
        open_recorded("book.txt", recorded)
    message = str(caught.value)
    digest = hashlib.sha256(TEXT).hexdigest()
    assert f"it is book.txt, 19 bytes, sha256 {digest[:12]}…" in message
    assert "--corpus=PATH" in message and "book.txt' has other bytes" in message
    assert "\n" not in message


def test_the_text_of_a_stream_is_found_without_reading_standard_input(monkeypatch) -> None:
    send(monkeypatch, TEXT)
    recorded = record("-")
    assert recorded["source"] == ""
    send(monkeypatch, b"something else")
    found = open_recorded("-", recorded)
    assert (found.name, found.data.tobytes()) == ("standard input", TEXT)
    assert sys.stdin.read() == "something else"


@pytest.mark.parametrize("how", ["empty", "closed", "terminal"])
def test_a_run_on_standard_input_goes_on_when_nothing_is_sent(monkeypatch, how: str, log) -> None:
    send(monkeypatch, TEXT)
    recorded = record("-")
    send_nothing(monkeypatch, how)
    assert open_again("-", recorded).data.tobytes() == TEXT
    assert "going on with the text of the run" in log.messages[-1]


@pytest.mark.parametrize("how", ["empty", "closed"])
def test_nothing_on_standard_input_is_reported_where_no_run_goes_on(monkeypatch, how: str) -> None:
    send_nothing(monkeypatch, how)
    with pytest.raises(UserError, match=f"standard input'? is {how}"):
        open_again("-")


def test_a_text_that_the_user_named_is_not_replaced_by_the_runs(recorded, monkeypatch) -> None:
    Path("other.txt").write_bytes(b"another text")
    assert open_again("other.txt", recorded).data.tobytes() == b"another text"
    send(monkeypatch, b"sent")
    assert open_again("-", recorded).data.tobytes() == b"sent"


def test_a_run_goes_on_from_another_working_folder(recorded, tmp_path, monkeypatch, log) -> None:
    elsewhere(tmp_path, monkeypatch)
    assert open_again("book.txt", recorded).data.tobytes() == TEXT
    assert log.messages[-1].startswith("no corpus, file or folder is named 'book.txt'; going on")
    with pytest.raises(UserError, match="no corpus, file or folder is named"):
        open_again("book.txt")


def test_a_stream_that_another_process_has_read_is_found_by_its_digest(monkeypatch) -> None:
    send(monkeypatch, TEXT)
    sha256 = open_again("-").sha256
    send(monkeypatch, b"the rest")
    assert open_again("-", sha256=sha256).data.tobytes() == TEXT


def test_a_path_that_is_not_utf8_is_recorded_and_found(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open(b"caf\xe9.txt", "wb") as file:
        file.write(TEXT)
    spec = os.fsdecode(b"caf\xe9.txt")
    recorded = record(spec)
    elsewhere(tmp_path, monkeypatch)
    found = open_recorded(spec, recorded)
    assert (found.name, found.data.tobytes()) == ("caf\\xe9.txt", TEXT)
