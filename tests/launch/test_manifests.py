"""What the launchers' files have in common: their flags, and the variants in their comments."""

import re
import runpy
import shlex

import pytest
import yaml
from launched_runs import LAUNCH

BUCKET = "--workdir=gs://BUCKET/runs/quickstart"


def arguments(name):
    """Returns what a launcher's file gives to `charlstm train`."""
    manifest = yaml.safe_load((LAUNCH / name).read_text())
    if name == "sky.yaml":
        return shlex.split(manifest["envs"]["ARGS"])
    if name == "trainjob.yaml":
        return manifest["spec"]["trainer"]["args"]
    (job,) = manifest["spec"]["replicatedJobs"]
    (container,) = job["template"]["spec"]["template"]["spec"]["containers"]
    return container["args"]


@pytest.mark.parametrize("name", ["jobset.yaml", "sky.yaml", "trainjob.yaml"])
def test_the_run_folder_is_in_a_bucket_and_charlstm_takes_the_flags(charlstm, name):
    assert BUCKET in arguments(name)
    done = charlstm("train", *arguments(name), "--print_config")
    assert done.returncode == 0, done.stderr


# A line of a comment that is YAML: a key, perhaps with a value of one word.
COMMENTED = re.compile(r"^( *)# ((?:  )*(?:- )?[\w./-]+:(?: \S+)?)$", re.M)


@pytest.mark.parametrize(
    ("name", "test", "fields"),
    [
        (
            "jobset.yaml",
            "test_jobset.py",
            "labels kueue.x-k8s.io/queue-name serviceAccountName securityContext fsGroup "
            "volumeMounts.name mountPath volumes.name persistentVolumeClaim claimName",
        ),
        (
            "trainjob.yaml",
            "test_trainjob.py",
            "labels kueue.x-k8s.io/queue-name serviceAccountName",
        ),
    ],
)
def test_the_variants_in_comments_are_valid_too(name, test, fields):
    text, count = COMMENTED.subn(r"\1\2", (LAUNCH / name).read_text())
    assert count == len(fields.split())
    runpy.run_path(__file__.replace("test_manifests.py", test))["validate"](yaml.safe_load(text))


def test_a_volume_in_the_bucket_s_place_is_valid_for_skypilot():
    text, count = COMMENTED.subn(r"\1\2", (LAUNCH / "sky.yaml").read_text())
    assert count == 2
    assert yaml.safe_load(text)["volumes"] == {"/runs": "charlstm-runs"}
