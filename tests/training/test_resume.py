"""What a run that goes on may change, and that nothing else changes."""

import json
import shutil

import numpy as np
import pytest
from absl import logging
from run_folders import metrics, parameters

import charlstm
from charlstm.checkpoint.metadata import read_metadata
from charlstm.errors import UserError
from charlstm.report.page import render
from charlstm.report.runs import readers
from charlstm.training.resume import CHANGEABLE_FIELDS, FREE_FIELDS

RATE = 0.1
FIELDS = {
    "model.num_layers": 2,
    "model.hidden_size": 8,
    "model.alphabet": "corpus",
    "data.num_streams": 4,
    "data.window_length": 8,
    "optimizer.name": "sgd",
    "optimizer.learning_rate": RATE,
    "optimizer.momentum": 0.0,
    "optimizer.clip_norm": 0.0,
    "optimizer.schedule": "constant",
    "optimizer.warmup_updates": 0,
    "optimizer.averaging": "none",
    "training.num_updates": 8,
    "training.log_every": 1,
    "training.evaluate_every": 0,
    "training.sample_every": 0,
    "training.checkpoint_every": 0,
    "training.checkpoint_seconds": 0.0,
}


@pytest.fixture(autouse=True, scope="module")
def own_cache(environment):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", environment["XDG_CACHE_HOME"])
        yield


@pytest.fixture(scope="module")
def config(text_file):
    return charlstm.Config().replace(FIELDS | {"data.corpus": str(text_file)})


@pytest.fixture(scope="module")
def begun(config, tmp_path_factory):
    """A run that was stopped after 4 updates. Not to be changed."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    charlstm.train(config, folder, stop_after=4)
    return folder


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The same run to its end."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    charlstm.train(config, folder)
    return folder


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "info", lambda text, *values: lines.append(text % values))
    return lines


def go_on(begun, folder, config, fields, **how):
    if not folder.exists():
        shutil.copytree(begun, folder)
    charlstm.train(config.replace(fields), folder, **how)
    return folder


def moved(folder, begun):
    """How far the parameters have gone with update 5."""
    return parameters(folder, 5).astype(np.float64) - parameters(begun, 4)


@pytest.fixture(scope="module")
def unchanged(begun, config, tmp_path_factory):
    """Update 5 with the learning rate as it was."""
    folder = go_on(begun, tmp_path_factory.mktemp("unchanged") / "run", config, {}, stop_after=5)
    return moved(folder, begun)


@pytest.mark.parametrize(
    ("fields", "factor"),
    [
        ({"optimizer.learning_rate": 3 * RATE}, 3),
        ({"optimizer.schedule": "step", "optimizer.step_updates": 2}, 0.97**2),
    ],
    ids=["rate", "schedule"],
)
def test_an_update_of_sgd_is_as_long_as_the_new_rate_makes_it(
    fields, factor, begun, config, unchanged, tmp_path
):
    folder = go_on(begun, tmp_path / "run", config, fields, stop_after=5)
    np.testing.assert_allclose(moved(folder, begun), factor * unchanged, rtol=1e-3, atol=1e-6)
    assert metrics(folder)[-1]["learning_rate"] == pytest.approx(factor * RATE)


def test_clipping_may_begin_and_end(begun, config, unchanged, tmp_path):
    """It has a place of its own in the optimizer's state."""
    norm = float(np.linalg.norm(unchanged)) / RATE
    clipped = {"optimizer.clip_norm": norm / 4}
    folder = go_on(begun, tmp_path / "run", config, clipped, stop_after=5)
    np.testing.assert_allclose(moved(folder, begun), unchanged / 4, rtol=1e-3, atol=1e-6)
    go_on(begun, folder, config, {}, stop_after=6)
    last = parameters(folder, 6).astype(np.float64) - parameters(folder, 5)
    assert np.linalg.norm(last) > 2 * np.linalg.norm(unchanged / 4)


def test_another_seed_drops_other_values(begun, config, tmp_path):
    found = []
    for seed in 0, 1:
        fields = {"model.dropout": 0.5, "training.seed": seed}
        folder = go_on(begun, tmp_path / f"run{seed}", config, fields, stop_after=5)
        found.append(moved(folder, begun))
    assert (found[0] != found[1]).any()


# Another value for every field that may change, of a run with Adam and an average.
ADAPTIVE = {"optimizer.name": "adamw", "optimizer.averaging": "ema"}
CHANGED = {
    "training.num_updates": 9,
    "training.seed": 5,
    "training.activation_regularization": 0.1,
    "training.temporal_activation_regularization": 0.2,
    "optimizer.learning_rate": 0.002,
    "optimizer.b1": 0.8,
    "optimizer.b2": 0.9,
    "optimizer.momentum": 0.5,
    "optimizer.epsilon": 1e-6,
    "optimizer.weight_decay": 0.01,
    "optimizer.clip_norm": 0.5,
    "optimizer.ema_decay": 0.5,
    "optimizer.averaging_patience": 2,
    "optimizer.schedule": "cosine",
    "optimizer.warmup_updates": 2,
    "optimizer.final_fraction": 0.1,
    "optimizer.step_start": 1,
    "optimizer.step_updates": 2,
    "optimizer.step_factor": 0.5,
    "model.dropout": 0.1,
    "model.input_dropout": 0.1,
    "model.output_dropout": 0.1,
    "model.weight_dropout": 0.1,
    "model.dropout_kind": "locked",
    "model.compute_dtype": "bfloat16",
}


