"""The number of parameters of a network, and the largest network that a number allows."""

import dataclasses
import math

from charlstm.config import Config, ModelConfig
from charlstm.errors import UserError
from charlstm.model.cell import cell_for

MULTIPLE = 8  # of this hidden sizes suit every device's vector units


def num_parameters(model: ModelConfig, alphabet_size: int) -> int:
    """Returns how many numbers the network learns, over an alphabet of V symbols."""
    hidden, gates = model.hidden_size, 4 * model.hidden_size
    embedding = alphabet_size * model.embedding_size
    inputs = (model.embedding_size or alphabet_size) + (model.num_layers - 1) * hidden
    each = hidden * gates + gates  # weight_hh and bias
    multiples = [multiple for multiple, _ in cell_for(model.layer_norm).vectors.values()]
    vectors = sum(multiples) * hidden
    head = hidden * alphabet_size + alphabet_size
    return embedding + inputs * gates + model.num_layers * (each + vectors) + head


def products_per_byte(model: ModelConfig, alphabet_size: int) -> int:
    """Returns the multiply-adds of one byte's forward pass, those of matrix products.

    A layer has two products [H]·[H, 4H]; the first layer has one, because its input is looked up.
    The head has one, [H]·[H, V]. Together: L·8H² - 4H² + H·V.
    """
    hidden = model.hidden_size
    return model.num_layers * 8 * hidden**2 - 4 * hidden**2 + hidden * alphabet_size


def hidden_size_within(config: Config, alphabet_size: int) -> int:
    """Returns the largest hidden size that `model.parameter_budget` allows; 0 if it allows none.

    A multiple of 8 and of `mesh.model`; where the budget allows no such size, of `mesh.model`.
    """
    budget = config.model.parameter_budget
    for multiple in (math.lcm(MULTIPLE, config.mesh.model), config.mesh.model):
        # The recurrent weights alone are 4H² in every layer.
        fits, fails = 0, math.isqrt(int(budget)) // multiple + 1
        while fails - fits > 1:
            middle = (fits + fails) // 2
            if _count(config.model, middle * multiple, alphabet_size) <= budget:
                fits = middle
            else:
                fails = middle
        if fits:
            return fits * multiple
    return 0


def within_budget(config: Config, alphabet_size: int) -> Config:
    """Returns the configuration with the hidden size that its budget means, if it has a budget.

    Raises:
      UserError: not even the smallest network is within the budget.
    """
    if not config.model.parameter_budget:
        return config
    hidden_size = hidden_size_within(config, alphabet_size)
    if hidden_size:
        return config.replace({"model.hidden_size": hidden_size})
    smallest = _count(config.model, config.mesh.model, alphabet_size)
    raise UserError(
        f"model.parameter_budget={config.model.parameter_budget:,.0f} is too small: with "
        f"model.hidden_size={config.mesh.model} the network has {smallest:,} parameters already; "
        "raise it, or lower model.num_layers or model.embedding_size"
    )


def _count(model: ModelConfig, hidden_size: int, alphabet_size: int) -> int:
    return num_parameters(dataclasses.replace(model, hidden_size=hidden_size), alphabet_size)
