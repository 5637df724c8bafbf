"""Several devices and several processes compute what one does."""

import os
import subprocess
import sys

import numpy as np
import pytest
from processes import SMALL, Group
from run_folders import curve

from charlstm.errors import UserError
from charlstm.runtime import distributed
from charlstm.runtime.meshes import cpu_devices_for


@pytest.fixture(scope="module")
def train(environment, text_file, tmp_path_factory):
    """Trains with so many processes and devices; returns the run folder."""

    def run(processes, devices, *arguments, folder=None):
        folder = folder or tmp_path_factory.mktemp("run")
        flags = [f"--corpus={text_file}", f"--workdir={folder}", *SMALL, *arguments]
        flags.append(f"--num_cpu_devices={devices // processes}")
        group = Group(processes, flags, environment, tmp_path_factory.mktemp("output"))
        assert group.wait() == [0] * processes, group.text()
        return folder

    return run


@pytest.fixture(scope="module")
def alone(train):
    """The run of one process on one device."""
    return train(1, 1)


def assert_same_curve(folder, alone):
    found, wanted = curve(folder), curve(alone)
    assert len(found) == 50
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


# Devices of one process, and processes of one device; several of several are split below.
@pytest.mark.parametrize(("processes", "devices"), [(1, 8), (2, 2)])
def test_loss_curve_does_not_depend_on_processes_and_devices(train, alone, processes, devices):
    assert_same_curve(train(processes, devices), alone)


@pytest.mark.parametrize(
    ("processes", "devices", "fields"),
    [
        (1, 8, {"model": 2, "data": 4}),
        (1, 4, {"shard": "optimizer"}),
        (2, 2, {"shard": "parameters", "model": 2}),
    ],
    ids=str,
)
def test_loss_curve_does_not_depend_on_what_is_split(train, alone, processes, devices, fields):
    mesh = [f"--config.mesh.{name}={value}" for name, value in fields.items()]
    assert_same_curve(train(processes, devices, *mesh), alone)


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"NUM_PROCESSES": "two"}, "NUM_PROCESSES"),
        ({"NUM_PROCESSES": "2"}, "PROCESS_ID"),
        ({"NUM_PROCESSES": "2", "PROCESS_ID": "2"}, "below NUM_PROCESSES=2"),
        ({"NUM_PROCESSES": "2", "PROCESS_ID": "0"}, "JAX_COORDINATOR_ADDRESS=HOST:PORT"),
        ({"NUM_PROCESSES": "²"}, "NUM_PROCESSES"),
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES"),
        ({"JAX_NUM_PROCESSES": "2"}, "JAX_PROCESS_ID"),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"}, "below JAX_NUM_PROCESSES=2"),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, "JAX_COORDINATOR_ADDRESS=HOST:PORT"),
        ({"OMPI_COMM_WORLD_SIZE": "two"}, "OMPI_COMM_WORLD_SIZE"),
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(environment, says):
    with pytest.raises(UserError, match=says):
        distributed.initialize(environment=environment)


# A coordinator and a place, and no word of how many there are.
UNCOUNTED = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_PROCESS_ID": "1"}


