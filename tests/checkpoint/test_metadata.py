"""The JSON part of a checkpoint says of which format it is, and a newer one is refused."""

import json
import shutil

import pytest
from run_folders import parameters

import charlstm
from charlstm.checkpoint.metadata import FORMAT_VERSION, read_metadata


def metadata_file(folder, step=40):
    return folder / "checkpoints" / str(step) / "metadata" / "metadata"


@pytest.fixture
def changed(trained, tmp_path):
    """Copies the trained run; its last metadata are those that a function makes of them."""

    def copied(change):
        folder = tmp_path / "run"
        shutil.copytree(trained, folder)
        path = metadata_file(folder)
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
        return folder

    return copied


def test_a_checkpoint_says_of_which_format_it_is(trained):
    saved = json.loads(metadata_file(trained).read_text())
    assert saved["format_version"] == FORMAT_VERSION == 1
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
            f"the checkpoint {step} has format 2, and this charlstm reads formats up to 1: "
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
        assert "has format 2" in complaint and "pip install --upgrade charlstm" in complaint
        assert "Traceback" not in done.stderr


def test_a_checkpoint_from_before_formats_had_numbers_is_read_like_one_of_the_first(
    changed, trained
):
    folder = changed(lambda values: {k: v for k, v in values.items() if k != "format_version"})
    assert "format_version" not in json.loads(metadata_file(folder).read_text())
    assert read_metadata(folder / "checkpoints" / "40").format_version == 1
    assert (parameters(folder, 40) == parameters(trained, 40)).all()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format_version": 1}', '{"config": {}', "\xff"])
def test_metadata_that_are_none_are_called_damaged_in_one_line(changed, text):
    folder = changed(lambda values: values)
    metadata_file(folder).write_text(text)
    with pytest.raises(charlstm.UserError, match="is damaged or no checkpoint") as caught:
        charlstm.load(folder / "checkpoints" / "40")
    assert "\n" not in str(caught.value)
