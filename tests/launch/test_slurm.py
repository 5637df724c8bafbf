"""launch/slurm.sbatch, as it is, on a real cluster of two nodes."""

import contextlib
import json
import os
import re
import signal

import pytest
import slurm_cluster
from launched_runs import (
    LAUNCH,
    NUM_UPDATES,
    SAVE_EVERY,
    final_parameters,
    last_logged_step,
    wait_until,
)
from run_folders import checkpoints


@pytest.fixture(scope="module")
def slurm():
    missing = slurm_cluster.missing_programs()
    if missing:
        pytest.skip(
            f"this machine has no {', '.join(missing)}: "
            f"apt-get install --no-install-recommends {slurm_cluster.PACKAGES}"
        )
    with slurm_cluster.cluster() as running:
        yield running


class Job:
    """A job of launch/slurm.sbatch, submitted from a folder of its own."""

    def __init__(self, slurm, user, folder, flags, *sbatch_flags):
        self.slurm, self.run = slurm, folder / "run"
        submit = ["--parsable", *sbatch_flags, str(LAUNCH / "slurm.sbatch"), *flags]
        self.number = slurm.command("sbatch", *submit, environment=user, folder=folder)
        self._log = folder / f"charlstm-{self.number}.log"

    @property
    def log(self):
        return self._log.read_text() if self._log.exists() else ""

    def ranks(self):
        """Its Python processes, by rank."""
        return self.slurm.ranks(self.number)

    def wait_for_update(self, step):
        """Waits until the run has made an update beyond `step`."""
        wait_until(
            lambda: last_logged_step(self.run) > step,
            f"update {step} of job {self.number}",
            alive=lambda: self.slurm.job(self.number)["JobState"] in ("PENDING", "RUNNING"),
        )

    @contextlib.contextmanager
    def standing_still(self):
        """Holds the processes after their first updates, until they have been sent a signal.

        However fast they are, they are not done when it comes.
        """
        self.wait_for_update(0)
        processes = [rank.process for rank in self.ranks().values()]
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
            wait_until(lambda: "CANCELLED AT" in self.log, f"a signal to job {self.number}", 60)
        finally:
            for process in processes:
                os.kill(process, signal.SIGCONT)

    def wait_for_end(self, state, seconds=240):
        """Waits until nothing of the job is left; checks its state and returns what SLURM knows."""
        job = self.slurm.wait_for_end(self.number, seconds)
        assert job["JobState"] == state, f"{job}\n{self.log}"
        return job

    def resumed_from(self):
        """The updates at which the run went on."""
        return [int(step) for step in re.findall(r"going on from update (\d+) of", self.log)]

    def check_went_on_exactly(self, uninterrupted):
        """The job was requeued once, went on where it had saved, and ended like any other."""
        assert self.wait_for_end("COMPLETED")["Restarts"] == "1", self.log
        step = last_step(self.log)
        assert self.resumed_from() == [step], self.log
        assert step in checkpoints(self.run)
        assert (final_parameters(self.run) == final_parameters(uninterrupted)).all()


@pytest.fixture
def emptied(slurm):
    """The cluster, from which what a failed test leaves is removed."""
    yield slurm
    slurm.empty()


class ArrayTask(Job):
    """A running task of a job array."""

    def __init__(self, slurm, array, task, run, log):
        self.slurm, self.run, self._log = slurm, run, log
        self.number = f"{array}_{task}"
        # Until it runs, a task may have the array's own number.
        job = slurm.wait(self.number, "a start", lambda job: job["JobState"] == "RUNNING")
        self.id = job["JobId"]

    def ranks(self):
        return self.slurm.ranks(self.id)


def last_step(log):
    """The update that was saved because somebody asked."""
    return int(re.findall(r"saved at update (\d+);", log)[-1])


@pytest.fixture
def submit(slurm, user, train_flags, tmp_path):
    """Submits the small run, with further flags for sbatch; ends what a failed test leaves."""
    jobs = []

    def submit(*sbatch_flags, flags=()):
        arguments = [*train_flags(tmp_path / "run"), *flags]
        jobs.append(Job(slurm, user, tmp_path, arguments, *sbatch_flags))
        return jobs[-1]

    yield submit
    slurm.empty()
    for job in jobs:
        print(job.log)  # shown if the test fails


def test_the_file_as_it_is_trains_with_all_devices_of_both_nodes(submit, slurm, uninterrupted):
    job = submit()
    job.wait_for_update(0)
    ranks = slurm.ranks(job.number)
    assert sorted(ranks) == [0, 1]
    for rank in ranks.values():
        assert rank.variables["CUDA_VISIBLE_DEVICES"] == "0,1"
        assert rank.variables["JAX_LOCAL_DEVICE_IDS"] == "0,1"
    nodes = {rank.variables["SLURMD_NODENAME"] for rank in ranks.values()}
    assert nodes == set(slurm_cluster.NODES)
    assert job.wait_for_end("COMPLETED")["Restarts"] == "0"
    assert "devices: 2 × cpu in 2 processes" in job.log
    assert (final_parameters(job.run) == final_parameters(uninterrupted)).all()


def test_a_share_of_a_node_is_one_flag_of_sbatch(submit, slurm):
    job = submit("--nodes=1", "--oversubscribe", "--gpus-per-node=1")
    job.wait_for_update(0)
    ranks = slurm.ranks(job.number)
    assert list(ranks) == [0]
    assert ranks[0].variables["CUDA_VISIBLE_DEVICES"] == "0"
    assert ranks[0].variables["JAX_LOCAL_DEVICE_IDS"] == "0"


