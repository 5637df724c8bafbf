"""Reads launch/Dockerfile, and follows its instructions without a container engine.

`debootstrap` makes the base image's stand-in: the same release of Debian. Each RUN line is run by a
shell in that root and in namespaces of its own, as by a container engine. This takes root rights.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
DOCKERFILE = REPOSITORY / "launch" / "Dockerfile"


def instructions(text):
    """Returns the instructions of a Dockerfile in order: name and arguments."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines()]


def arguments(text, wanted):
    """Returns the arguments of all instructions of one name."""
    return [rest for name, rest in instructions(text) if name == wanted]


def as_list(exec_form):
    """Returns the words of an exec form, which is a JSON list; fails for a shell form."""
    words = ast.literal_eval(exec_form)
    assert isinstance(words, list)
    return words


# pip's settings that say where packages come from.
REGISTRY = {"INDEX_URL", "EXTRA_INDEX_URL", "CERT", "PROXY", "TRUSTED_HOST", "DEFAULT_TIMEOUT"}


def pip_settings():
    """Returns as variables where this machine's pip takes packages from."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    settings = {}
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        name = name.rpartition(".")[2].upper().replace("-", "_")
        if name in REGISTRY:
            settings[f"PIP_{name}"] = ast.literal_eval(value)
    return settings


class Image:
    """A root folder in which the instructions of the Dockerfile were followed."""

    def __init__(self, root, **build_arguments):
        self.root = root
        self.variables = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.folder, self.user = "/", "0:0"
        self._build_arguments = build_arguments
        for name, rest in instructions(DOCKERFILE.read_text()):
            getattr(self, f"_{name.lower()}", lambda rest: None)(rest)

    def command(self, *words):
        """Returns what runs a command as process 1 of the image, as its user and in its folder."""
        user, _, group = self.user.partition(":")
        place = [f"--root={self.root}", f"--wd={self.folder}", f"--setuid={user}"]
        place += [f"--setgid={group}", "--mount-proc=/proc"]
        variables = [f"{name}={value}" for name, value in self.variables.items()]
        isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child", *place]
        return [*isolated, "env", "-i", *variables, *words]

    def _from(self, rest):
        release = re.fullmatch(r"debian:(\w+)-slim", rest)[1]
        subprocess.run(["debootstrap", "--variant=minbase", release, self.root], check=True)
        shutil.copy("/etc/resolv.conf", self.root / "etc")

    def _arg(self, rest):
        name, _, default = rest.partition("=")
        self.variables[name] = self._build_arguments.get(name, default)

    def _env(self, rest):
        for name, value in re.findall(r"(\S+?)=(\S+)", rest):
            self.variables[name] = re.sub(r"\$(\w+)", lambda m: self.variables[m[1]], value)

    def _workdir(self, rest):
        self.folder = rest
        self._inside(rest).mkdir(parents=True, exist_ok=True)

    def _copy(self, rest):
        *sources, target = rest.split()
        target = self._inside(f"{self.folder}/{target}")
        for source in (REPOSITORY / name for name in sources):
            if source.is_dir():
                skip = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, target, ignore=skip, dirs_exist_ok=True)
            else:
                shutil.copy(source, target)

    def _run(self, rest):
        of_pip = pip_settings()
        if "PIP_CERT" in of_pip:
            certificates = self._inside(of_pip["PIP_CERT"])
            certificates.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(of_pip["PIP_CERT"], certificates)
        outside = {name: value for name, value in os.environ.items() if name.endswith("_proxy")}
        kept = self.variables
        self.variables = kept | outside | of_pip
        try:
            subprocess.run(self.command("sh", "-c", rest), check=True)
        finally:
            self.variables = kept

    def _user(self, rest):
        self.user = rest

    def _inside(self, path):
        return self.root / path.lstrip("/")
