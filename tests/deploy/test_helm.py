"""The chart: linted, and rendered with every switch on and off into objects that three Kubernetes versions take.

No cluster is at hand: custom resources of operators are looked at here, not validated by their own schemas.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import utils as schemas

from libs.common.contracts.usage import UsageSampled
from libs.common.service import queue_name
from libs.common.settings import Settings, variable_of
from libs.common.telemetry import is_wanted
from services.cli.run import SERVICES
from tools.schemas import compose

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "tides"
VERSIONS = ("1.31", "1.34", "1.37")
CUSTOM = {"ServiceMonitor", "ScaledObject", "TriggerAuthentication", "Cluster", "RabbitmqCluster"}
KEYS = ("installation_id", "sealing_keys", "verify_keys", "signing_key", "bootstrap_admin_token")
DIGEST = "sha256:" + "a" * 64
STORES = {"database": {"existingSecret": "stores"}, "bus": {"existingSecret": "stores"}}
LEAST: dict[str, Any] = {"keys": {"existingSecret": "keys"}, **STORES}
OFF = {
    **LEAST,
    "migration": {"enabled": False},
    "networkPolicy": {"enabled": False},
    "topologySpread": {"enabled": False},
    "serviceAccount": {"create": False},
    "defaults": {"disruptionBudget": False},
}
ON = {
    "image": {"digest": DIGEST, "pullSecrets": [{"name": "pull"}]},
    "keys": {"values": dict.fromkeys(KEYS, "x")},
    "database": {"by": "cloudnativepg", "cloudnativepg": {"storageClass": "fast", "imageName": "pg:17"}},
    "bus": {"by": "operator", "operator": {"storageClass": "fast"}},
    "boinc": {"url": "https://tides.example.org/boinc/", "signingKey": "1024\nab"},
    "tracing": {"endpoint": "http://collector.monitoring:4318", "ratio": 0.1},
    "defaults": {"autoscaling": {"enabled": True}, "nodeSelector": {"a": "b"},
                 "tolerations": [{"key": "k", "operator": "Exists"}], "podAnnotations": {"a": "b"}},
    "services": {"workload": {"keda": {"enabled": True}}, "monitor": {"keda": {"enabled": True}}},
    "podSecurity": {"runAsUser": 12345, "fsGroup": 12345},
    "ingress": {"enabled": True, "className": "nginx", "host": "tides.example.org", "tlsSecret": "tls",
                "annotations": {"a": "b"}},
    "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}]},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
}  # fmt: skip
BY_URL = {
    "keys": {"existingSecret": "keys"},
    "database": {"url": "postgresql://tides:x@db/tides"},
    "bus": {"url": "amqps://tides:x@mq/"},
}
CASES = {"least": LEAST, "off": OFF, "on": ON, "by url": BY_URL}


@pytest.fixture(scope="module")
def chart() -> Iterator[Any]:
    with helm.Chart.load(CHART) as loaded:
        yield loaded


@pytest.fixture(scope="module", autouse=True)
def read_once() -> Iterator[None]:
    """Kubernetes' schemas are large, and the library reads them anew for each object."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schemas, "schema_contents", cache(schemas.schema_contents))
        yield


def render(chart: Any, values: dict[str, Any]) -> list[dict[str, Any]]:
    """Every object, notes left out."""
    rendered = chart.render(values, name="lab", namespace="science")
    texts = [text for path, text in rendered.items() if path.endswith(".yaml")]
    return [found for text in texts for found in yaml.safe_load_all(text) if found]


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one for one in objects if one["kind"] == kind}


@pytest.mark.parametrize("case", CASES)
def test_rendered_objects_are_valid_in_three_versions_and_linted_strictly(chart: Any, case: str) -> None:
    report = helm.lint(CHART, CASES[case], strict=True, kube_version="v1.34.0")
    assert [one for one in report["messages"] if one["severity"] > 1] + (report["errors"] or []) == []
    objects = render(chart, CASES[case])
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(set(names)) == len(names)
    for one in objects:
        if one["kind"] not in CUSTOM:
            for version in VERSIONS:
                kubernetes_validate.validate(one, version, strict=True)


def pods(objects: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]
        for one in objects
        if one["kind"] in ("Deployment", "Job")
    }


