"""Averages of the parameters against their formulas, and through a run that is interrupted."""

import functools
import math
import os
import subprocess
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from processes import CHEAP
from run_folders import parameters

import charlstm
from charlstm.checkpoint.metadata import read_metadata
from charlstm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig
from charlstm.data.corpus import Alphabet
from charlstm.runtime import meshes
from charlstm.training import averaging
from charlstm.training.averaging import Validations
from charlstm.training.console import NullConsole
from charlstm.training.program import Program
from charlstm.training.run import Run
from charlstm.training.writers import Writers

TESTS = Path(__file__).parents[1]
WINDOWS = np.random.default_rng(0).integers(0, 9, (12, 6, 4)).astype(np.uint8)


@functools.cache
def trajectory(kind, decay=0.5, start=None):
    """Parameters and averages before the first update and after each, as float64 vectors."""
    config = Config(
        model=ModelConfig(num_layers=1, hidden_size=5, recurrence="scan", compute_dtype="float32"),
        data=DataConfig(num_streams=4),
        optimizer=OptimizerConfig(
            schedule="constant",
            warmup_updates=0,
            learning_rate=0.1,
            averaging=kind,
            ema_decay=decay,
        ),
        training=TrainingConfig(num_updates=100),
    )
    vector = lambda tree: np.concatenate(  # noqa: E731
        [np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(tree)]
    )
    mesh = meshes.make_mesh(4)
    with jax.set_mesh(mesh):
        program = Program(config, Alphabet.of("corpus", np.arange(9, dtype=np.uint8)), mesh)
        update, state = jax.jit(program.update()), program.initialize(1)
        by_stream = meshes.split_streams(mesh, axis=1, ndim=2)
        found = [(vector(state.params), vector(state.weights))]
        for number, window in enumerate(WINDOWS):
            if number == start:
                state = averaging.begin(state, number)
            state, _ = update(state, jax.device_put(window, by_stream))
            found.append((vector(state.params), vector(state.weights)))
    return found


@pytest.mark.parametrize("decay", [0.3, 0.99])
def test_ema_forgets_at_its_rate_and_faster_at_first(decay):
    (_, average), *after = trajectory("ema", decay)
    for t, (params, found) in enumerate(after):
        kept = min(decay, (1 + t) / (10 + t))
        average = kept * average + (1 - kept) * params
        np.testing.assert_allclose(found, average, rtol=1e-5, atol=1e-6)


def test_triggered_is_the_parameters_until_it_starts_and_then_their_mean():
    found = trajectory("triggered", start=4)
    for params, average in found[:5]:
        assert (params == average).all()
    for number in range(5, len(found)):
        mean = np.mean([params for params, _ in found[5 : number + 1]], axis=0)
        np.testing.assert_allclose(found[number][1], mean, rtol=1e-5, atol=1e-6)


