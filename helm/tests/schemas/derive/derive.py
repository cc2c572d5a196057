#!/usr/bin/env python3
"""Writes the schemas beside this directory anew, from Go modules: run it to take up a newer version of an API.

Kubernetes' own kinds come from the OpenAPI document of k8s.io/kubernetes, cert-manager's from its resource
definitions, the Prometheus operator's from its Go types (main.go). Unknown fields are refused everywhere.
"""

import json
import pathlib
import subprocess

import yaml

HERE = pathlib.Path(__file__).resolve().parent
KUBERNETES = "k8s.io/kubernetes@v1.34.0"
CERT_MANAGER = "github.com/cert-manager/cert-manager@v1.19.0"
KINDS = {
    "ConfigMap": "io.k8s.api.core.v1.ConfigMap",
    "NetworkPolicy": "io.k8s.api.networking.v1.NetworkPolicy",
    "Pod": "io.k8s.api.core.v1.Pod",
    "PodDisruptionBudget": "io.k8s.api.policy.v1.PodDisruptionBudget",
    "Service": "io.k8s.api.core.v1.Service",
    "ServiceAccount": "io.k8s.api.core.v1.ServiceAccount",
    "StatefulSet": "io.k8s.api.apps.v1.StatefulSet",
}
OPEN = {"io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["string", "number"]},
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["string", "integer"]}}


def module(name):
    told = subprocess.run(["go", "mod", "download", "-json", name], check=True, capture_output=True, text=True)
    return pathlib.Path(json.loads(told.stdout)["Dir"])


def plain(schema):
    """Without prose and extensions, and closed to unknown fields."""
    if isinstance(schema, list):
        return [plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["string", "integer"]}
    out = {}
    for key, value in schema.items():
        if key == "properties":
            out[key] = {name: plain(item) for name, item in value.items()}
        elif key not in ("description", "default") and not key.startswith("x-kubernetes"):
            out[key] = plain(value)
    if "properties" in out:
        out.setdefault("additionalProperties", False)
    return out


def references(schema):
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"].rsplit("/", 1)[1]
        schema = list(schema.values())
    if isinstance(schema, list):
        for item in schema:
            yield from references(item)


def kubernetes():
    document = json.loads((module(KUBERNETES) / "api/openapi-spec/swagger.json").read_text())
    definitions = {name: OPEN.get(name, plain(schema)) for name, schema in document["definitions"].items()}
    for kind, root in KINDS.items():
        needed, todo = {}, [root]
        while todo:
            name = todo.pop()
            if name not in needed:
                needed[name] = definitions[name]
                todo.extend(references(definitions[name]))
        yield kind, {"$ref": f"#/definitions/{root}", "definitions": dict(sorted(needed.items()))}


def cert_manager():
    path = module(CERT_MANAGER) / "deploy/crds/cert-manager.io_certificates.yaml"
    schema = plain(yaml.safe_load(path.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"].pop("additionalProperties", None)
    yield "Certificate", schema


def prometheus_operator():
    for kind in ("ServiceMonitor", "PrometheusRule"):
        told = subprocess.run(["go", "run", ".", kind], cwd=HERE, check=True, capture_output=True, text=True)
        yield kind, json.loads(told.stdout)


for source in (kubernetes, cert_manager, prometheus_operator):
    for kind, schema in source():
        text = json.dumps(schema, indent=None, separators=(",", ":"), sort_keys=True)
        (HERE.parent / f"{kind.lower()}.json").write_text(text + "\n")
        print(kind, len(text))
