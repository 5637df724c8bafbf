"""What several tests share: a text, and the command line as a real process."""

import os
import subprocess
import sys

import numpy as np
import pytest

# A configuration that trains in a second.
TINY = (
    "--config.model.num_layers=2",
    "--config.model.hidden_size=16",
    "--config.model.dropout=0.2",
    "--config.data.num_streams=4",
    "--config.data.window_length=8",
    "--config.training.num_updates=40",
    "--config.training.log_every=5",
    "--config.training.evaluate_every=20",
    "--config.training.sample_every=0",
    "--config.training.checkpoint_every=10",
    "--config.optimizer.warmup_updates=5",
)


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """The environment of the processes: a cache folder of its own."""
    cache = tmp_path_factory.mktemp("cache")
    return os.environ | {"XDG_CACHE_HOME": str(cache), "JAX_PLATFORMS": "cpu"}


@pytest.fixture(scope="session")
def charlstm(environment):
    """Runs `python -m charlstm …`, perhaps behind a prefix; returns the finished process."""

    def run(*arguments, prefix=(), **options):
        command = [*prefix, sys.executable, "-m", "charlstm", *map(str, arguments)]
        options = {"env": environment, "timeout": 300, "text": True} | options
        return subprocess.run(command, capture_output=True, check=False, **options)

    return run


@pytest.fixture(scope="session")
def text_file(tmp_path_factory):
    """12 kB of words with some order in them, 27 distinct bytes and a line break."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 5)) for _ in range(40)]
    lines = [" ".join(rng.choice(words, 8)) for _ in range(250)]
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="session")
def trained(charlstm, text_file, tmp_path_factory):
    """A run folder with a finished tiny run over the text's own alphabet. Not to be changed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    done = charlstm(
        "train",
        f"--corpus={text_file}",
        f"--workdir={folder}",
        "--config.model.alphabet=corpus",
        *TINY,
        "--config.training.sample_every=20",
    )
    assert done.returncode == 0, done.stderr
    return folder
