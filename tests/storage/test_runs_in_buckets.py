"""A run folder in a bucket keeps the promises of one on a disk."""

import json
import random
import signal
import subprocess
import sys
import time

import pytest
from object_stores import BUCKET, Gcs
from processes import SMALL, Group
from run_folders import checkpoints, curve, metrics, parameters

from charlstm.storage.layout import COMMIT_FILE

# A constant rate: a run that is ended after any update is like one that was to end there.
LONG = (
    "--config.training.num_updates=1000000",
    "--config.optimizer.schedule=constant",
    "--config.training.checkpoint_every=25",
    "--config.training.updates_per_dispatch=2",
)


@pytest.fixture(scope="module")
def start(environment, gcs, text_file, tmp_path_factory):
    """Starts processes that train in a folder."""

    def run(processes, workdir, *arguments, store=gcs):
        flags = [f"--corpus={text_file}", f"--workdir={workdir}", *SMALL, *arguments]
        online = environment | store.environment()
        return Group(processes, flags, online, tmp_path_factory.mktemp("output"))

    return run


@pytest.fixture(scope="module")
def assert_equals_uninterrupted(start, tmp_path_factory):
    """Compares the run in a folder with one on the disk that was never interrupted."""

    def compare(found, processes=1):
        updates = max(checkpoints(found))
        disk = tmp_path_factory.mktemp("uninterrupted") / "run"
        group = start(processes, disk, *LONG, f"--stop_after={updates}")
        assert group.wait() == [0] * processes, group.text()
        assert len(curve(found)) == updates and curve(found) == curve(disk)
        assert (parameters(found, updates) == parameters(disk, updates)).all()

    return compare


def test_killed_at_random_moments_equals_uninterrupted(
    start, assert_equals_uninterrupted, gcs, folder, address, tmp_path
):
    """What is in the bucket is as it would be on a disk, whatever a kill cut off."""
    # A checkpoint that was never committed is no checkpoint, and is cleaned up.
    gcs.put(f"{folder}/checkpoints/999999/params/d/x", b"torn")
    gcs.put(f"{folder}/checkpoints/.999999.unfinished", b"")
    # What a run has not begun itself is left alone.
    gcs.put(f"{folder}/checkpoints/1/model.safetensors", b"another's")
    first = start(1, address, *LONG)
    began = time.monotonic()
    first.wait_until(lambda: f"checkpoints/50/{COMMIT_FILE}" in gcs.names(folder))
    seconds, rng, said = time.monotonic() - began, random.Random(1), ""
    first.kill()
    for _ in range(9):
        group = start(1, address, *LONG)
        time.sleep(rng.uniform(0.2, 1.0) * seconds)
        group.kill()
        said += group.text()
    assert "has died" in said and "going on from update" in said
    saved = gcs.copy(folder, tmp_path / "saved")
    last = start(1, address, *LONG, f"--stop_after={max(checkpoints(saved)) + 30}")
    assert last.wait() == [0], last.text()
    found = gcs.copy(folder, tmp_path / "found")
    assert not (found / "checkpoints/999999").exists() and not list(found.rglob(".*"))
    assert (found / "checkpoints/1/model.safetensors").read_bytes() == b"another's"
    assert_equals_uninterrupted(found)


def test_two_processes_save_on_a_signal_and_one_goes_on(start, gcs, folder, address, tmp_path):
    """Each has a copy of its own, and both write the checkpoint; meanwhile nobody else gets in."""
    sharded = "--config.mesh.shard=parameters"
    group = start(2, address, *LONG, sharded)
    group.wait_until(lambda: f"checkpoints/25/{COMMIT_FILE}" in gcs.names(folder))
    second = start(1, address, *LONG, sharded)
    assert second.wait() == [2]
    assert f"another run is in {address} (process {group.processes[0].pid} on" in second.text()
    group.signal(signal.SIGTERM, 1)
    assert group.wait() == [75, 75], group.text()
    found = gcs.copy(folder, tmp_path / "found")
    saved = max(checkpoints(found))
    assert metrics(found)[-1]["step"] == saved
    written = {path.name for path in (found / f"checkpoints/{saved}/params").rglob("*")}
    assert {"0.0", ".zarray"} <= written  # no process needed to see the files of the other
    # Both pass over it when it is damaged, and write it again.
    gcs.put(f"{folder}/checkpoints/{saved}/_CHECKPOINT_METADATA", b"damaged")
    anew = start(2, address, *LONG, sharded, f"--stop_after={saved}")
    assert anew.wait() == [0, 0], anew.text()
    assert f"it is kept as {saved}.damaged" in anew.text()
    names = gcs.names(folder)
    assert f"checkpoints/{saved}.damaged/_CHECKPOINT_METADATA" in names
    assert not [name for name in names if "unfinished" in name]
    again = start(1, address, *LONG, f"--stop_after={saved + 3}")
    assert again.wait() == [0], again.text()
    assert f"going on from update {saved} of {address}" in again.text()
    assert len(curve(gcs.copy(folder, tmp_path / "again"))) == saved + 3


