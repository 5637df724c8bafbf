"""TensorBoard, Weights & Biases and profiles, as a run writes them."""

import gzip
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY

from charlstm.errors import UserError
from charlstm.sampling.text import printable
from charlstm.training.writers import WANDB_ID_FILE, WandbWriter, Writers, scalars

# Read by a process of its own: the reader's libraries warn of things that are not ours.
READ_EVENTS = """
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={"tensors": 0})
events.Reload()
tags = events.Tags()
print(json.dumps({
    "scalars": {tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in tags["scalars"]},
    "texts": {tag: [[e.step, e.tensor_proto.string_val[0].decode()] for e in events.Tensors(tag)]
              for tag in tags["tensors"]},
}))
"""


@pytest.fixture(scope="module")
def told(charlstm, text_file, tmp_path_factory):
    """A run with event files and a profile, stopped on the way and continued."""
    folder = tmp_path_factory.mktemp("told") / "run"
    arguments = [f"--corpus={text_file}", f"--workdir={folder}", *TINY, "--tensorboard"]
    arguments += ["--config.model.alphabet=corpus", "--config.training.sample_every=20"]
    done = charlstm("train", *arguments, "--stop_after=22", "--profile=12:15")
    assert done.returncode == 0, done.stderr
    assert "wrote the profile of updates from 12 on" in done.stderr
    done = charlstm("train", *arguments)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def events(told, tmp_path_factory):
    command = [sys.executable, "-c", READ_EVENTS, str(told / "tensorboard")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_tensorboard_has_every_figure_once(told, events):
    lines = [json.loads(line) for line in (told / "metrics.jsonl").read_text().splitlines()]
    for tag, key in (
        ("train/bits_per_byte", "train_bits_per_byte"),
        ("valid/bits_per_byte", "valid_bits_per_byte"),
        ("learning_rate", "learning_rate"),
    ):
        wanted = [[line["step"], np.float32(line[key])] for line in lines if key in line]
        found = [[step, np.float32(value)] for step, value in events["scalars"][tag]]
        assert found == wanted


def test_tensorboard_has_the_samples(told, events):
    (texts,) = events["texts"].values()
    assert [step for step, _ in texts] == [5, 20, 40]
    sample = printable((told / "samples" / "00000040.txt").read_bytes())
    assert texts[-1][1] == "\n".join(f"    {line}" for line in sample.splitlines())


def test_the_profile_is_a_trace_that_perfetto_reads(told):
    (path,) = (told / "profile").rglob("perfetto_trace.json.gz")
    trace = json.loads(gzip.decompress(path.read_bytes()))
    assert any(event.get("ph") == "X" for event in trace["traceEvents"])
    assert list((told / "profile" / "plugins" / "profile").rglob("*.xplane.pb"))


def test_a_run_that_is_told_and_traced_is_the_same_run(told, trained):
    bits = [
        json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])["valid_bits_per_byte"]
        for folder in (told, trained)
    ]
    assert bits[0] == bits[1]


def test_a_diagnosis_is_text_at_weights_and_biases():
    said = {"diagnosis": "overfitting", "message": "the network learns its text by heart"}
    logged = []

    class Run:
        def log(self, values, step):
            logged.append((step, values))

    writer = WandbWriter.__new__(WandbWriter)
    writer._run = Run()
    writer.write({"step": 7} | said)
    assert logged == [(7, {"diagnosis": "overfitting: the network learns its text by heart"})]


def test_every_writer_is_given_plain_values_and_none_for_what_is_not_finite(tmp_path):
    told = []

    class Writer:
        def write(self, values):
            told.append(values)

        merge = write

    writers = Writers(tmp_path, [Writer(), Writer()])
    given = {
        "step": 3,
        "perplexity": math.inf,
        "of_numpy": np.float32("nan"),
        "of_jax": jnp.array([1.0, -jnp.inf]),
        "nested": {"norm": np.float64(2.5), "norms": (math.nan, 1)},
        "text": "nan",
    }
    writers.write(given)
    writers.merge(given)
    wanted = {
        "step": 3,
        "perplexity": None,
        "of_numpy": None,
        "of_jax": [1.0, None],
        "nested": {"norm": 2.5, "norms": [None, 1]},
        "text": "nan",
    }
    assert told == [wanted] * 4
    assert dict(scalars(told[0])) == {"nested/norm": 2.5}


def test_a_full_disk_is_one_line_also_when_the_writers_are_closed(tmp_path):
    """What a file still holds then cannot be written either."""
    closed = []

    class Full:
        def __init__(self):
            self.file = open("/dev/full", "ab")  # noqa: SIM115

        def write(self, values):
            self.file.write(b"a line\n")
            self.file.flush()

        def close(self):
            closed.append(self)
            self.file.close()

    writers = Writers(tmp_path, [Full(), Full()])
    for act in (lambda: writers.write({"step": 1}), writers.close):
        with pytest.raises(UserError, match=r"could not write to .*No space left") as caught:
            act()
        assert str(tmp_path) in str(caught.value)
    assert len(closed) == 2


def test_numbers_are_grouped():
    line = {"step": 3, "train_nats": 1.5, "seconds": 2, "lost_seconds": {"save": 1}, "x": None}
    assert dict(scalars(line)) == {"train/nats": 1.5, "seconds": 2.0, "lost_seconds/save": 1.0}


def test_the_id_at_weights_and_biases_survives_resumption(
    charlstm, text_file, environment, tmp_path
):
    pytest.importorskip("wandb", reason="pip install 'charlstm[wandb]'", exc_type=ImportError)
    offline = environment | {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    arguments = [f"--corpus={text_file}", f"--workdir={tmp_path}", *TINY, "--wandb=project"]
    ids = []
    for more in (["--stop_after=20"], []):
        done = charlstm("train", *arguments, *more, env=offline | {"HOME": os.fspath(tmp_path)})
        assert done.returncode == 0, done.stderr
        ids.append(Path(tmp_path / WANDB_ID_FILE).read_text())
    assert ids[0] == ids[1]
    runs = [entry.name for entry in (tmp_path / "wandb").glob("offline-run-*")]
    assert runs and all(name.endswith(ids[0]) for name in runs)
