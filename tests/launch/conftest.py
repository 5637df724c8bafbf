"""The environment of launched runs, and the run that all of them must equal."""

import socket
import subprocess

import pytest
from launched_runs import NUM_UPDATES, SMALL, launched_environment, saved_steps


@pytest.fixture(scope="session")
def user(environment, tmp_path_factory):
    """The environment of a user's shell."""
    return launched_environment(environment, tmp_path_factory.mktemp("programs"))


@pytest.fixture(scope="session")
def train_flags(text_file):
    """Flags of `charlstm train` for the small run, for a run folder."""
    return lambda folder: [f"--corpus={text_file}", f"--workdir={folder}", *SMALL]


@pytest.fixture(scope="session")
def free_port():
    """Finds a port that nobody listens on."""

    def find():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]

    return find


@pytest.fixture(scope="session")
def uninterrupted(user, train_flags, free_port, tmp_path_factory):
    """The run folder of two processes that were told their places and left alone."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    places = {"NUM_PROCESSES": "2", "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}"}
    command = ["charlstm", "train", *train_flags(folder)]
    processes = [
        subprocess.Popen(
            command,
            env=user | places | {"PROCESS_ID": str(process)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert saved_steps(folder)[-1] == NUM_UPDATES
    return folder
