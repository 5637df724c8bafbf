"""Configurations: what is wrong is refused with a line that helps."""

import json
import sys

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
        ("optimizer.learning_rate", "-inf", "must be finite"),
        ("optimizer.learning_rate", "1e999", "must be finite"),
        ("training.num_updates", "nan", "must be a whole number"),
        ("training.num_updates", "1e999", "must be a whole number"),
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


@pytest.mark.parametrize("value", [10**400, float("inf"), float("nan")], ids=["int", "inf", "nan"])
def test_every_number_of_a_configuration_is_finite(value):
    numbers = [address for address, kind in field_types().items() if kind is float]
    assert len(numbers) > 10
    for address in numbers:
        with pytest.raises(UserError, match=f"{address}=(inf|nan) must be finite"):
            Config().replace({address: value})


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
        ("a.py", "\nimport nothing_of_the_kind", "line 2 of a.py: ModuleNotFoundError: No module"),
        ("a.py", "x = 1\ny = = 2", "line 2 of a.py: SyntaxError"),
        (
            "a.py",
            "def get_config():\n    raise ValueError('a\\nb')",
            "line 2 of a.py: ValueError: a b$",
        ),
        ("a.py", "import sys\nsys.exit('a reason')", "line 2 of a.py: SystemExit: a reason"),
        ("a.py", "raise SystemExit", "line 1 of a.py: SystemExit"),
        (
            "a.py",
            "import charlstm\ncharlstm.Config().replace({'model.hidden_size': 0})",
            "line 2 of a.py: model.hidden_size=0 must be 1 or more",
        ),
        ("a.json", "{", "is not JSON"),
        ("a.json", "[" * 100_000, "is not JSON"),
        ("a.json", "[]", "JSON object"),
        ("a.json", '{"model": {"layers": 3}}', "did you mean"),
    ],
)
def test_bad_files_are_refused(tmp_path, name, content, says):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=says) as caught:
        load_config(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_configuration_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "a.json").symlink_to("/proc/self/mem")
    with pytest.raises(UserError, match="cannot read configuration file"):
        load_config(str(tmp_path / "a.json"))


ASKS_A_MODULE = """
import my_sizes
from charlstm import Config

def get_config():
    import my_rates
    return Config().replace({"model.hidden_size": my_sizes.SIZE, "model.dropout": my_rates.RATE})
"""


def test_a_configuration_may_import_modules_beside_it(tmp_path):
    """Its own ones: another folder's may have the same names."""
    before = list(sys.path)
    for size in 8, 24:
        folder = tmp_path / str(size)
        folder.mkdir()
        (folder / "mine.py").write_text(ASKS_A_MODULE)
        (folder / "my_sizes.py").write_text(f"SIZE = {size}")
        (folder / "my_rates.py").write_text("RATE = 0.5")
        model = load_config(str(folder / "mine.py")).model
        assert (model.hidden_size, model.dropout) == (size, 0.5)
    assert sys.path == before and not {"my_sizes", "my_rates"} & set(sys.modules)


def test_an_error_in_a_module_beside_a_configuration_is_found_there(tmp_path):
    (tmp_path / "mine.py").write_text("import my_sizes")
    (tmp_path / "my_sizes.py").write_text("\n\nSIZE = 1 / 0")
    before = list(sys.path)
    with pytest.raises(UserError, match=r"line 3 of my_sizes\.py: ZeroDivisionError"):
        load_config(str(tmp_path / "mine.py"))
    assert sys.path == before


def test_a_configuration_may_be_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.json").write_text('{"model": {"hidden_size": 98}}')
    assert load_config("~/mine.json").model.hidden_size == 98


def test_missing_files_and_names_are_refused(tmp_path):
    with pytest.raises(UserError, match="did you mean quickstart"):
        load_config("quikstart")
    with pytest.raises(UserError, match="does not exist"):
        load_config(str(tmp_path / "a.py"))


def test_every_field_has_an_address():
    assert list(field_types()) == list(Config().flat())
