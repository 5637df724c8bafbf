"""The models that come with charlstm, by their names."""

import re
import shutil

import pytest
from run_folders import numbers

import charlstm
from charlstm import UserError, exporting
from charlstm.checkpoint import exported, reading, shipped


@pytest.fixture(scope="module")
def file(trained, tmp_path_factory):
    """The trained run's model in one file."""
    path = tmp_path_factory.mktemp("exported") / "words.safetensors"
    exporting.export(str(trained), "safetensors", path)
    return path


@pytest.fixture
def shipping(file, tmp_path, monkeypatch):
    """charlstm with one model that comes with it, and a working directory of its own."""
    folder = tmp_path / "package"
    folder.mkdir()
    shutil.copy(file, folder / "shakespeare.safetensors")
    (folder / "shakespeare.md").write_text("A card.")
    monkeypatch.setattr(shipped, "FOLDER", folder)
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_name_stands_for_the_file(shipping, file):
    assert shipped.names() == ["shakespeare"]
    assert reading.resolve("shakespeare") == shipping / "shakespeare.safetensors"
    assert (numbers(charlstm.load("shakespeare")) == numbers(charlstm.load(file))).all()


def test_what_is_in_the_working_directory_comes_first(shipping, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "shakespeare")
    assert reading.resolve("shakespeare").parent.parent == tmp_path / "shakespeare"


def test_a_folder_that_hides_the_model_is_told_of(shipping, tmp_path):
    (tmp_path / "shakespeare").mkdir()
    with pytest.raises(UserError, match="it hides the model shakespeare that comes with charlstm"):
        charlstm.load("shakespeare")


def test_a_mistyped_name_is_answered_with_the_names(shipping):
    with pytest.raises(UserError) as caught:
        charlstm.load("shakespear")
    assert str(caught.value) == (
        "no such checkpoint or run folder: shakespear (did you mean shakespeare?); the models "
        "that come with charlstm: shakespeare"
    )
    with pytest.raises(UserError, match=r"^no such .* folder: runs/mine$"):
        charlstm.load("runs/mine")


def test_a_run_begins_with_its_weights_under_its_name(shipping, small_config, trained, tmp_path):
    fields = {"model.hidden_size": 16, "training.num_updates": 4}
    config = small_config.replace(fields)
    charlstm.train(config, tmp_path / "run", init_from="shakespeare", stop_after=1)
    saved = reading.read_metadata(tmp_path / "run" / "checkpoints" / "1")
    assert saved.clock["init_from"] == "shakespeare"
    charlstm.train(config, tmp_path / "run", init_from="shakespeare")


def test_the_model_that_comes_with_charlstm_is_small_and_speaks():
    path = shipped.FOLDER / "shakespeare.safetensors"
    if not path.exists():
        pytest.skip("this source tree has no shipped model")
    assert path.stat().st_size < 4 * 2**20
    assert path.with_suffix(".md").read_text().strip()
    metadata = exported.read_metadata(path)
    assert "/" not in metadata.config.data.corpus
    model = charlstm.load("shakespeare")
    text = model.generate("ROMEO", 200, seed=0)
    assert len(text) == 200 and len(re.findall(rb"[a-z]+ ", text)) > 20
    assert model.bits_per_byte("To be, or not to be, that is the question") < 3
