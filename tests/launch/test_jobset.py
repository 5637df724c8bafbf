"""launch/jobset.yaml: valid to the letter, and its pods train together.

No API server runs here: the manifest is checked against the models of the JobSet API and the
schema of Kubernetes' Job, and its pods are started as the processes that they describe.
"""

import copy
import subprocess

import kubernetes_validate
import pytest
import yaml
from kubeflow_trainer_api.models import JobsetV1alpha2JobSet
from launched_runs import LAUNCH, final_parameters

KUBERNETES = "1.32"
JOB_INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
# JobSet's API has these as enumerations, which its Python models do not check.
ACTIONS = {"FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"}


@pytest.fixture(scope="module")
def manifest():
    return yaml.safe_load((LAUNCH / "jobset.yaml").read_text())


def job_template(manifest):
    (replicated,) = manifest["spec"]["replicatedJobs"]
    return replicated["template"]


def container(manifest):
    (found,) = job_template(manifest)["spec"]["template"]["spec"]["containers"]
    return found


def validate(manifest):
    """Raises unless every field is one that JobSet or Kubernetes knows, of the right type."""
    # A field that the models do not know is lost on the way through them.
    assert JobsetV1alpha2JobSet.from_dict(manifest).to_dict() == manifest
    for rule in manifest["spec"]["failurePolicy"]["rules"]:
        assert rule["action"] in ACTIONS
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "train"}}
    kubernetes_validate.validate(job | job_template(manifest), KUBERNETES, strict=True)


def test_every_field_is_one_that_jobset_or_kubernetes_knows(manifest):
    validate(manifest)


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        (lambda m: m["spec"], "failurePolice", {}),
        (lambda m: m["spec"]["network"], "enableDnsHostnames", True),
        (lambda m: m["spec"]["failurePolicy"], "maxRestarts", "three"),
        (lambda m: m["spec"]["failurePolicy"]["rules"][0], "action", "Restart"),
        (lambda m: m["spec"]["replicatedJobs"][0], "replica", 1),
        (lambda m: job_template(m)["spec"], "backofflimit", 0),
        (lambda m: job_template(m)["spec"]["podFailurePolicy"]["rules"][0], "action", "Fail"),
        (container, "arg", []),
        (lambda m: container(m)["env"][2]["valueFrom"]["fieldRef"], "path", "x"),
    ],
)
def test_a_slip_in_the_manifest_would_be_found(manifest, place, key, value):
    spoilt = copy.deepcopy(manifest)
    place(spoilt)[key] = value
    with pytest.raises((AssertionError, ValueError, kubernetes_validate.ValidationError)):
        validate(spoilt)


def test_saved_and_evicted_pods_restart_the_set_without_counting(manifest):
    job = job_template(manifest)["spec"]
    # Any failed pod fails its Job; the two that are no failures are told apart by the reason.
    assert job["backoffLimit"] == 0
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    saved, evicted = job["podFailurePolicy"]["rules"]
    assert saved == {
        "action": "FailJob",
        "onExitCodes": {
            "containerName": container(manifest)["name"],
            "operator": "In",
            "values": [75],
        },
    }
    assert evicted == {
        "action": "FailJob",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    (rule,) = manifest["spec"]["failurePolicy"]["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]


def pods(manifest):
    """Each pod's command and environment, as kubelet makes them of the manifest."""
    (replicated,) = manifest["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert job["completionMode"] == "Indexed" and job["parallelism"] == job["completions"]
    assert replicated["replicas"] == 1
    for index in range(job["completions"]):
        environment = {}
        for entry in container(manifest)["env"]:
            value = entry.get("value")
            if value is None:
                assert entry["valueFrom"]["fieldRef"]["fieldPath"] == JOB_INDEX
                value = str(index)
            assert isinstance(value, str)
            environment[entry["name"]] = value
        yield container(manifest)["command"] + container(manifest)["args"], environment


def test_its_pods_train_together(manifest, user, train_flags, free_port, uninterrupted, tmp_path):
    # What a user overrides; README.md's `kubectl patch` does the same.
    manifest = copy.deepcopy(manifest)
    container(manifest)["args"] = train_flags(tmp_path / "run")
    # The name that JobSet gives the first pod, which only a cluster's DNS knows.
    (job,) = (job["name"] for job in manifest["spec"]["replicatedJobs"])
    jobset = manifest["metadata"]["name"]
    names = {f"{jobset}-{job}-0-0.{jobset}": "127.0.0.1"}
    port = free_port()
    processes = []
    for command, environment in pods(manifest):
        host, _, _ = environment["JAX_COORDINATOR_ADDRESS"].rpartition(":")
        environment["JAX_COORDINATOR_ADDRESS"] = f"{names[host]}:{port}"
        processes.append(
            subprocess.Popen(command, env=user | environment, stderr=subprocess.PIPE, text=True)
        )
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert f"devices: {len(processes)} × cpu in {len(processes)} processes" in said[0]
    assert (final_parameters(tmp_path / "run") == final_parameters(uninterrupted)).all()
