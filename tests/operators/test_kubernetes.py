"""`contrib/kubernetes`: the manifests are valid, locked down and consistent."""

import json
import re
import shutil
import subprocess
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from tests.daemon.kit import start
from tests.operators import outside
from tests.operators.outside import CONTRIB, ROOT

from distconvd.auth_keys.key_file import add_key
from distconvd.config import Config, load_config
from distconvd.testing.daemon import open_daemon

HERE = CONTRIB / "kubernetes"
SCHEMAS = ROOT / ".tools" / "kubernetes-schemas.zip"
VERSIONS = ("v1.28.0", "v1.32.0", "v1.37.0")
"""Versions of Kubernetes that the manifests are checked against: old, usual, newest available."""
KUSTOMIZATION: dict[str, Any] = outside.documents(HERE / "kustomization.yaml")[0]
RESOURCES = [d for name in KUSTOMIZATION["resources"] for d in outside.documents(HERE / name)]
BY_NAME = {f"{d['kind']}/{d['metadata']['name']}": d for d in RESOURCES}
DAEMON = BY_NAME["StatefulSet/distconvd"]["spec"]["template"]["spec"]
ENGINE = BY_NAME["Deployment/distconv-engine"]["spec"]["template"]["spec"]
PODS = {"daemon": DAEMON, "engine": ENGINE}
KEDA = outside.documents(HERE / "keda.yaml")[0]


@cache
def definitions(version: str) -> dict[str, Any]:
    if not SCHEMAS.exists():
        pytest.skip("Kubernetes' schemas are not here: `python3 tools/operator_tools.py`")
    place = f"kubernetes_validate/kubernetes-json-schema/{version}-local-strict/_definitions.json"
    with zipfile.ZipFile(SCHEMAS) as archive:
        found: dict[str, Any] = json.loads(archive.read(place))["$defs"]
        return found


def faults(document: dict[str, Any], version: str) -> Iterator[str]:
    """Yield the errors of a document by a strict schema: unknown fields are errors, too."""
    group, _, api = document["apiVersion"].rpartition("/")
    group = group.partition(".")[0] or "core"
    name = f"io.k8s.api.{group}.{api}.{document['kind']}"
    schema = {"$ref": f"#/$defs/{name}", "$defs": definitions(version)}
    for error in jsonschema_rs.validator_for(schema).iter_errors(document):
        yield f"{document['kind']} {error.instance_path}: {error.message}"


# --------------------------------------------------------------------------------------- schemas


@pytest.mark.e2e
@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_valid_by_the_strict_schema(version: str) -> None:
    assert [fault for document in RESOURCES for fault in faults(document, version)] == []


def test_the_schema_rejects_an_unknown_field() -> None:
    wrong = json.loads(json.dumps(BY_NAME["StatefulSet/distconvd"]))
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    assert len(list(faults(wrong, VERSIONS[-1]))) == 1


