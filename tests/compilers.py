"""The compilers of chips that are not there: which are installed, and devices to compile for."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from charlstm.compilation import topologies
from charlstm.compilation.compiling import Machine, Subject, compile_for
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
    return Machine.named(topology)


def small(fields):
    """Returns the configuration that is compiled, with other fields."""
    return Config().replace(SMALL | fields)


def report_on(topology, fields, num_bytes=RESIDENT, **options):
    """Compiles the training of a small model."""
    subject = Subject(small(fields), BYTES, num_bytes)
    return compile_for(subject, machine(topology), **{"find_largest": False} | options)


def told(topology, *flags):
    """Returns what `charlstm compile --json` prints in a process of its own, which says no more."""
    flags = ["--text_bytes=1000000", "--num_symbols=60", "--nolargest", "--json", *flags]
    done = subprocess.run(
        [sys.executable, "-m", "charlstm", "compile", f"--topology={topology}", *flags],
        env={name: value for name, value in os.environ.items() if not name.startswith("TPU_")},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)
