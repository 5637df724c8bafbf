import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from charlstm.data.corpora import open_corpus
from charlstm.data.registry import CORPORA

REPOSITORY = Path(__file__).parents[2]

pytestmark = pytest.mark.network


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)


def test_shakespeare_is_plain_ascii_without_markdown(monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_corpus("shakespeare")
    text = source.data.tobytes().decode("ascii")
    assert len(text) == 4_840_439
    assert len(set(text)) == 78
    assert not set(text) & set("*_#\\")
    assert " \n" not in text
    assert text.startswith("A Midsummer Night's Dream\n\nACT I\n\nSCENE I. Athens.")
    assert "\n\nHAMLET\nTo be, or not to be: that is the question:\n" in text
    assert "Edward III\n\nACT I" not in text

    go_offline(monkeypatch)
    again = open_corpus("shakespeare")
    assert again.sha256 == source.sha256 == hashlib.sha256(text.encode()).hexdigest()
    np.testing.assert_array_equal(again.data, source.data)


def test_names_come_one_a_line_in_no_order_of_their_own() -> None:
    names = open_corpus("names").data.tobytes().decode("ascii").split("\n")
    assert names.pop() == ""
    assert len(names) == len(set(names)) == 5163
    assert {"Mary", "James", "Kelvin"} < set(names)
    assert all(name == name.capitalize() for name in names)
    # Neither alphabetical nor the most frequent first: both ends have names from A to Z.
    assert {name[0] for name in names[:500]} >= set("ABCDEGJKLMRST") <= {n[0] for n in names[-500:]}


@pytest.mark.parametrize("keeps_size", [True, False])
def test_damaged_copy_is_fetched_again(keeps_size: bool) -> None:
    corpus = CORPORA["tinyshakespeare"]
    corpus.path.parent.mkdir(parents=True)
    corpus.path.write_bytes(bytes(corpus.digest.num_bytes if keeps_size else 100))
    assert open_corpus("tinyshakespeare").sha256 == corpus.digest.sha256
    assert hashlib.sha256(corpus.path.read_bytes()).hexdigest() == corpus.digest.sha256


def test_two_processes_that_fetch_at_once_both_end_well(tmp_path: Path) -> None:
    program = (
        "from charlstm.data.corpora import open_corpus\n"
        "print(open_corpus('tinyshakespeare').sha256)"
    )
    command = [sys.executable, "-c", program]
    processes = [
        subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate()[0].strip() for process in processes]
    assert outputs == [CORPORA["tinyshakespeare"].digest.sha256] * 2
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files == [CORPORA["tinyshakespeare"].path]
