"""The text of a run: notes on it, and what happens when it is changed meanwhile."""

import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from charlstm.config import DataConfig
from charlstm.data.corpus import load_corpus
from charlstm.data.streams import Streams
from charlstm.errors import UserError
from charlstm.training.host_windows import HostWindows
from charlstm.training.input import load_shared_corpus

# Trains on a text that is read window by window, and truncates it when updates have been made.
TRUNCATING = """
import os, sys
import charlstm
from charlstm.data import streams
from charlstm.errors import UserError

streams.CPU_RESIDENT_BYTES = 0
text, workdir = sys.argv[1:]

class Truncate:
    every = 40

    def __call__(self, run):
        os.truncate(text, 10)

config = charlstm.load_config("quickstart").replace({
    "data.corpus": text, "data.num_streams": 4, "data.window_length": 8,
    "model.hidden_size": 8, "training.num_updates": 400, "training.evaluate_every": 0,
    "training.sample_every": 0, "training.checkpoint_every": 20,
})
try:
    charlstm.train(config, workdir, hooks=[Truncate()])
except UserError as error:
    sys.exit(str(error))
"""


@pytest.fixture
def logged(caplog):
    caplog.set_level("INFO", "absl")
    return caplog


def test_a_text_truncated_under_a_run_ends_it_in_a_line_and_keeps_what_was_saved(
    environment, text_file, tmp_path
):
    text = tmp_path / "text.txt"
    text.write_bytes(text_file.read_bytes())
    done = subprocess.run(
        [sys.executable, "-c", TRUNCATING, text, tmp_path / "run"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1, done  # and no signal
    assert f"{str(text)!r} was changed or removed" in done.stderr.splitlines()[-1]
    assert (tmp_path / "run" / "checkpoints" / "20").is_dir()


def test_windows_are_not_read_from_a_changed_text(text_file, tmp_path):
    text = tmp_path / "text.txt"
    text.write_bytes(text_file.read_bytes())
    corpus = load_corpus(str(text), 0.1, 0)
    mesh = jax.make_mesh((1, 1), ("data", "model"))
    train = corpus.split("train")
    windows = HostWindows(Streams(len(train), 4, 8), train, 2, mesh, corpus.require_unchanged)
    windows(0, 2)
    while not windows._ahead[1].done():  # the next windows are read by now
        time.sleep(0.001)
    text.write_bytes(text_file.read_bytes()[::-1])
    windows(2, 2)
    with pytest.raises(UserError, match="was changed or removed"):
        windows(4, 2)


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        (("words " * 99).encode("UTF-16"), 1),
        (b"words\0" * 99, 1),
        (b"words " * 99, 0),
    ],
)
def test_a_text_with_nul_bytes_is_noted_once(tmp_path, logged, text, notes):
    (tmp_path / "text.txt").write_bytes(text)
    corpus = load_shared_corpus(DataConfig(corpus=str(tmp_path / "text.txt")))
    assert corpus.data.tobytes() == text
    assert len(logged.messages) == notes
    assert all("iconv -f UTF-16" in message for message in logged.messages)


def test_the_text_of_a_run_that_was_moved_is_found_by_its_record(tmp_path, logged):
    (tmp_path / "text.txt").write_bytes(b"words " * 99)
    data = DataConfig(corpus=str(tmp_path / "text.txt"))
    corpus = load_shared_corpus(data)
    recorded = {"name": "text.txt", "sha256": corpus.sha256, "num_bytes": 594}
    recorded["source"] = corpus.source
    moved = DataConfig(corpus="text.txt", valid_size=50)
    found = load_shared_corpus(moved, recorded)
    assert found.sha256 == corpus.sha256 and np.ptp(found.bounds.valid) == 50
    assert found.source == str(tmp_path / "text.txt")
    with pytest.raises(UserError, match=r"is named 'text\.txt'"):
        load_shared_corpus(moved)
    (tmp_path / "text.txt").write_bytes(b"other words")
    assert load_shared_corpus(data, recorded).data.tobytes() == b"other words"
