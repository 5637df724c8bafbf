"""launch/trainjob.yaml: valid to the letter, and its pods train together.

Neither Kubeflow Trainer nor an API server runs here: the manifest is checked against the models of
Trainer's API, and its pods are started as the processes that Trainer's runtime makes of it.
"""

import copy
import subprocess

import pytest
import yaml
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob
from launched_runs import LAUNCH
from run_folders import checkpoints

# The names of the job and the container in Trainer's runtime `jax-distributed`, and its port.
NODE, PORT = "node", 29500


@pytest.fixture(scope="module")
def manifest():
    return yaml.safe_load((LAUNCH / "trainjob.yaml").read_text())


def replicated_job(manifest):
    (patch,) = manifest["spec"]["runtimePatches"]
    (job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    return job


def pod(manifest):
    return replicated_job(manifest)["template"]["spec"]["template"]["spec"]


def container(manifest):
    (found,) = pod(manifest)["containers"]
    return found


def validate(manifest):
    """Raises unless every field is one that Trainer knows, of the right type."""
    # A field that the models do not know is lost on the way through them.
    assert TrainerV1alpha1TrainJob.from_dict(manifest).to_dict() == manifest
    # What Trainer's webhook asks of patches: that they are for what the runtime has.
    assert replicated_job(manifest)["name"] == container(manifest)["name"] == NODE


def test_every_field_is_one_that_trainer_knows(manifest):
    validate(manifest)
    assert manifest["apiVersion"] == "trainer.kubeflow.org/v1alpha1"
    assert manifest["kind"] == "TrainJob"
    assert manifest["spec"]["runtimeRef"] == {"name": "jax-distributed"}


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        (lambda m: m["spec"], "trainr", {}),
        (lambda m: m["spec"]["runtimeRef"], "names", "jax-distributed"),
        (lambda m: m["spec"]["trainer"], "numNode", 2),
        (lambda m: m["spec"]["trainer"], "numNodes", "two"),
        (lambda m: m["spec"]["trainer"], "args", "--config=quickstart"),
        (lambda m: m["spec"]["trainer"]["resourcesPerNode"], "limit", {}),
        (pod, "terminationGracePeriod", 120),
        (pod, "terminationGracePeriodSeconds", "120"),
        (replicated_job, "name", "train"),
        (container, "name", "train"),
        (lambda m: container(m)["volumeMounts"][0], "path", "/dev/shm"),
    ],
)
def test_a_slip_in_the_manifest_would_be_found(manifest, place, key, value):
    spoilt = copy.deepcopy(manifest)
    place(spoilt)[key] = value
    with pytest.raises((AssertionError, ValueError)):
        validate(spoilt)


def pods(manifest):
    """Each pod's command and environment, as Trainer's runtime for JAX makes them."""
    name, trainer = manifest["metadata"]["name"], manifest["spec"]["trainer"]
    for index in range(trainer["numNodes"]):
        environment = {entry["name"]: entry["value"] for entry in trainer.get("env", [])}
        environment |= {
            "JAX_NUM_PROCESSES": str(trainer["numNodes"]),
            "JAX_PROCESS_ID": str(index),
            "JAX_COORDINATOR_ADDRESS": f"{name}-{NODE}-0-0.{name}:{PORT}",
            "JAX_COORDINATOR_PORT": str(PORT),
        }
        yield trainer["command"] + trainer["args"], environment


def test_its_pods_train_together(manifest, user, train_flags, free_port, tmp_path):
    # What a user sets. There is no bucket here.
    manifest = copy.deepcopy(manifest)
    few = "--config.training.num_updates=20"
    manifest["spec"]["trainer"]["args"] = [*train_flags(tmp_path / "run"), few]
    port = free_port()
    processes = []
    for command, environment in pods(manifest):
        # The first pod's name is known only to a cluster's DNS.
        address = environment["JAX_COORDINATOR_ADDRESS"]
        environment["JAX_COORDINATOR_ADDRESS"] = address.replace(
            f"charlstm-node-0-0.charlstm:{PORT}", f"127.0.0.1:{port}"
        )
        processes.append(
            subprocess.Popen(command, env=user | environment, stderr=subprocess.PIPE, text=True)
        )
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "devices: 2 × cpu in 2 processes" in said[0]
    assert checkpoints(tmp_path / "run")[-1] == 20