def test_the_kustomization_names_every_manifest() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not here")
    done = subprocess.run(
        [kubectl, "kustomize", str(HERE)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^kind:", done.stdout, re.MULTILINE)) == len(RESOURCES)
    assert done.stdout.count("namespace: distconv") >= len(RESOURCES) - 1


# ------------------------------------------------------------------------------------------ pods


@pytest.mark.parametrize("name", PODS)
def test_a_pod_satisfies_the_restricted_profile(name: str) -> None:
    pod = PODS[name]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert container["resources"]["limits"]["memory"]
    assert {"hostNetwork", "hostPID", "hostIPC"}.isdisjoint(pod)
    assert {"hostPath"}.isdisjoint(kind for volume in pod["volumes"] for kind in volume)


@pytest.mark.parametrize("name", PODS)
def test_a_pod_can_write_where_its_program_writes(name: str) -> None:
    pod = PODS[name]
    mounts = {m["mountPath"]: m for m in pod["containers"][0]["volumeMounts"]}
    place = {"daemon": "/var/lib/distconv", "engine": "/var/lib/distconv-engine"}[name]
    assert not mounts[place].get("readOnly")
    assert "/tmp" in mounts
    text = (CONTRIB / "containers" / f"{name}.Containerfile").read_text()
    assert f"{place}" in text
    known = {volume["name"] for volume in pod["volumes"]} | {"state"}
    assert {m["name"] for m in mounts.values()} <= known


def test_pods_have_more_time_to_stop_than_their_programs_take() -> None:
    settings = tomllib.loads(BY_NAME["ConfigMap/distconvd"]["data"]["distconvd.toml"])
    assert DAEMON["terminationGracePeriodSeconds"] >= settings["drain_s"] + 10
    environ = {e["name"]: e for e in ENGINE["containers"][0]["env"]}
    drain_s = float(environ["DISTCONV_DRAIN_S"]["value"])
    assert ENGINE["terminationGracePeriodSeconds"] >= drain_s + 10
    assert set(environ) <= outside.engine_settings()


async def test_probes_use_routes_that_exist_and_need_no_key() -> None:
    probes = [DAEMON["containers"][0][kind] for kind in ("startupProbe", "livenessProbe")]
    probes.append(DAEMON["containers"][0]["readinessProbe"])
    async with open_daemon() as daemon:
        for probe in probes:
            reply = await daemon.anonymous.get(probe["httpGet"]["path"])
            assert reply.status == 200
    assert DAEMON["containers"][0]["livenessProbe"]["httpGet"]["path"] == "/livez"
    # A store that fails is no reason to start the daemon again.
    assert DAEMON["containers"][0]["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert "livenessProbe" not in ENGINE["containers"][0]
    assert ENGINE["containers"][0]["readinessProbe"]["exec"]["command"][-1] == "engine"


def test_the_daemons_configuration_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "distconvd.toml"
    path.write_text(BY_NAME["ConfigMap/distconvd"]["data"]["distconvd.toml"])
    config: Config = load_config({}, {"DISTCONV_CONFIG": str(path)}).config
    mounts = [m["mountPath"] for m in DAEMON["containers"][0]["volumeMounts"]]
    assert str(config.key_file).rpartition("/")[0] in mounts
    assert str(config.state_file).rpartition("/")[0] in mounts
    assert DAEMON["containers"][0]["args"] == ["--config", "/etc/distconv/distconvd.toml"]
    assert config.host == "0.0.0.0"


# ------------------------------------------------------------------------------ what hangs together


def test_names_labels_ports_and_images_agree() -> None:
    service = BY_NAME["Service/distconvd"]["spec"]
    for kind in ("StatefulSet/distconvd", "Deployment/distconv-engine"):
        spec = BY_NAME[kind]["spec"]
        labels = spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"].items() <= labels.items()
    set_of = BY_NAME["StatefulSet/distconvd"]["spec"]
    assert service["selector"].items() <= set_of["template"]["metadata"]["labels"].items()
    assert set_of["serviceName"] == "distconvd"
    assert set_of["replicas"] == 1
    ports = {p["name"]: p["containerPort"] for p in DAEMON["containers"][0]["ports"]}
    assert ports == {"http": Config().port}
    environ = {e["name"]: e for e in ENGINE["containers"][0]["env"]}
    assert environ["DISTCONV_SERVER"]["value"] == f"http://distconvd:{service['ports'][0]['port']}"
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {image["name"]: image["newTag"] for image in KUSTOMIZATION["images"]}
    assert images == {"distconvd": version, "distconv-engine": version}


def test_the_readme_makes_every_secret_that_a_manifest_uses() -> None:
    text = "\n".join(path.read_text() for path in HERE.glob("*.yaml"))
    asked = set(re.findall(r"secretName: ([\w-]+)", text))
    asked |= set(re.findall(r"\{name: (distconv-[\w-]+), key: key\}", text))
    made = set(re.findall(r"create secret generic ([\w-]+)", (HERE / "README.md").read_text()))
    assert asked == made == {"distconv-keys", "distconv-engine-key", "distconv-prometheus-key"}


def test_the_network_policies_deny_everything_that_they_do_not_name() -> None:
    policies = {name: d["spec"] for name, d in BY_NAME.items() if name.startswith("NetworkPolicy/")}
    shut = policies["NetworkPolicy/nothing-else"]
    assert shut == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    daemon = policies["NetworkPolicy/distconvd"]
    assert daemon["egress"] == []
    (way_in,) = daemon["ingress"]
    assert way_in["ports"] == [{"protocol": "TCP", "port": "http"}]
    engine = policies["NetworkPolicy/distconv-engine"]
    assert engine["ingress"] == []
    outward = [to["ipBlock"] for rule in engine["egress"] for to in rule["to"] if "ipBlock" in to]
    assert "169.254.0.0/16" in outward[0]["except"]  # a cloud's metadata
    assert "10.0.0.0/8" in outward[0]["except"]


async def test_engines_are_scaled_by_metrics_that_the_daemon_exports() -> None:
    (trigger,) = KEDA["spec"]["triggers"]
    asked = set(re.findall(r"distconv_\w+", trigger["metadata"]["query"]))
    async with open_daemon() as daemon:
        text = (await daemon.client.get("/metrics")).body.decode()
    metrics = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert asked == {"distconv_queue_jobs", "distconv_engine_slots_held"}
    assert asked <= metrics
    target = KEDA["spec"]["scaleTargetRef"]
    assert f"{target['kind']}/{target['name']}" in BY_NAME
    assert KEDA["metadata"]["namespace"] == KUSTOMIZATION["namespace"]
    # KEDA's metadata are strings; a number there is refused.
    assert all(isinstance(value, str) for value in trigger["metadata"].values())


@pytest.mark.e2e
def test_a_running_daemon_sees_a_changed_secret(tmp_path: Path) -> None:
    # As a kubelet lays it out: the file is a link into a folder that is a link, which is replaced.
    def lay(version: str) -> str:
        folder = tmp_path / f"..{version}"
        folder.mkdir()
        key = add_key(folder / "keys.json", version, ["read"], 0)
        (folder / "keys.json").chmod(0o440)
        fresh = tmp_path / "..data_tmp"
        fresh.symlink_to(folder.name)
        fresh.replace(tmp_path / "..data")
        return key

    old = lay("first")
    keys = tmp_path / "keys.json"
    keys.symlink_to("..data/keys.json")
    flags = ["--key-file", str(keys), "--set", "plugin.key-file.poll_s=0.05"]
    with start(tmp_path, *flags, key=None) as daemon:

        def status(key: str) -> int:
            return daemon.ask("GET", "/version", headers={"X-API-Key": key})[0]

        assert status(old) == 200
        new = lay("second")
        for _ in range(2000):
            # Wrong keys are slowed down; so the old one is asked about, which was good before.
            if status(old) == 401:
                break
        assert status(new) == 200
