"""The job files of `examples/` can be read by bash and YAML, and start leanpose as its command line is."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml

EXAMPLES = Path(__file__).parents[2] / "examples"


def check_shell(script: str) -> None:
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert not done.stderr
    assert re.search(r"torchrun .*-m leanpose train \"\$\{arguments\[@\]\}\"", script.replace("\\\n", " "))
    assert 'arguments=(--resume "$' in script.replace("RUN", "run")


def test_slurm() -> None:
    script = (EXAMPLES / "train.slurm").read_text()
    check_shell(script)
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", script, re.MULTILINE))
    assert len(options) == script.count("#SBATCH"), "one option a line"
    assert f"--nproc-per-node {options['gpus-per-node']} " in script
    assert options["ntasks-per-node"] == "1", "torchrun starts the processes of a machine"


def test_kubernetes() -> None:
    service, policy, job = yaml.safe_load_all((EXAMPLES / "train.kubernetes.yaml").read_text())
    assert [one["kind"] for one in (service, policy, job)] == ["Service", "NetworkPolicy", "Job"]
    pod = job["spec"]["template"]
    label = pod["metadata"]["labels"]
    assert service["spec"]["selector"] == policy["spec"]["podSelector"]["matchLabels"] == label
    (container,) = pod["spec"]["containers"]
    (script,) = container["args"]
    check_shell(script)
    assert f"--nnodes {job['spec']['completions']} " in script
    assert f"--nproc-per-node {container['resources']['limits']['nvidia.com/gpu']} " in script
    address = f"{job['metadata']['name']}-0.{pod['spec']['subdomain']}:29500"
    assert address in script, "the first pod of the job"
    assert pod["spec"]["subdomain"] == service["metadata"]["name"]
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