def test_every_change_is_said_once_recorded_and_reported(config, said, tmp_path):
    assert set(CHANGED) == CHANGEABLE_FIELDS
    adaptive, folder = config.replace(ADAPTIVE), tmp_path / "run"
    charlstm.train(adaptive, folder, stop_after=4)
    before = adaptive.flat()
    lines = {f"{field} was {before[field]} and is now {value}" for field, value in CHANGED.items()}
    assert not lines & set(said)
    charlstm.train(adaptive.replace(CHANGED), folder, stop_after=6)
    assert lines <= set(said)
    said.clear()
    # Another restart, with one change more.
    last = CHANGED | {"optimizer.learning_rate": 0.004}
    charlstm.train(adaptive.replace(last), folder)
    assert [line for line in said if "is now" in line] == [
        "optimizer.learning_rate was 0.002 and is now 0.004"
    ]
    saved = read_metadata(folder / "checkpoints" / "9")
    assert saved.config == adaptive.replace(last)
    wanted = [
        {"updates": 4, "field": field, "from": before[field], "to": CHANGED[field]}
        for field in before
        if field in CHANGED
    ]
    wanted.append({"updates": 6, "field": "optimizer.learning_rate", "from": 0.002, "to": 0.004})
    assert saved.clock["changes"] == wanted
    assert json.loads((folder / "about.json").read_text())["changes"] == wanted
    (reader,) = readers([str(folder)])
    page = render([reader.read()], folder / "report.html")
    row = '<td class="number">6</td><td class="mono">optimizer.learning_rate</td>'
    assert "Changes of the configuration" in page and row in page
    assert row.replace("6", "4", 1) in page


def test_a_run_that_nothing_is_changed_of_says_and_shows_no_change(begun, config, said, tmp_path):
    folder = go_on(begun, tmp_path / "run", config, {"training.log_every": 2}, stop_after=6)
    assert not [line for line in said if "is now" in line]
    (reader,) = readers([str(folder)])
    assert "Changes of the" not in render([reader.read()], folder / "report.html")


def test_a_finished_run_is_not_said_to_have_changed(whole, config, said, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "run")
    before = (folder / "config.json").read_bytes()
    charlstm.train(config.replace({"optimizer.learning_rate": 0.5}), folder)
    assert not [line for line in said if "is now" in line]
    assert (folder / "config.json").read_bytes() == before


REFUSED = {
    "model.num_layers": 1,
    "model.hidden_size": 9,
    "model.embedding_size": 3,
    "model.layer_norm": True,
    "model.connections": "residual",
    "model.alphabet": "bytes",
    "model.forget_bias": 2.0,
    "model.parameter_budget": 900.0,
    "data.num_streams": 2,
    "data.window_length": 4,
    "data.carry_state": False,
    "data.valid_size": 0.1,
    "data.test_size": 0.1,
    "optimizer.name": "adam",
    "optimizer.averaging": "ema",
}


def test_every_field_either_may_change_or_is_known_to_be_refused():
    assert set(charlstm.Config().flat()) == FREE_FIELDS | CHANGEABLE_FIELDS | set(REFUSED)
    assert not FREE_FIELDS & CHANGEABLE_FIELDS


@pytest.mark.parametrize("field", REFUSED)
def test_what_changes_the_state_or_the_places_in_the_text_is_refused(field, begun, config):
    before = {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=f"{field} was .* and is now") as caught:
        charlstm.train(config.replace({field: REFUSED[field]}), begun)
    assert "\n" not in str(caught.value)
    assert f"--init_from={begun} begins a new run" in str(caught.value)
    after = {path: path.read_bytes() for path in begun.rglob("*") if path.is_file()}
    assert after == before


def test_damaged_metrics_are_kept_aside_and_the_run_ends_as_if_undisturbed(
    begun, whole, config, tmp_path
):
    folder = shutil.copytree(begun, tmp_path / "run")
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    damage = [b"\xff\xfe\x80\n", b"42\n", b'{"a": 1}\n', b'{"step": "x"}\n', b"\0\0\0\n"]
    path.write_bytes(b"".join([lines[0], *damage, *lines[1:]]))
    charlstm.train(config, folder)
    names = ("step", "train_bits_per_byte", "valid_bits_per_byte", "gradient_norm")
    found, wanted = ([[line.get(n) for n in names] for line in metrics(f)] for f in (folder, whole))
    assert found == wanted and len(wanted) == 8
    assert (folder / "metrics.jsonl.damaged").read_bytes() == b"".join(damage)
    assert (parameters(folder, 8) == parameters(whole, 8)).all()


def test_a_folder_in_place_of_the_metrics_is_refused_before_anything_is_compiled(
    begun, config, tmp_path, monkeypatch
):
    folder = shutil.copytree(begun, tmp_path / "run")
    (folder / "metrics.jsonl").unlink()
    (folder / "metrics.jsonl").mkdir()
    monkeypatch.setattr("charlstm.training.program.compile_dispatch", None)
    with pytest.raises(UserError, match=r"metrics\.jsonl cannot be opened as a file"):
        charlstm.train(config, folder)
