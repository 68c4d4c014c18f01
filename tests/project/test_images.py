"""The image, the compose file and the Kubernetes manifests fit the package and each other."""

import re
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli as ray_cli

from skild_ray.cli import app
from skild_ray.config import load_experiment

REPOSITORY = Path(__file__).parents[2]
DOCKER = REPOSITORY / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
METADATA = ConfigParser()
METADATA.read(REPOSITORY / "setup.cfg")
IMAGE = f"skild-ray:{METADATA['metadata']['version']}"
CLUSTER_KEYS = {
    *("rayVersion", "authOptions", "gcsFaultToleranceOptions", "enableInTreeAutoscaling", "autoscalerOptions"),
    *("headGroupSpec", "workerGroupSpecs"),
}
JOB_KEYS = {
    *("entrypoint", "submissionMode", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished"),
    "rayClusterSpec",
}
GROUP_KEYS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def _manifests(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DOCKER / "kuberay" / name).read_text()))


def _cluster(name: str) -> dict[str, Any]:
    spec: dict[str, Any] = next(m for m in _manifests(name) if m["apiVersion"] == "ray.io/v1")["spec"]
    return spec.get("rayClusterSpec", spec)


def _pinned(package: str) -> str:
    found = re.search(rf"^{package}==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    assert found
    return found[1]


def test_what_the_image_copies_is_there_and_let_through() -> None:
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    for line in re.findall(r"^COPY (?!--from)(?:--\S+ )?(.+)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (REPOSITORY / source).exists(), source
            assert f"!{source}" in ignored, source


def test_the_image_runs_as_a_user_with_the_python_that_is_tested() -> None:
    assert re.search(r"^USER 1000$", DOCKERFILE, re.MULTILINE)
    python = re.search(r"^ARG PYTHON_IMAGE=python:(\d\.\d+)-", DOCKERFILE, re.MULTILINE)
    assert python and METADATA["mypy"]["python_version"] == python[1]


def test_compose_starts_a_head_and_workers_that_share_a_folder_and_a_token() -> None:
    services = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
    assert set(services) == {"head", "worker"}
    for service in services.values():
        assert service["image"] == IMAGE
        assert service["volumes"] == ["shared:/shared"]
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["command"].startswith("ray start ") and service["command"].endswith("--block")
    build = services["head"]["build"]
    assert (DOCKER / build["context"] / build["dockerfile"]).samefile(DOCKER / "Dockerfile")
    assert set(build["args"]) <= set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_kubernetes_clusters(name: str) -> None:
    spec = _cluster(name)
    assert set(spec) <= CLUSTER_KEYS
    assert spec["rayVersion"] == _pinned("ray")
    assert spec["authOptions"] == {"mode": "token"}
    assert len({group["groupName"] for group in spec["workerGroupSpecs"]}) == len(spec["workerGroupSpecs"])
    claims = {m["metadata"]["name"] for m in _manifests("raycluster.yaml") if m["kind"] == "PersistentVolumeClaim"}
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert set(group) <= GROUP_KEYS
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        (container,) = pod["containers"]
        assert container["image"] == IMAGE
        assert container["name"] == ("ray-worker" if "groupName" in group else "ray-head")
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        used = {v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v}
        assert used and used <= claims


def test_the_job_runs_an_experiment_of_the_image() -> None:
    (job,) = _manifests("rayjob.yaml")
    assert set(job["spec"]) <= JOB_KEYS
    program, command, experiment, *options = job["spec"]["entrypoint"].split()
    assert (program, command) == ("skild-ray", "pipeline")
    overrides = [text for option, text in zip(options[::2], options[1::2], strict=True) if option == "--set"]
    assert len(overrides) * 2 == len(options)
    copied = REPOSITORY / Path(experiment).relative_to("/home/ray")
    assert load_experiment(copied, overrides).runs == "/shared/runs"


def test_ray_up_accepts_its_file() -> None:
    config = yaml.safe_load((DOCKER / "ray_up.yaml").read_text())
    validate_config(prepare_config(config))
    assert config["docker"]["image"] == IMAGE


@pytest.mark.parametrize("program", ["ray", "skild-ray"])
def test_documented_commands_exist(program: str) -> None:
    blocks = re.findall(
        r"^```sh\n(.*?)^```", (REPOSITORY / "docs" / "cluster.md").read_text(), re.DOTALL | re.MULTILINE
    )
    words = re.findall(rf"(?:^|-- |\n)\s*{program} (\S+)", "\n".join(blocks).replace("\\\n", ""))
    known: click.Group = typer.main.get_command(app) if program == "skild-ray" else ray_cli
    assert words
    assert set(words) <= set(known.commands)
