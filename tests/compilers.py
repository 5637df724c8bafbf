"""The compilers of chips that are not there: which are installed, and devices to compile for."""

import functools

import pytest

from charlstm.compilation import topologies
from charlstm.compilation.compiling import Machine, Subject, compile_for
from charlstm.compilation.topologies import Topology
from charlstm.config import Config
from charlstm.data.corpus import Alphabet

BYTES = Alphabet("bytes", bytes(range(256)))
RESIDENT, FROM_HOST = 2**20, 2**40  # bytes of text: on the devices, or its windows from the host
GPU, TPU = ("jax-cuda13-pjrt", "jax-cuda12-pjrt"), ("libtpu",)

SMALL = {
    "model.num_layers": 2,
    "model.hidden_size": 128,
    "data.num_streams": 32,
    "data.window_length": 16,
    "optimizer.name": "adam",
}


def needs(packages, *marks):
    """Returns marks: skipped without one of these packages, and marks by name."""
    found = any(topologies._is_installed(package) for package in packages)
    skip = pytest.mark.skipif(not found, reason=f"none of {', '.join(packages)} is installed")
    return [skip, *(getattr(pytest.mark, mark) for mark in marks)]


@functools.cache
def machine(topology):
    """Returns the devices of a topology."""
    return Machine.of(Topology.parse(topology))


def small(fields):
    """Returns the configuration that is compiled, with other fields."""
    return Config().replace(SMALL | fields)


def report_on(topology, fields, num_bytes=RESIDENT, **options):
    """Compiles the training of a small model."""
    subject = Subject(small(fields), BYTES, num_bytes)
    return compile_for(subject, machine(topology), **{"find_largest": False} | options)
