"""A SLURM cluster of two nodes on this machine: munged, slurmctld and two slurmds on free ports.

Everything lives in a folder of its own: nothing under /etc, no systemd, no root, no cgroups. Each
node has two stand-in GPUs (device files that every machine has), so that SLURM hands out devices
and sets the variables that it sets on real ones.
"""

import contextlib
import getpass
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

PACKAGES = "slurmctld slurmd slurm-client munge"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol", "squeue")
# Seconds from SIGTERM to SIGKILL, as on a cluster that is in a hurry; SLURM's own default is 30.
KILL_WAIT = 20

# JAX takes the coordinator's host from the list of nodes, and names must resolve: addresses do.
_SLURM_CONF = """\
ClusterName=loopback
SlurmctldHost=localhost
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.sock,cred_expire=5
FirstJobId={first_job}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
GresTypes=gpu
SchedulerParameters=sched_interval=1,bf_interval=1
KillWait={kill_wait}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
NodeName=127.0.0.1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 Gres=gpu:2
NodeName=127.0.0.2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 Gres=gpu:2
PartitionName=low Nodes=ALL Default=YES PriorityTier=1 GraceTime={kill_wait}
PartitionName=high Nodes=ALL PriorityTier=2
"""
_GRES_CONF = "Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n"
NODES = ("127.0.0.1", "127.0.0.2")


def missing_programs() -> list[str]:
    """The programs of SLURM and munge that this machine lacks."""
    return [name for name in PROGRAMS if _find(name) is None]


def _find(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class Rank(NamedTuple):
    """A process of a job's task, and its environment."""

    process: int
    variables: dict[str, str]


class Cluster:
    """The running cluster; `environment` is what its commands need beside the caller's own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: list[subprocess.Popen] = []

    def start(self) -> None:
        """Starts the daemons and returns when both nodes take jobs."""
        folder = self.folder
        for name in ("state", *NODES):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        (folder / "gres.conf").write_text(_GRES_CONF)
        (folder / "slurm.conf").write_text(
            _SLURM_CONF.format(
                folder=folder,
                ports=_free_ports(3),
                user=getpass.getuser(),
                kill_wait=KILL_WAIT,
                # JAX's coordinator listens on a port that follows from the number of the job.
                first_job=random.randrange(1000, 4000),
            )
        )
        paths = {
            option: folder / f"munge{end}"
            for option, end in (
                ("key-file", ".key"),
                ("socket", ".sock"),
                ("pid-file", ".pid"),
                ("log-file", ".log"),
                ("seed-file", ".seed"),
            )
        }
        munged = ["munged", "--foreground", *(f"--{name}={path}" for name, path in paths.items())]
        self._daemon(*munged)
        self._wait("munged", 60, (folder / "munge.sock").exists)
        self._daemon("slurmctld", "-D", "-i")
        for node in NODES:
            self._daemon("slurmd", "-D", "-N", node)
        self._wait("idle nodes", 120, lambda: self._states() == ["idle"])

    def stop(self) -> None:
        """Cancels what runs, waits for it to be gone, and ends the daemons."""
        try:
            self.empty()
        finally:
            for daemon in reversed(self._daemons):
                daemon.send_signal(signal.SIGTERM)
            for daemon in self._daemons:
                try:
                    daemon.wait(10)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()

    def empty(self) -> None:
        """Cancels all jobs and waits for their processes to be gone."""
        self.command("scancel", "--user", getpass.getuser())
        self._wait("an empty queue", KILL_WAIT + 10, lambda: not self.command("squeue", "-h"))

    def command(
        self,
        name: str,
        *arguments: str,
        environment: dict[str, str] | None = None,
        folder: Path | None = None,
    ) -> str:
        """Runs one of SLURM's commands; returns what it prints, or raises with what it says."""
        done = subprocess.run(
            [_find(name), *arguments],
            env=(environment or dict(os.environ)) | self.environment,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode:
            raise RuntimeError(f"{name} {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """What SLURM knows of a job: `JobState`, `Restarts`, `ExitCode`, …"""
        shown = self.command("scontrol", "--oneliner", "show", "job", number)
        return dict(re.findall(r"(\S+?)=(\S*)", shown))

    def wait(self, number: str, what: str, holds, seconds: float = 120) -> dict[str, str]:
        """Waits until `holds(job)`; returns the job."""
        self._wait(f"{what} of job {number}", seconds, lambda: holds(self.job(number)))
        return self.job(number)

    def wait_for_end(self, number: str, seconds: float = 240) -> dict[str, str]:
        """Waits until a job is over and its processes are gone; returns the job."""
        over = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL")
        return self.wait(number, "the end", lambda job: job["JobState"] in over, seconds)

    def ranks(self, number: str) -> dict[int, Rank]:
        """The Python processes of a job's tasks, by rank."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                entries = (process / "environ").read_text(errors="replace").split("\0")
                variables = dict(entry.partition("=")[::2] for entry in entries)
                if (
                    variables.get("SLURM_CONF") == self.environment["SLURM_CONF"]
                    and variables.get("SLURM_JOB_ID") == number
                    and "SLURM_PROCID" in variables
                    and (process / "exe").readlink().name.startswith("python")
                ):
                    found[int(variables["SLURM_PROCID"])] = Rank(int(process.name), variables)
        return found

    def logs(self) -> str:
        """The ends of the daemons' logs, for a failing test."""
        paths = sorted(self.folder.glob("*.log"))
        return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in paths)

    def _states(self) -> list[str]:
        with contextlib.suppress(RuntimeError):
            return self.command("sinfo", "-h", "-o", "%t", "-p", "low").split()
        return []

    def _daemon(self, name: str, *arguments: str) -> None:
        environment = os.environ | self.environment
        with (self.folder / f"{name}.out").open("ab") as output:
            self._daemons.append(
                subprocess.Popen(
                    [_find(name), *arguments],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=self.folder,
                    # A Ctrl-C at the terminal is for the test run, which then ends them in order.
                    start_new_session=True,
                )
            )

    def _wait(self, what: str, seconds: float, holds) -> None:
        until = time.monotonic() + seconds
        while not holds():
            dead = [daemon.args for daemon in self._daemons if daemon.poll() is not None]
            if dead or time.monotonic() > until:
                reason = f"{dead} ended" if dead else f"none after {seconds:g} s"
                raise RuntimeError(f"waited for {what}: {reason}\n{self.logs()}")
            time.sleep(0.4)


@contextlib.contextmanager
def cluster():
    """A `Cluster` that runs inside the block."""
    # munged wants a path that everybody may enter, and a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)
    running = Cluster(folder)
    # Whoever ends the tests with SIGTERM must not leave slurmstepds behind: as with Ctrl-C.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        try:
            running.start()
            yield running
        finally:
            running.stop()
        shutil.rmtree(folder)
    finally:
        signal.signal(signal.SIGTERM, before)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