def test_preempted_by_a_higher_priority_it_goes_on_exactly(submit, slurm, uninterrupted):
    job = submit()
    with job.standing_still():
        wanted = ["--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null"]
        other = slurm.command("sbatch", "--parsable", *wanted, "--wrap=sleep 1")
    job.check_went_on_exactly(uninterrupted)
    assert slurm.job(other)["JobState"] == "COMPLETED"


def test_told_to_save_with_sigterm_it_goes_on_exactly(submit, slurm, uninterrupted):
    job = submit()
    with job.standing_still():
        slurm.command("scancel", "--signal=TERM", job.number)
    job.check_went_on_exactly(uninterrupted)


def test_at_its_time_limit_it_saves_and_goes_on_exactly(submit, slurm, uninterrupted):
    # slurmctld looks at limits every 30 s, as long as it takes to call a process dead by default.
    job = submit(flags=["--heartbeat_timeout=120"])
    with job.standing_still():
        slurm.command("scontrol", "update", f"JobId={job.number}", "TimeLimit=1")
    slurm.wait(job.number, "a restart", lambda known: known["Restarts"] == "1")
    slurm.command("scontrol", "update", f"JobId={job.number}", "TimeLimit=UNLIMITED")
    job.check_went_on_exactly(uninterrupted)


def test_cancelled_it_saves_and_is_not_requeued(submit, slurm):
    job = submit()
    with job.standing_still():
        slurm.command("scancel", job.number)
    assert job.wait_for_end("CANCELLED")["Restarts"] == "0"
    assert checkpoints(job.run)[-1] == last_step(job.log)


def test_a_killed_rank_ends_the_job_and_the_next_loses_one_interval_at_most(
    submit, slurm, uninterrupted
):
    job = submit()
    job.wait_for_update(0)
    rank_1 = slurm.ranks(job.number)[1].process
    wait_until(lambda: checkpoints(job.run), "a checkpoint")
    os.kill(rank_1, signal.SIGKILL)
    reached = last_logged_step(job.run)
    assert job.wait_for_end("FAILED", seconds=30)["Restarts"] == "0"
    again = submit()
    again.wait_for_end("COMPLETED")
    (step,) = again.resumed_from()
    assert reached - SAVE_EVERY <= step
    assert (final_parameters(job.run) == final_parameters(uninterrupted)).all()


def test_a_rank_that_fails_is_not_taken_for_one_that_saved(submit, tmp_path):
    """srun ends the other rank, which answers with 75; the job must fail all the same."""
    config = tmp_path / "fails_on_rank_1.py"
    config.write_text(FAILS_ON_RANK_1)
    ended = submit(flags=[f"--config={config}"])
    job = ended.wait_for_end("FAILED")
    assert job["Restarts"] == "0" and job["ExitCode"] == "2:0", ended.log
    assert "task 0: Exited with exit code 75" in ended.log


def test_the_array_of_the_readme_tries_each_combination_and_a_task_goes_on_after_a_save(
    emptied, user, train_flags, tmp_path
):
    (script,) = re.findall(r"^```bash\n(.*?)^```", (LAUNCH / "README.md").read_text(), re.M | re.S)
    # A small run, and folders of this test.
    flags = " ".join(flag for flag in train_flags("") if not flag.startswith("--workdir"))
    assert script.count("--config=NAME") == script.count("/shared/") == 1
    script = script.replace("--config=NAME", flags).replace("/shared/", f"{tmp_path}/")
    (tmp_path / "sweep.sbatch").write_text(script)
    (tmp_path / "launch").symlink_to(LAUNCH)
    only = ["--array=1,3", "--cpus-per-task=1", "sweep.sbatch"]
    array = emptied.command("sbatch", "--parsable", *only, environment=user, folder=tmp_path)
    runs = {1: tmp_path / "runs/sweep/0.002-0", 3: tmp_path / "runs/sweep/0.001-1"}
    tasks = [
        ArrayTask(emptied, array, task, run, tmp_path / f"sweep-{task}.log")
        for task, run in runs.items()
    ]
    # The last task's job has the number of the array, which must not be taken for all tasks.
    first, last = tasks
    assert last.id == array != first.id
    with last.standing_still():
        emptied.command("scancel", "--signal=TERM", last.number)
    for task, restarts in (first, "0"), (last, "1"):
        assert task.wait_for_end("COMPLETED")["Restarts"] == restarts, task.log
        assert checkpoints(task.run)[-1] == NUM_UPDATES
    assert last.resumed_from() == [last_step(last.log)]
    for run in runs.values():
        config = json.loads((run / "config.json").read_text())
        tried = f"{config['optimizer']['learning_rate']}-{config['training']['seed']}"
        assert run.name == tried


# Fails once rank 0 has started to wait for rank 1: on the port that JAX derives from the job.
FAILS_ON_RANK_1 = """
import os, socket, time
from charlstm.config import Config
from charlstm.errors import UserError

def get_config():
    if os.environ["SLURM_PROCID"] == "1":
        port = int(os.environ["SLURM_JOB_ID"]) % 4096 + 61440
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                raise UserError("this rank has no such file")
            except ConnectionRefusedError:
                time.sleep(0.1)
    return Config()
"""