@pytest.mark.parametrize("case", CASES)
def test_every_pod_is_shut_in_and_knows_only_its_secrets(chart: Any, case: str) -> None:
    known = {variable_of(name) for name in Settings.model_fields}
    found = pods(render(chart, CASES[case]))
    assert {f"lab-{service}" for service in SERVICES} <= found.keys()
    for name, pod in found.items():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        (container,) = pod["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        told = {item["name"]: item["value"] for item in container["env"]}
        assert {name.removesuffix("_FILE") for name in told if not name.startswith("OTEL_")} <= known
        assert is_wanted(told) == (case == "on")
        paths = {value.rpartition("/")[2] for key, value in told.items() if key.endswith("_FILE")}
        sources = next(volume for volume in pod["volumes"] if volume["name"] == "secrets")["projected"][
            "sources"
        ]
        assert paths == {item["path"] for source in sources for item in source["secret"]["items"]}
        assert ("signing_key" in paths) == (name == "lab-identity")
        if name != "lab-migrate":
            assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
            assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
            assert pod["terminationGracePeriodSeconds"] > 20


def test_the_switches_switch(chart: Any) -> None:
    least, off, on = (render(chart, values) for values in (LEAST, OFF, ON))
    assert {"PodDisruptionBudget", "NetworkPolicy", "Job", "ServiceAccount"} <= {one["kind"] for one in least}
    assert {one["kind"] for one in off} == {"Deployment", "Service"}
    assert {one["spec"]["replicas"] for one in of_kind(least, "Deployment").values()} == {1, 2}
    assert not any("replicas" in one["spec"] for one in of_kind(on, "Deployment").values())
    assert {pod["containers"][0]["image"] for pod in pods(on).values()} == {f"tides@{DIGEST}"}
    assert of_kind(on, "HorizontalPodAutoscaler").keys() == {
        f"lab-{service}" for service in SERVICES if service not in ("monitor", "workload")
    }
    job = of_kind(on, "Job")["lab-migrate"]
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "post-install,pre-upgrade"
    assert not of_kind(on, "Secret").keys() & {"lab-stores"}


def test_consumers_scale_on_their_queue_and_monitors_on_resources(chart: Any) -> None:
    on = render(chart, ON)
    scaled = of_kind(on, "ScaledObject")
    (queue,), (resources,) = (scaled[name]["spec"]["triggers"] for name in ("lab-workload", "lab-monitor"))
    assert queue["metadata"]["queueName"] == queue_name("workload", UsageSampled.key)
    table, column = re.findall(r"from monitor\.(\w+) where not (\w+)", resources["metadata"]["query"])[0]
    (monitor,) = [service for service in compose() if service.name == "monitor"]
    assert column in monitor.metadata.tables[table].columns
    given = {
        name: one["spec"]["secretTargetRef"] for name, one in of_kind(on, "TriggerAuthentication").items()
    }
    assert given == {
        "lab-workload": [
            {"parameter": "host", "name": "lab-rabbitmq-default-user", "key": "connection_string"}
        ],
        "lab-monitor": [{"parameter": "connection", "name": "lab-postgres-app", "key": "uri"}],
    }
    assert of_kind(on, "Cluster")["lab-postgres"]["spec"]["bootstrap"]["initdb"]["owner"] == "tides"
    assert of_kind(on, "RabbitmqCluster")["lab-rabbitmq"]["spec"]["replicas"] == 3
    assert of_kind(on, "ServiceMonitor")["lab"]["spec"]["endpoints"][0]["path"] == "/metrics"


def test_every_address_of_the_services_is_routed_to_its_service(chart: Any) -> None:
    (rule,) = of_kind(render(chart, ON), "Ingress")["lab"]["spec"]["rules"]
    routed = {path["path"]: path["backend"]["service"]["name"] for path in rule["http"]["paths"]}
    assert routed == {
        path: f"lab-{service.name}"
        for service in compose()
        for path in (*service.prefixes, f"/v1/{service.name}")
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"image": {"digest": "latest"}},
        {"services": {"harbour": {}}},
        {"services": {"stats": {"keda": {"enabled": True}}}},
        {"database": {"url": "mysql://db/"}},
        {"settings": {"SEALING_KEYS": "k1:abc"}},
        {"bus": {"operator": {"replicas": 2}}},
        {"keys": {"existingSecret": ""}},
    ],
    ids=str,
)
def test_wrong_values_are_refused(chart: Any, wrong: dict[str, Any]) -> None:
    merged = {**LEAST, **{key: {**LEAST.get(key, {}), **value} for key, value in wrong.items()}}
    with pytest.raises(helm.HelmError):
        render(chart, merged)