def test_training_goes_on_while_the_store_is_away(start, assert_equals_uninterrupted, tmp_path):
    """The server is stopped for 20 s in the middle of training of two processes."""
    server = Gcs(tmp_path / "server")
    try:
        group = start(2, f"gs://{BUCKET}/run", *LONG, store=server)
        group.wait_until(lambda: f"checkpoints/50/{COMMIT_FILE}" in server.names("run"))
        server.stop()
        time.sleep(20)
        assert [process.poll() for process in group.processes] == [None, None], group.text()
        server.start()
        before = max(checkpoints(server.copy("run", tmp_path / "before")))
        group.wait_until(lambda: f"checkpoints/{before + 50}/{COMMIT_FILE}" in server.names("run"))
        group.signal(signal.SIGTERM)
        assert group.wait() == [75, 75], group.text()
        found = server.copy("run", tmp_path / "found")
    finally:
        server.stop()
    assert_equals_uninterrupted(found, 2)


IMPATIENT = """
import sys
from charlstm import command_line
from charlstm.storage import lease, paths
for module in (lease, paths):
    module.SECONDS_OF_A_RUNS_PATIENCE = 2
sys.exit(command_line.run(["charlstm", *sys.argv[1:]]))
"""


def test_a_store_that_is_gone_for_good_loses_nothing(charlstm, environment, text_file, tmp_path):
    """One line, and the copy of what could not be sent is kept: it can be sampled and sent on."""
    server = Gcs()
    flags = [f"--corpus={text_file}", f"--workdir=gs://{BUCKET}/run", *SMALL, *LONG]
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", IMPATIENT, "train", *flags],
            env=environment | server.environment(),
            stderr=subprocess.PIPE,
            text=True,
        )
        until = time.monotonic() + 120
        while sum(name.endswith(COMMIT_FILE) for name in server.names("run")) < 2:
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
    finally:
        server.stop()
    _, said = process.communicate(timeout=200)
    assert process.returncode == 2, said
    last = said.splitlines()[-1]
    assert last.startswith(f"charlstm: gs://{BUCKET}/run cannot be reached (")
    kept = last.partition("what could not be sent is in ")[2].partition(",")[0]
    sampled = charlstm("sample", f"--checkpoint={kept}", "--num_bytes=10")
    assert sampled.returncode == 0, sampled.stderr


def test_every_command_reads_a_run_in_a_bucket(
    charlstm, environment, trained, gcs, folder, address, open_page, tmp_path
):
    """sample, evaluate, inspect and report print what they print of the same run on a disk."""
    for path in trained.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            gcs.put(f"{folder}/{path.relative_to(trained).as_posix()}", path.read_bytes())
    online = environment | gcs.environment()
    for command in (["sample", "--num_bytes=40", "--seed=3"], ["evaluate", "--json"]):
        here = charlstm(*command, f"--checkpoint={trained}")
        there = charlstm(*command, f"--checkpoint={address}", env=online)
        assert there.returncode == 0, there.stderr
        assert there.stdout.replace(address, str(trained)) == here.stdout
        assert there.stdout or command[0] == "evaluate"
    page = f"--output={address}/inspect.html"
    inspected = charlstm("inspect", f"--checkpoint={address}/checkpoints", page, env=online)
    assert inspected.returncode == 0, inspected.stderr
    assert b"<html" in gcs.read(f"{folder}/inspect.html")
    for flags in ([], [f"--output={tmp_path / 'report.html'}"]):
        reported = charlstm("report", address, *flags, env=online)
        assert reported.returncode == 0, reported.stderr
    (tmp_path / "of_bucket.html").write_bytes(gcs.read(f"{folder}/report.html"))
    for name in ("report.html", "of_bucket.html"):
        shown = open_page(tmp_path / name)
        assert address in shown.content() and not shown.complaints


