"""Configurations: what is wrong is refused with a line that helps."""

import json

import pytest

from charlstm.config import Config, ModelConfig, field_types, load_config, named_configs
from charlstm.config.combinations import NEEDED_BY_RECURRENCE
from charlstm.errors import UserError


def test_json_and_back_is_the_same_configuration():
    config = Config().replace({"model.hidden_size": 7, "optimizer.learning_rate": 0.25})
    assert Config.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    ("address", "text", "value"),
    [
        ("model.hidden_size", "512", 512),
        ("training.num_updates", "30_000", 30_000),
        ("training.num_updates", "1e5", 100_000),
        ("optimizer.learning_rate", "1e-3", 1e-3),
        ("data.valid_size", "5000", 5000.0),
        ("model.alphabet", "corpus", "corpus"),
        ("data.corpus", "42", "42"),
    ],
)
def test_text_is_read_as_the_type_of_the_field(address, text, value):
    found = Config().replace({address: text}).flat()[address]
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("address", "text", "says"),
    [
        ("model.hiden_size", "5", "did you mean model.hidden_size"),
        ("hidden_size", "5", "did you mean model.hidden_size"),
        ("model.zzz", "5", "model has model.num_layers, model.hidden_size"),
        ("zzz.zzz", "5", "the sections are model, data"),
        ("model.hidden_size", "large", "model.hidden_size=large must be a whole number"),
        ("model.hidden_size", "1.5", "must be a whole number"),
        ("model.hidden_size", "0", "must be 1 or more"),
        ("optimizer.learning_rate", "fast", "must be a number"),
        ("optimizer.learning_rate", "nan", "must be finite"),
        ("optimizer.name", "adamm", r"did you mean adam or adamw\?"),
        ("model.dropout", "1", "below 1"),
        ("data.valid_size", "1.5", "whole number of bytes"),
        ("training.seed", "-1", "from 0 to"),
    ],
)
def test_bad_fields_are_refused_with_a_line_that_helps(address, text, says):
    with pytest.raises(UserError, match=says) as caught:
        Config().replace({address: text})
    assert "\n" not in str(caught.value)


def test_python_values_of_the_wrong_type_are_refused():
    with pytest.raises(UserError, match=r"model.hidden_size=1.5 must be of type int"):
        ModelConfig(hidden_size=1.5)
    with pytest.raises(UserError, match=r"model.num_layers=True must be of type int"):
        ModelConfig(num_layers=True)


def test_dropout_needs_two_layers():
    with pytest.raises(UserError, match="between layers"):
        Config().replace({"model.num_layers": 1, "model.dropout": 0.1})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"model.num_layers": 1, "model.connections": "skip"}, "set model.connections=plain"),
        ({"model.num_layers": 1, "model.recurrence": "cudnn"}, "set model.recurrence=scan"),
        ({"model.layer_norm": True, "mesh.model": 2}, "false, or mesh.model=1"),
        ({"model.residuals": "state", "mesh.model": 2}, "gates, or mesh.model=1"),
        ({"model.recurrence": "scan", "mesh.model": 2}, "leave model.recurrence at auto"),
        ({"mesh.model": 3}, "must divide model.hidden_size=256"),
        ({"model.weight_dropout": 1.0}, "below 1"),
        ({"model.embedding_size": -1}, "one-hot"),
        ({"model.parameter_budget": -1.0}, "0 .none. or more"),
        ({"optimizer.ema_decay": 1.0}, "below 1"),
        ({"optimizer.averaging_patience": 0}, "1 or more"),
        (
            {"optimizer.averaging": "triggered", "training.evaluate_every": 0},
            "set it to a number of updates",
        ),
        (
            {"training.temporal_activation_regularization": 1.0, "data.window_length": 1},
            "choose longer windows",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(values, says):
    with pytest.raises(UserError, match=says):
        Config().replace(values)


NOT_NEEDED = {
    "layer_norm": True,
    "residuals": "state",
    "connections": "skip",
    "dropout": 0.5,
    "compute_dtype": "bfloat16",
}


@pytest.mark.parametrize(
    ("recurrence", "field"),
    [(name, field) for name, needs in NEEDED_BY_RECURRENCE.items() for field in needs],
)
def test_what_a_time_loop_needs_is_said_in_one_line_with_the_cure(recurrence, field):
    needed = {f"model.{n}": v for n, v in NEEDED_BY_RECURRENCE[recurrence].items()}
    possible = {"model.recurrence": recurrence} | needed
    assert Config().replace(possible).model.recurrence == recurrence
    with pytest.raises(UserError, match=f"set model.{field}=.*, or ") as caught:
        Config().replace(possible | {f"model.{field}": NOT_NEEDED[field]})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("recurrence", ["auto", "scan"])
def test_the_scan_takes_every_cell_connection_and_way_to_keep_a_window(recurrence):
    values = {f"model.{name}": value for name, value in NOT_NEEDED.items()}
    assert Config().replace(values | {"model.recurrence": recurrence}).model.layer_norm


def test_a_warmup_longer_than_the_run_is_refused():
    with pytest.raises(UserError, match="warmup_updates"):
        Config().replace({"training.num_updates": 50, "optimizer.warmup_updates": 50})


@pytest.mark.parametrize("name", named_configs())
def test_named_configurations_load_and_tell_their_command(name):
    import importlib

    assert isinstance(load_config(name), Config)
    docstring = importlib.import_module(f"charlstm.configs.{name}").__doc__
    assert f"charlstm train --config={name}" in docstring


def test_a_file_of_the_users_own(tmp_path):
    python = tmp_path / "mine.py"
    python.write_text(
        "from charlstm.config import Config, ModelConfig\n"
        "def get_config():\n    return Config(model=ModelConfig(hidden_size=99))\n"
    )
    assert load_config(str(python)).model.hidden_size == 99
    as_json = tmp_path / "mine.json"
    as_json.write_text('{"model": {"hidden_size": 98}}')
    assert load_config(str(as_json)).model.hidden_size == 98


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.py", "x = 1", "must define get_config"),
        ("a.py", "def get_config(): return 3", "must return"),
        ("a.py", "import nothing_of_the_kind", "ModuleNotFoundError"),
        ("a.json", "{", "is not JSON"),
        ("a.json", "[]", "JSON object"),
        ("a.json", '{"model": {"layers": 3}}', "did you mean"),
    ],
)
def test_bad_files_are_refused(tmp_path, name, content, says):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=says):
        load_config(str(tmp_path / name))


def test_missing_files_and_names_are_refused(tmp_path):
    with pytest.raises(UserError, match="did you mean quickstart"):
        load_config("quikstart")
    with pytest.raises(UserError, match="does not exist"):
        load_config(str(tmp_path / "a.py"))


def test_every_field_has_an_address():
    assert list(field_types()) == list(Config().flat())
