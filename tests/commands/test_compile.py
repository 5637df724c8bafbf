"""`charlstm compile`: the program of `charlstm train`, for this machine and for chips elsewhere."""

import json
import re

import jax
import pytest
from conftest import TINY

from charlstm.compilation import topologies
from charlstm.compilation.topologies import Topology
from charlstm.errors import UserError
from charlstm.runtime import meshes


def test_it_says_of_this_machine_what_training_says(charlstm, text_file, tmp_path):
    flags = (f"--config.data.corpus={text_file}", *TINY)
    told = charlstm("compile", *flags)
    assert told.returncode == 0, told.stderr
    trained = charlstm("train", *flags, f"--workdir={tmp_path}/run", "--stop_after=1")
    # Two lines, but for the memory that this machine has free.
    table = re.compile(r"memory: ([\d.]+ \w+) of [\d.]+ GiB on each device\n( .*)\n")
    assert table.search(told.stdout).groups() == table.search(trained.stderr).groups()
    assert "it fits; the largest that fits is data.num_streams=" in told.stdout


def test_scripts_get_one_object(charlstm, text_file):
    flags = (f"--config.data.corpus={text_file}", *TINY)
    told = charlstm("compile", *flags, "--json", "--nolargest", "--config.data.num_streams=8")
    found = json.loads(told.stdout)
    assert found["fits"] is True and found["num_streams"] == 8
    kinds = found["bytes_per_device"]
    assert kinds["total"] == sum(size for kind, size in kinds.items() if kind != "total")
    assert kinds["text"] == pytest.approx(0.9 * text_file.stat().st_size, abs=2)
    assert found["largest_num_streams"] is None
    # No figures of this chip are known.
    assert found["ceiling_bytes_per_second"] is None and found["kernels_per_time_step"] is None


def test_no_corpus_is_needed(charlstm, tmp_path):
    flags = ("--config.data.corpus=nowhere.txt", *TINY, "--nolargest")
    told = charlstm("compile", *flags, "--text_bytes=100000", "--num_symbols=80", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    refused = charlstm("compile", *flags, cwd=tmp_path)
    assert refused.returncode == 2 and "nowhere.txt" in refused.stderr


@pytest.mark.parametrize(
    "name", ["h1000:8", "v5e:", "v5e:2x", "v5e:0x2", "h100:2x2x2", "h100:-1", ":2"]
)
def test_a_wrong_topology_is_refused_with_examples(name):
    with pytest.raises(UserError, match=r"--topology=.*for example"):
        Topology.parse(name)


@pytest.mark.parametrize(("name", "extra"), [("v5e:2x2", "compile-tpu"), ("h100:8", "compile-gpu")])
def test_a_missing_compiler_is_named_with_its_extra(name, extra, monkeypatch):
    monkeypatch.setattr(topologies, "_is_installed", lambda package: False)
    with pytest.raises(UserError, match=rf"pip install 'charlstm\[{extra}\]'"):
        Topology.parse(name).devices()


@pytest.mark.parametrize(
    ("name", "shape"), [("h100", (1, 1)), ("h100:8", (1, 8)), ("h100:4x8", (4, 8))]
)
def test_gpus_are_processes_times_gpus(name, shape):
    assert Topology.parse(name).shape == shape


def test_streams_that_the_devices_cannot_share_are_refused():
    devices = jax.devices() * 3
    with pytest.raises(UserError, match="make it a multiple of 3"):
        meshes.make_mesh(4, devices=devices)


def test_training_for_chips_elsewhere_is_refused(charlstm):
    refused = charlstm("train", "--topology=h100:4")
    assert refused.returncode == 2 and "`charlstm compile`" in refused.stderr
