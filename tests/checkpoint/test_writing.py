"""Checkpoints on the disk: which are kept, what is damaged, and what is seen while they change."""

import dataclasses
import random
import shutil
import threading

import numpy as np
import planted
import pytest
from run_folders import checkpoints

import charlstm
from charlstm.checkpoint import reading
from charlstm.checkpoint.metadata import METRIC, metadata_file
from charlstm.checkpoint.writing import Checkpoints


@pytest.fixture(scope="module")
def items():
    return {"params": planted.make_params()}


@pytest.fixture(scope="module")
def metadata(tmp_path_factory):
    run = planted.make_run(tmp_path_factory.mktemp("planted"))
    saved = reading.read_metadata(run / "checkpoints" / "7")
    return dataclasses.replace(saved, digests={})


@pytest.fixture
def save(items, metadata, tmp_path):
    """Saves checkpoints, each in a run that was started anew: step -> bits per byte or None."""

    def run(steps, keep_last=1, keep_every=0, folder=tmp_path):
        for step, bits in steps.items():
            saving = Checkpoints(folder, keep_last, keep_every)
            saving.newest()
            metrics = {} if bits is None else {METRIC: bits}
            saving.save(step, items, dataclasses.replace(metadata, metrics=metrics))
            saving.close()
        return folder

    return run


def test_the_best_checkpoint_is_kept_over_restarts(save):
    folder = save({10: 3.0, 20: 2.0, 30: None, 40: 2.5, 50: None})
    assert checkpoints(folder) == [20, 50]
    assert reading.resolve(folder).name == "20"


def test_the_last_and_the_permanent_checkpoints_are_kept_over_restarts(save):
    folder = save(dict.fromkeys((5, 10, 15, 20, 25, 30, 35)), keep_last=2, keep_every=10)
    assert checkpoints(folder) == [10, 20, 30, 35]


def test_of_two_that_are_equally_good_the_newer_is_the_best(save):
    folder = save({10: 2.0, 20: 2.0, 30: None})
    assert checkpoints(folder) == [20, 30]
    assert reading.resolve(folder).name == "20"


def test_a_validation_that_is_added_later_decides_what_is_kept(save, tmp_path):
    save({10: 2.0, 20: None}, keep_last=1)
    Checkpoints(tmp_path, 1, 0).add_metrics(20, {METRIC: 1.0}, {})
    assert reading.resolve(tmp_path).name == "20"
    assert reading.check(tmp_path / "checkpoints" / "20").clock["diagnosis"] == {}
    assert checkpoints(tmp_path) == [20]


def test_no_flipped_bit_goes_unnoticed(save):
    folder = save({10: None}) / "checkpoints" / "10"
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 8
    flips = random.Random(0)
    for path in files:
        content = path.read_bytes()
        for bit in [flips.randrange(8 * len(content)) for _ in range(4)] if content else []:
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            with pytest.raises(charlstm.UserError):
                reading.check(folder)
        path.write_bytes(content)
    reading.check(folder)


def break_file(step):
    """Changes a byte of the largest file of a checkpoint."""
    victim = max((p for p in step.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)


def empty(step):
    shutil.rmtree(step)
    step.mkdir()


def half_delete(step):
    shutil.rmtree(step / "params")


WAYS = {"a flipped bit": break_file, "an empty folder": empty, "half deleted": half_delete}


@pytest.mark.parametrize("damage", WAYS.values(), ids=WAYS)
def test_a_damaged_newest_checkpoint_is_kept_aside_and_the_run_goes_on_from_the_one_before(
    save, damage, caplog, tmp_path
):
    save({10: None, 20: None}, keep_last=2)
    damage(tmp_path / "checkpoints" / "20")
    assert Checkpoints(tmp_path, 2, 0).newest() == 10
    assert checkpoints(tmp_path) == [10]
    assert (tmp_path / "checkpoints" / "20.damaged").is_dir()
    (notice,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert str(tmp_path / "checkpoints" / "20") in notice and "20.damaged" in notice


def test_readers_pass_over_damaged_checkpoints_and_change_nothing(save, caplog, tmp_path):
    save({10: 3.0, 20: 2.0}, keep_last=2)
    break_file(tmp_path / "checkpoints" / "20")
    assert reading.resolve(tmp_path).name == "10"
    assert checkpoints(tmp_path) == [10, 20]
    assert str(tmp_path / "checkpoints" / "20") in caplog.text


def test_a_checkpoint_whose_score_cannot_be_read_may_be_the_best_and_is_named_and_kept(
    save, caplog, tmp_path
):
    save({10: 1.0, 20: 3.0}, keep_last=2)
    metadata_file(tmp_path / "checkpoints" / "10").write_text("{")
    assert reading.resolve(tmp_path).name == "20"
    assert str(tmp_path / "checkpoints" / "10") in caplog.text
    save({30: None, 40: None}, keep_last=1)
    assert checkpoints(tmp_path) == [10, 20, 40]


def test_where_no_checkpoint_is_whole_nothing_is_touched(save, tmp_path):
    save({10: None, 20: None}, keep_last=2)
    for step in (10, 20):
        break_file(tmp_path / "checkpoints" / str(step))
    with pytest.raises(charlstm.UserError, match=r"no checkpoint in .* is whole") as caught:
        Checkpoints(tmp_path, 2, 0).newest()
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(charlstm.UserError, match=r"no checkpoint in .* is whole") as caught:
        charlstm.load(tmp_path)
    assert "give another run" in str(caught.value)
    assert checkpoints(tmp_path) == [10, 20]


def test_what_a_killed_save_left_behind_is_removed_when_the_run_goes_on(save, tmp_path):
    save({10: None})
    for name in (".20.saving", ".20.saving.orbax-checkpoint-tmp", ".5.deleted"):
        (tmp_path / "checkpoints" / name / "params").mkdir(parents=True)
    assert reading.resolve(tmp_path).name == "10"
    assert Checkpoints(tmp_path, 1, 0).newest() == 10
    assert [entry.name for entry in (tmp_path / "checkpoints").iterdir()] == ["10"]


# Where one array cannot be read, Orbax has begun to read others, and each complains on its own.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_model_is_read_while_its_run_deletes_checkpoints(save, items, metadata, tmp_path):
    save({1: None})
    done = threading.Event()

    def train():
        saving = Checkpoints(tmp_path, 1, 0)
        for step in range(2, 30):
            saving.save(step, items, metadata)
        saving.close()
        done.set()

    thread = threading.Thread(target=train)
    thread.start()
    reads = 0
    while not done.is_set():
        model = charlstm.load(tmp_path)
        bias = model.params["layers"]["0"]["bias"]
        assert np.array_equal(bias, items["params"]["layers"]["0"]["bias"])
        reads += 1
    thread.join()
    assert reads > 3
