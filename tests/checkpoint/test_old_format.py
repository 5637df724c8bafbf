"""A checkpoint from before checkpoints had a format version still loads, resumes and samples.

`format_1/` was written by the code of 2026-11-27: a run of 40 updates that ended at update 20, and
the metrics of the same run when it was let to its end.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import charlstm

FIXTURE = Path(__file__).parent / "format_1"
FLAGS = (
    "--config.model.num_layers=2",
    "--config.model.hidden_size=8",
    "--config.model.alphabet=corpus",
    "--config.model.dropout=0.2",
    "--config.data.num_streams=4",
    "--config.data.window_length=8",
    "--config.training.num_updates=40",
    "--config.training.log_every=5",
    "--config.training.evaluate_every=20",
    "--config.training.checkpoint_every=20",
    "--config.training.checkpoint_seconds=0",
    "--config.optimizer.warmup_updates=5",
    "--config.optimizer.averaging=ema",
    "--config.training.keep_last=1",
    "--num_cpu_devices=1",
)


@pytest.fixture
def old_run(tmp_path):
    return Path(shutil.copytree(FIXTURE / "run", tmp_path / "run"))


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_it_has_no_version_and_is_read_as_version_1(old_run):
    from charlstm.checkpoint.metadata import read_metadata

    folder = old_run / "checkpoints" / "20"
    assert "format_version" not in json.loads((folder / "metadata" / "metadata").read_text())
    assert read_metadata(folder).format_version == 1


def test_it_scores_its_validation_split_as_it_did_when_it_was_written(old_run):
    model = charlstm.load(old_run)
    text = (FIXTURE / "text.txt").read_bytes()
    valid = lines_of(old_run / "metrics.jsonl")[-1]["valid_bits_per_byte"]
    size = int(0.05 * len(text))
    start, stop = len(text) - 2 * size, len(text) - size
    logits = model.logits(text[:stop])[start - 1 : stop - 1].astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    targets = model.alphabet.encode(text[start:stop])
    bits = -log_p[np.arange(len(targets)), targets].mean() / np.log(2)
    np.testing.assert_allclose(bits, valid, rtol=1e-5)


def test_it_samples(charlstm, old_run):
    done = charlstm("sample", f"--checkpoint={old_run}", "--prompt=abc", "--num_bytes=40")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("abc") and len(done.stdout) >= 43


def test_it_resumes_as_if_the_code_had_not_changed(charlstm, old_run):
    flags = (f"--corpus={FIXTURE / 'text.txt'}", f"--workdir={old_run}", *FLAGS)
    done = charlstm("train", *flags)
    assert done.returncode == 0, done.stderr
    assert "going on from update 20" in done.stderr
    found, wanted = lines_of(old_run / "metrics.jsonl"), lines_of(FIXTURE / "uninterrupted.jsonl")
    assert [line["step"] for line in found] == [line["step"] for line in wanted]
    for name in ("train_bits_per_byte", "gradient_norm", "learning_rate", "valid_bits_per_byte"):
        pairs = [(f.get(name), w.get(name)) for f, w in zip(found, wanted, strict=True)]
        assert all((f is None) == (w is None) for f, w in pairs)
        values = np.array([pair for pair in pairs if pair[0] is not None])
        # Another processor rounds otherwise.
        np.testing.assert_allclose(*values.T, rtol=1e-4)
    metadata = old_run / "checkpoints" / "40" / "metadata" / "metadata"
    assert json.loads(metadata.read_text())["format_version"] == 2
