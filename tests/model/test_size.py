"""The count of parameters, and the hidden size that a budget of them means."""

import itertools

import pytest

from charlstm.config import Config, ModelConfig
from charlstm.errors import UserError
from charlstm.model import parameters
from charlstm.model.size import num_parameters, within_budget

SHAPES = list(itertools.product([1, 3], [5, 16], [0, 7], [False, True]))


@pytest.mark.parametrize("num_layers, hidden_size, embedding_size, layer_norm", SHAPES)
def test_the_formula_counts_what_is_initialized(
    num_layers, hidden_size, embedding_size, layer_norm
):
    model = ModelConfig(
        num_layers=num_layers,
        hidden_size=hidden_size,
        embedding_size=embedding_size,
        layer_norm=layer_norm,
    )
    params = parameters.abstract_params(model, 41)
    assert num_parameters(model, 41) == parameters.num_parameters(params)


@pytest.mark.parametrize("budget", [2e3, 1e5, 44e6])
@pytest.mark.parametrize("devices", [1, 3])
def test_the_largest_network_within_the_budget_is_chosen(budget, devices):
    config = Config().replace(
        {
            "model.num_layers": 3,
            "model.embedding_size": 4,
            "model.parameter_budget": budget,
            "mesh.model": devices,
        }
    )
    model = within_budget(config, 50).model
    multiple = 8 * devices if model.hidden_size >= 8 * devices else devices
    assert model.hidden_size % multiple == 0
    larger = config.replace({"model.hidden_size": model.hidden_size + multiple}).model
    assert num_parameters(model, 50) <= budget < num_parameters(larger, 50)


def test_without_a_budget_nothing_changes_and_one_too_small_is_refused():
    assert within_budget(Config(), 256) == Config()
    small = Config().replace({"model.parameter_budget": 700})
    with pytest.raises(UserError, match=r"parameter_budget=700 is too small: .* has 1,\d+ param"):
        within_budget(small, 256)


def test_a_budget_is_read_from_a_command_line():
    config = Config().replace({"model.num_layers": 2, "model.parameter_budget": "44e6"})
    assert within_budget(config, 205).model.hidden_size == 1872
