"""Several devices and several processes compute what one does."""

import numpy as np
import pytest
from processes import SMALL, Group, curve


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


@pytest.mark.parametrize(
    ("processes", "devices"), [(1, 2), (1, 4), (1, 8), (2, 2), (2, 4), (2, 8), (4, 4), (4, 8)]
)
def test_loss_curve_does_not_depend_on_processes_and_devices(train, alone, processes, devices):
    assert_same_curve(train(processes, devices), alone)


@pytest.mark.parametrize(
    ("processes", "devices", "fields"),
    [
        (1, 8, {"model": 2, "data": 4}),
        (2, 8, {"model": 2}),
        (2, 4, {"shard": "optimizer"}),
        (1, 8, {"shard": "parameters"}),
        (4, 4, {"shard": "parameters", "model": 2}),
        (2, 2, {"model": 2}),
    ],
    ids=str,
)
def test_loss_curve_does_not_depend_on_what_is_split(train, alone, processes, devices, fields):
    mesh = [f"--config.mesh.{name}={value}" for name, value in fields.items()]
    assert_same_curve(train(processes, devices, *mesh), alone)