def test_averaging_does_not_change_what_is_trained():
    plain = trajectory("none")
    for averaged in trajectory("ema", 0.3), trajectory("triggered", start=4):
        for (wanted, _), (found, _) in zip(plain, averaged, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_the_trigger_is_that_of_the_paper(patience):
    """`len(past) > n and loss > min(past[:-n])`, as Merity et al. have it in their code."""
    for seed in range(20):
        losses = np.random.default_rng(seed).normal(size=30) - 0.1 * np.arange(30)
        validations = Validations(patience)
        past = []
        for number, loss in enumerate(losses):
            wanted = len(past) > patience and loss > min(past[:-patience])
            assert validations.update(number + 1, loss) == wanted
            # What it remembers can be saved, and the same validation counts once.
            validations = Validations(patience, **validations.to_json())
            assert not validations.update(number + 1, loss)
            if wanted:
                break
            past.append(loss)
    assert not Validations(0).update(1, 1.0)


def test_a_validation_that_is_not_finite_never_starts_averaging(tmp_path):
    run = Run.__new__(Run)  # as far as a validation concerns it
    run.run_state = types.SimpleNamespace(validations=Validations(1))
    run.console, run.writers, run._figures = NullConsole(), Writers(tmp_path, []), {}
    run.first = 0
    for run.updates, bits in enumerate((3.0, 3.0, math.inf, math.nan), 1):
        run.set_validation({"valid_bits_per_byte": bits, "valid_accuracy": 0.5})
    assert run.validation == {"valid_accuracy": 0.5}
    assert run._figures["valid_bits_per_byte"] is None  # of the line of metrics
    validations = run.run_state.validations
    assert validations.bits == [3.0, 3.0] and not validations.started


def averaged_run(folder, text, stop_after=None, **fields):
    config = Config().replace(
        {
            "data.corpus": str(text),
            "data.num_streams": 8,
            "data.window_length": 4,
            "model.hidden_size": 16,
            "model.alphabet": "corpus",
            "model.parameter_budget": 5000,
            "model.embedding_size": 3,
            "model.dropout": 0.2,
            "model.input_dropout": 0.2,
            "model.weight_dropout": 0.2,
            "training.num_updates": 24,
            "training.evaluate_every": 2,
            "training.checkpoint_every": 5,
            "training.log_every": 6,
            "training.sample_every": 24,
            "optimizer.warmup_updates": 0,
            "optimizer.schedule": "constant",
            "optimizer.learning_rate": 0.3,
            "optimizer.averaging": "triggered",
            "optimizer.averaging_patience": 1,
            **fields,
        }
    )
    charlstm.train(config, folder, stop_after=stop_after)


def test_a_run_that_goes_on_averages_as_if_it_had_never_stopped(tmp_path):
    """Stopped before the trigger, and after it; its hidden size chosen by a budget."""
    text = tmp_path / "text.txt"
    text.write_bytes(bytes(np.random.default_rng(0).integers(97, 123, 9_000, np.uint8)))
    averaged_run(tmp_path / "whole", text)
    saved = read_metadata(tmp_path / "whole" / "checkpoints" / "24")
    validations = saved.clock["validations"]
    started = validations["last_step"]
    assert validations["started"] and 4 <= started <= 20
    assert saved.config.model.hidden_size == 16  # of 5,000 parameters
    for stop in (started - 1, started + 1):
        folder = tmp_path / f"stopped{stop}"
        averaged_run(folder, text, stop_after=stop)
        averaged_run(folder, text)
        assert (parameters(folder, 24) == parameters(tmp_path / "whole", 24)).all()
        again = read_metadata(folder / "checkpoints" / "24")
        assert again.clock["validations"] == validations
        assert again.metrics == saved.metrics


OPTIONS = {
    "model.connections": "residual",
    "model.output_dropout": 0.2,
    "model.dropout_kind": "locked",
    "training.num_updates": 8,
    "training.sample_every": 0,
    "training.evaluate_every": 1,
    "optimizer.learning_rate": 0.01,
}
SCRIPT = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", 4)
from pathlib import Path
import numpy as np
from run_folders import parameters
from training.test_averaging import OPTIONS, averaged_run
folder, text = Path(sys.argv[1]), sys.argv[2]
meshes = {
    "optimizer": {"mesh.shard": "optimizer", "model.embedding_size": 3},
    "split": {"mesh.model": 2, "mesh.shard": "parameters", "model.embedding_size": 0},
}
for name, mesh in meshes.items():
    averaged_run(folder / name, text, **OPTIONS, **mesh)
    found = parameters(folder / name, 8)
    wanted = parameters(folder / f"one{mesh['model.embedding_size']}", 8)
    assert np.linalg.norm(found - wanted) < 1e-4 * np.linalg.norm(wanted), name
    print("agrees", name)
"""


def test_nothing_depends_on_the_devices(tmp_path):
    """Masks, connections, the embedding and the average, however the state is shared out."""
    text = tmp_path / "text.txt"
    text.write_bytes(bytes(np.random.default_rng(0).integers(97, 123, 9_000, np.uint8)))
    assert jax.device_count() == 1
    for size in 0, 3:
        averaged_run(tmp_path / f"one{size}", text, **OPTIONS | {"model.embedding_size": size})
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), str(text)],
        env=os.environ | CHEAP | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines() == ["agrees optimizer", "agrees split"], done.stderr