def test_a_run_begins_with_weights_from_a_bucket_and_sends_what_else_it_writes(
    charlstm, environment, trained, text_file, gcs, folder, address
):
    """TensorBoard's files and a profile are in the bucket too, and a report follows the run."""
    flags = (
        *(f"--corpus={text_file}", "--config.model.alphabet=corpus", *SMALL),
        *("--config.model.num_layers=1", "--tensorboard", "--profile=2:4"),
        *("--config.training.num_updates=20", f"--workdir={address}"),
    )
    for path in trained.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            gcs.put(f"{folder}-first/{path.relative_to(trained).as_posix()}", path.read_bytes())
    shape = json.loads((trained / "config.json").read_text())["model"]
    sizes = [f"--config.model.{name}={shape[name]}" for name in ("num_layers", "hidden_size")]
    start = f"--init_from={address}-first"
    online = environment | gcs.environment()
    watching = [sys.executable, "-m", "charlstm", "report", address, "--watch", "--every=1"]
    watch = subprocess.Popen(watching, env=online)
    for _ in range(2):  # the same command again finds that it is the same run
        done = charlstm("train", *flags, *sizes, start, env=online)
        assert done.returncode == 0, done.stderr
    assert f"starting from the weights of {address}-first" not in done.stderr
    assert watch.wait(60) == 0
    names = gcs.names(folder)
    assert "report.html" in names
    assert any(name.startswith("tensorboard/events") for name in names)
    assert any(name.endswith("perfetto_trace.json.gz") for name in names)
    assert {"config.json", "about.json", "metrics.jsonl"} <= set(names)
    assert not [name for name in names if name.startswith(".") or "/." in name]


def test_a_run_folder_in_s3(charlstm, environment, text_file, s3):
    online = environment | s3.environment()
    address = f"s3://{BUCKET}/runs/mine"
    flags = f"--corpus={text_file}", f"--workdir={address}", *SMALL
    first = charlstm("train", *flags, "--stop_after=30", env=online)
    assert first.returncode == 0, first.stderr
    second = charlstm("train", *flags, env=online)
    assert second.returncode == 0 and f"going on from update 30 of {address}" in second.stderr
    assert charlstm("evaluate", f"--checkpoint={address}", env=online).returncode == 0


TWICE = """
import sys
import charlstm

address, text = sys.argv[1:]
config = charlstm.Config().replace({
    "data.corpus": text, "data.num_streams": 4, "data.window_length": 8,
    "model.hidden_size": 8, "model.alphabet": "corpus", "optimizer.warmup_updates": 2,
    "training.num_updates": 40, "training.checkpoint_every": 5, "training.log_every": 1,
    "training.updates_per_dispatch": 1, "training.sample_every": 0,
})


class Load:
    every = 1

    def __call__(self, run):
        if run.updates > 10:  # the save of update 5 is done
            for path in address, run.workdir:
                assert charlstm.load(path).bits_per_byte("abc") > 0
        kept = run.workdir / "a" / "b" / "hook.csv"
        kept.parent.mkdir(parents=True, exist_ok=True)
        with kept.open("a") as file:
            file.write(f"{run.updates}\\n")


charlstm.train(config, address, stop_after=20, hooks=[Load()])
first = charlstm.load(address)
last = charlstm.train(config, address, hooks=[Load()])
again = charlstm.load(f"{address}/checkpoints/40")
assert again.bits_per_byte("abc") == last.bits_per_byte("abc") != first.bits_per_byte("abc")
"""


def test_one_process_trains_and_loads_again_and_again(
    environment, gcs, text_file, folder, address, tmp_path
):
    """A model that is loaded in the middle of a run leaves what the run writes as it is."""
    command = [sys.executable, "-c", TWICE, address, str(text_file)]
    online = environment | gcs.environment()
    done = subprocess.run(command, env=online, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert len(curve(gcs.copy(folder, tmp_path))) == 40
    assert checkpoints(tmp_path)[-1] == 40
    assert (tmp_path / "a/b/hook.csv").read_text() == "".join(f"{n}\n" for n in range(1, 41))