@pytest.mark.parametrize(
    "environment",
    [
        UNCOUNTED,
        {"JAX_PROCESS_ID": "0"},
        {"COORDINATOR_ADDRESS": "a", "COORDINATOR_PORT": "1"},
        {"PROCESS_ID": "0"},
        {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "a"},
        {"PMI_SIZE": "2", "PMI_RANK": "0"},
        {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_RANK": "0"},
        {"TPU_WORKER_HOSTNAMES": "a,b", "JAX_PLATFORMS": "cpu"},
    ],
    ids=lambda environment: next(iter(environment)),
)
def test_a_process_that_is_one_of_several_never_trains_alone_without_a_word(environment):
    with pytest.raises(UserError, match="one of several") as caught:
        distributed.initialize(environment=environment)
    name = next(iter(environment))
    assert f"{name}={environment[name]}" in str(caught.value)
    for variable in ("NUM_PROCESSES,", "PROCESS_ID and", "JAX_COORDINATOR_ADDRESS=HOST:PORT"):
        assert variable in str(caught.value)
    distributed.initialize(environment=environment | {"NUM_PROCESSES": "1"})
    assert not distributed.jax.distributed.is_initialized()


def test_one_of_several_that_is_not_understood_leaves_no_run_folder(
    charlstm, environment, tmp_path
):
    flags = f"--workdir={tmp_path / 'run'}", *SMALL
    done = charlstm("train", *flags, env=environment | UNCOUNTED)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "JAX_COORDINATOR_ADDRESS=a:1" in done.stderr and not (tmp_path / "run").exists()


def test_a_process_that_nobody_spoke_of_is_alone():
    for environment in (
        {},
        {"NUM_PROCESSES": "1"},
        {"NUM_PROCESSES": "1"} | UNCOUNTED | {"JAX_NUM_PROCESSES": "2"},
        {"OMPI_COMM_WORLD_SIZE": "1"},
        {"WORLD_SIZE": "1", "RANK": "0", "MASTER_ADDR": "a"},
        UNCOUNTED | {"JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "0"},
        {"JAX_COORDINATOR_PORT": "1234"},  # of the coordinator that JAX finds with SLURM
    ):
        distributed.initialize(environment=environment)
    assert not distributed.jax.distributed.is_initialized()


def test_a_coordinator_is_no_riddle_where_the_launcher_counts_its_processes():
    names = ("JOB_ID", "STEP_NODELIST", "NTASKS", "PROCID", "LOCALID")
    slurm = {f"SLURM_{name}": "1" for name in names}
    for launcher in slurm, {"OMPI_COMM_WORLD_SIZE": "1"}:
        several = launcher | {"JAX_COORDINATOR_ADDRESS": "a:1", "WORLD_SIZE": "2"}
        distributed.initialize(environment=several)
    assert not distributed.jax.distributed.is_initialized()


def test_another_number_of_processes_than_asked_for_is_refused():
    """As where a framework has initialised JAX before, each process on its own."""
    code = """
import jax
jax.distributed.initialize("127.0.0.1:PORT", 1, 0, cluster_detection_method="deactivate")
from charlstm import errors
from charlstm.runtime import distributed
try:
    distributed.initialize(environment={"NUM_PROCESSES": "2"})
except errors.UserError as error:
    print(error)
""".replace("PORT", str(20000 + os.getpid() % 10000))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 processes were asked for and JAX knows of 1" in done.stdout, done.stderr


def test_a_process_that_the_others_do_not_join_ends_with_one_line(charlstm, environment, tmp_path):
    address = f"127.0.0.1:{20000 + os.getpid() % 10000}"
    place = {"NUM_PROCESSES": "2", "PROCESS_ID": "0", "JAX_COORDINATOR_ADDRESS": address}
    flags = f"--workdir={tmp_path}", "--initialization_timeout=1"
    done = charlstm("train", *flags, env=environment | place)
    assert done.returncode == 2
    assert f"did not find each other at {address} within 1 s" in done.stderr.splitlines()[-1]


def test_a_mesh_that_the_devices_do_not_make_is_refused(charlstm, text_file, tmp_path):
    flags = f"--corpus={text_file}", f"--workdir={tmp_path}", "--num_cpu_devices=4", *SMALL
    done = charlstm("train", *flags, "--config.mesh.data=3")
    assert done.returncode == 2 and "mesh.data=3 × mesh.model=1" in done.stderr.splitlines()[-1]
    done = charlstm("train", *flags, "--config.mesh.model=3")
    assert done.returncode == 2 and "mesh.model=3 must divide" in done.stderr.splitlines()[-1]


def test_streams_that_cannot_be_shared_out_are_refused(charlstm, text_file, tmp_path):
    flags = f"--corpus={text_file}", f"--workdir={tmp_path}", "--num_cpu_devices=3", *SMALL
    done = charlstm("train", *flags)
    assert done.returncode == 2
    assert "data.num_streams=8" in done.stderr.splitlines()[-1]


def test_shardings_are_printed(charlstm, text_file, tmp_path):
    flags = f"--corpus={text_file}", f"--workdir={tmp_path}", "--num_cpu_devices=4", *SMALL
    mesh = "--config.mesh.model=2", "--config.mesh.shard=optimizer", "--config.model.alphabet=bytes"
    done = charlstm("train", *flags, *mesh, "--print_shardings", "--stop_after=1")
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stderr.splitlines()]
    assert "params.layers.1.weight_ih float32[16, 64] P('model', None) [8, 64] a device" in lines
    assert "params.layers.0.weight_ih float32[256, 64] P(None, None) whole" in lines
    moments = "opt_state.1.mu.layers.1.weight_ih float32[16, 64] P('model', 'data')"
    assert f"{moments} [8, 32] a device" in lines


def test_cpu_devices_share_the_streams_out_evenly(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert cpu_devices_for(128, 32) == 4
    assert cpu_devices_for(128, 7) == 1
    assert cpu_devices_for(128, 32, window_length=64) == 4
    assert cpu_devices_for(128, 32, window_length=1) == 1
    assert cpu_devices_for(1024, 32) == 1
    assert cpu_devices_for(128, 32, data=4, model=2, processes=2) == 4
    assert cpu_devices_for(128, 32, model=4) == 4
    assert cpu_devices_for(128, 32, processes=2) == 1
