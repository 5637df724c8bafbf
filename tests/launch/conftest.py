"""The environment of launched runs, and the run that all of them must equal."""

import pytest
from launched_runs import SMALL, launched_environment
from processes import Group


@pytest.fixture(scope="session")
def user(environment):
    """The environment of a user's shell."""
    return launched_environment(environment)


@pytest.fixture(scope="session")
def train_flags(text_file):
    """Flags of `charlstm train` for the small run, for a run folder."""
    return lambda folder: [f"--corpus={text_file}", f"--workdir={folder}", *SMALL]


@pytest.fixture(scope="session")
def uninterrupted(user, train_flags, tmp_path_factory):
    """The run folder of two processes that were told their places and left alone."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    group = Group(2, train_flags(folder / "run"), user, folder)
    assert group.wait() == [0, 0], group.text()
    return folder / "run"
