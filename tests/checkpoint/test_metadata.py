"""The JSON part of a checkpoint: its format, and whatever may stand in it instead."""

import json
import shutil

import pytest
from run_folders import parameters

import charlstm
from charlstm.checkpoint.metadata import FORMAT_VERSION, Metadata, encoded, read_metadata


def metadata_file(folder, step=40):
    return folder / "checkpoints" / str(step) / "metadata" / "metadata"


class Claimed(Metadata):
    """Metadata that anybody may have made up."""

    def __init__(self, values):
        object.__setattr__(self, "values", values)

    def to_json(self):
        return self.values


def signed(values):
    """Returns the text of metadata whose checksum is right, whatever stands in them."""
    return encoded(Claimed(values))


@pytest.fixture
def changed(trained, tmp_path):
    """Copies the trained run; its last metadata are those that a function makes of them."""

    def copied(change):
        folder = tmp_path / "run"
        shutil.copytree(trained, folder)
        path = metadata_file(folder)
        values = json.loads(path.read_text())
        del values["checksum"]
        path.write_text(signed(change(values)))
        return folder

    return copied


def test_a_checkpoint_says_of_which_format_it_is(trained):
    saved = json.loads(metadata_file(trained).read_text())
    assert saved["format_version"] == FORMAT_VERSION == 2
    assert read_metadata(trained / "checkpoints" / "40").format_version == FORMAT_VERSION


def test_what_is_written_is_read_back(trained):
    saved = read_metadata(trained / "checkpoints" / "40")
    assert type(saved).from_json(json.loads(json.dumps(saved.to_json()))) == saved


def newer(values):
    return values | {"format_version": FORMAT_VERSION + 1, "field_of_tomorrow": 1}


def test_a_newer_format_is_refused_in_a_line_that_names_the_cure(changed):
    folder = changed(newer)
    step = folder / "checkpoints" / "40"
    for path in (step, folder):
        with pytest.raises(charlstm.UserError) as caught:
            charlstm.load(path)
        assert str(caught.value) == (
            f"the checkpoint {step} has format 3, and this charlstm reads formats up to 2: "
            "update it (pip install --upgrade charlstm)"
        )


def test_every_command_refuses_a_newer_format_with_one_line(changed, charlstm, text_file):
    folder = changed(newer)
    checkpoint = f"--checkpoint={folder}"
    config = f"--config={folder / 'config.json'}"
    for command in (
        ("sample", checkpoint),
        ("evaluate", checkpoint),
        ("train", config, f"--corpus={text_file}", f"--workdir={folder}"),
    ):
        done = charlstm(*command)
        assert done.returncode == 2 and done.stdout == ""
        complaint = done.stderr.splitlines()[-1]
        assert "has format 3" in complaint and "pip install --upgrade charlstm" in complaint
        assert "Traceback" not in done.stderr


def without_a_version(values):
    return {key: v for key, v in values.items() if key not in ("format_version", "digests")}


def test_a_checkpoint_from_before_formats_had_numbers_is_read_like_one_of_the_first(
    changed, trained
):
    folder = changed(without_a_version)
    assert "format_version" not in json.loads(metadata_file(folder).read_text())
    assert read_metadata(folder / "checkpoints" / "40").format_version == 1
    assert (parameters(folder, 40) == parameters(trained, 40)).all()


def assert_damaged(folder):
    with pytest.raises(charlstm.UserError, match="is damaged or no checkpoint") as caught:
        charlstm.load(folder / "checkpoints" / "40")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format_version": 1}', '{"config": {}', "\xff"])
def test_metadata_that_are_none_are_called_damaged_in_one_line(changed, text):
    folder = changed(lambda values: values)
    metadata_file(folder).write_text(text)
    assert_damaged(folder)


def test_metadata_without_their_checksum_are_called_damaged(changed):
    folder = changed(lambda values: values)
    values = json.loads(metadata_file(folder).read_text())
    del values["checksum"]
    metadata_file(folder).write_text(json.dumps(values))
    assert_damaged(folder)


HOSTILE = {
    "metrics that are a text": {"metrics": "good"},
    "a metric that is a text": {"metrics": {"valid_bits_per_byte": "good"}},
    "no corpus": {"corpus": None},
    "a corpus without a digest": {"corpus": {"name": "x", "num_bytes": 3}},
    "an empty clock": {"clock": {}},
    "a clock that is not finite": {"clock": {"seconds": float("nan"), "skipped": 0}},
    "digests that are numbers": {"digests": {"params/x": 1}},
    "digests of files elsewhere": {"digests": {"../39/metadata/metadata": "0"}},
    "a version that is a text": {"format_version": "2"},
    "a symbol twice": {"alphabet": {"kind": "corpus", "symbols": [97, 97]}},
    "no symbols": {"alphabet": {"kind": "corpus", "symbols": []}},
    "a symbol that is no byte": {"alphabet": {"kind": "corpus", "symbols": [1, 256]}},
    "all bytes but one": {"alphabet": {"kind": "bytes", "symbols": list(range(255))}},
    "too many cells": {"config": {"model": {"hidden_size": 2**40}}},
    "more cells than there are": {"config": {"model": {"hidden_size": 2**20}}},
    "too many layers": {"config": {"model": {"num_layers": 100_000}}},
    "more layers than there are": {"config": {"model": {"num_layers": 64}}},
    "too long windows": {"config": {"data": {"window_length": 2**40}}},
    "no sections": {"config": 3},
    "a field of another day": {"something": 1},
}


# Where one array cannot be read, Orbax has begun to read others, and each complains on its own.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("values", HOSTILE.values(), ids=HOSTILE)
def test_hostile_metadata_end_in_one_line(changed, values):
    assert_damaged(changed(lambda saved: saved | values))


def test_a_hostile_clock_ends_a_resumed_run_in_one_line(changed, charlstm, text_file):
    clock = {"seconds": 1, "skipped": 0, "goodput": "x", "diagnosis": [1]}
    folder = changed(lambda saved: saved | {"clock": clock})
    config = f"--config={folder / 'config.json'}", "--config.training.num_updates=60"
    done = charlstm("train", *config, f"--corpus={text_file}", f"--workdir={folder}")
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert "damaged" in done.stderr.splitlines()[-1]
