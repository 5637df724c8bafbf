"""mpirun, as launch/README.md has it."""

import signal

import pytest
from launched_runs import final_parameters, last_logged_step, logged_processes, said, wait_until
from run_folders import checkpoints

MPIRUN = ["mpirun", "-n", "2", "--oversubscribe"]
# Containers run tests as root, which Open MPI wants to hear twice.
AS_ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


@pytest.fixture
def mpirun(user, train_flags, tmp_path):
    """Starts the small run on two ranks; ends it if the test fails."""
    command = [*MPIRUN, "charlstm", "train"]
    with logged_processes(tmp_path) as start:
        yield lambda: start([*command, *train_flags(tmp_path / "run")], user | AS_ROOT)


def test_sigusr1_saves_and_the_next_mpirun_goes_on_exactly(mpirun, uninterrupted, tmp_path):
    run = tmp_path / "run"
    first = mpirun()
    wait_until(lambda: last_logged_step(run) > 0, "an update", alive=lambda: first.poll() is None)
    first.send_signal(signal.SIGUSR1)
    assert first.wait(60) == 75, said(first)
    assert "devices: 2 × cpu in 2 processes" in said(first)
    step = checkpoints(run)[-1]
    assert f"saved at update {step};" in said(first)
    again = mpirun()
    assert again.wait(300) == 0, said(again)
    assert f"going on from update {step} of" in said(again)
    assert (final_parameters(run) == final_parameters(uninterrupted)).all()
