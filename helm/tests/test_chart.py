"""The chart, with a real Helm: what it renders, and what it refuses."""

import json
import re
import shutil
import tomllib
import unittest

import yaml

from harness import (CHART, EXAMPLES, KUBERNETES, MERIDIAN, NAMES, ROOT, SHAPES, TESTS, TOOLS, directory, helm, objects,
                     overriding, run, template, values_of)

# Everything that is off by default.
EVERYTHING = {
    "metrics": {name: {"enabled": True} for name in ("serviceMonitor", "prometheusRule", "dashboard")},
    "tls": {"existingSecret": "", "certManager": {"enabled": True, "issuerRef": {"name": "regions"}}},
    "link": {"type": "NodePort", "nodePort": 30380},
    "hooks": {"existingConfigMap": "hooks"},
    "admin": {"existingSecret": "operators", "key": "t.txt"}, "config": {"admin": {"metrics": "token"}},
    "imagePullSecrets": [{"name": "pull"}],
    "image": {"digest": "sha256:" + "0" * 64},
    "nodeSelector": {"disk": "fast"}, "tolerations": [{"operator": "Exists"}], "priorityClassName": "high",
    "affinity": {"nodeAffinity": {}}, "podLabels": {"team": "shop"}, "podAnnotations": {"note": "x"},
    "serviceAccount": {"annotations": {"note": "x"}}, "service": {"annotations": {"note": "x"}},
    "persistence": {"storageClass": "fast", "annotations": {"note": "x"}},
    "networkPolicy": {"clients": [{"namespaceSelector": {"matchLabels": {"team": "shop"}}}],
                      "monitoring": [{"namespaceSelector": {}}], "peers": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
}

# What is refused: values on top of an example, and words of the refusal.
REFUSALS = {
    "an unknown key": ({"config": {"cluter": "shop"}}, "cluter"),
    "an unknown key of a table": ({"config": {"log": {"fsync": "always"}}}, "fsync"),
    "an inline password": ({"auth": {"password": "open sesame"}}, "password"),
    "an inline password in the configuration": ({"config": {"auth": {"password": "open sesame"}}}, "password"),
    "a password where its file belongs": ({"config": {"auth": {"passwordFile": "open sesame"}}}, "passwordFile"),
    "an inline token": ({"admin": {"token": "open sesame"}}, "token"),
    "an inline token in the configuration": ({"config": {"admin": {"token": "open sesame"}}}, "token"),
    "a token where its file belongs": ({"config": {"admin": {"tokenFile": "open sesame"}}}, "tokenFile"),
    "metrics for nobody": ({"config": {"admin": {"metrics": "token"}}}, "admin.existingSecret"),
    "a ServiceMonitor without the token": ({"config": {"admin": {"metrics": "token", "tokenFile": "/run/token"}},
                                            "metrics": {"serviceMonitor": {"enabled": True}}}, "admin.existingSecret"),
    "metrics that do not exist": ({"config": {"admin": {"metrics": "closed"}}}, "metrics"),
    "an inline key": ({"tls": {"key": "-----BEGIN PRIVATE KEY-----"}}, "key"),
    "a key where its file belongs": ({"config": {"tls": {"key": "-----BEGIN PRIVATE KEY-----\nMC4C\n"}}}, "/config/tls/key"),
    "an inline authority": ({"tls": {"ca": "-----BEGIN CERTIFICATE-----"}}, "ca"),
    "a password in the store's address": ({"config": {"store": {"kind": "redis", "url": "redis://:sesame@h:1"}}}, "url"),
    "a region that is not one": ({"config": {"region": "EU"}}, "region"),
    "a region that is not a member": ({"config": {"region": "sa"}}, "not among config.regions"),
    "no cluster": ({"config": {"cluster": ""}}, "cluster"),
    "a shape that does not exist": ({"config": {"topology": {"shape": "circle"}}}, "shape"),
    "no shape": ({"config": {"topology": {"shape": "", "order": []}}}, "required with two or more"),
    "a ring without its order": ({"config": {"topology": {"order": []}}}, "order"),
    "a ring that misses a region": ({"config": {"topology": {"order": ["eu", "us"]}}}, "each of config.regions once"),
    "a hub in a ring": ({"config": {"topology": {"hub": "eu"}}}, "hub"),
    "a star without a hub": ({"config": {"topology": {"shape": "star", "order": []}}}, "hub"),
    "a hub that is not a member": ({"config": {"topology": {"shape": "star", "order": [], "hub": "sa"}}}, "not among"),
    "a feed of one": ({"config": {"topology": {"shape": "custom", "order": [], "feeds": [["eu"]]}}}, "feeds"),
    "an address without a port": ({"config": {"regions": [{"name": "eu", "address": "example.net"}]}}, "address"),
    "a region twice": ({"config": {"regions": [{"name": "eu"}, {"name": "eu", "role": "leader"}]}}, "twice"),
    "a role that does not exist": ({"config": {"regions": [{"name": "eu", "role": "hub"}]}}, "role"),
    "a size without a unit": ({"config": {"store": {"memoryMax": "1024"}}}, "memoryMax"),
    "a size as a number": ({"config": {"store": {"memoryMax": 1024}}}, "memoryMax"),
    "a size in Kubernetes' units": ({"config": {"store": {"memoryMax": "1Gi"}}}, "memoryMax"),
    "a duration without a unit": ({"config": {"log": {"retention": "24"}}}, "retention"),
    "a sync that does not exist": ({"config": {"log": {"sync": "sometimes"}}}, "sync"),
    "a policy that does not exist": ({"config": {"conflicts": [{"keys": "*", "policy": "best"}]}}, "policy"),
    "a hook without a hook": ({"config": {"conflicts": [{"keys": "*", "policy": "hook"}]}}, "hook"),
    "a shadow that does not exist": ({"config": {"conflicts": [{"keys": "*", "policy": "crdt", "shadow": {"policy": "best"}}]}}, "shadow"),
    "a home that does what nobody knows": ({"config": {"homes": [{"keys": "*", "region": "eu", "elsewhere": "ask"}]}}, "elsewhere"),
    "no clients at all": ({"config": {"limits": {"maxClients": 0}}}, "maxClients"),
    "a host name to listen on": ({"config": {"listen": {"resp": "localhost:6380"}}}, "resp"),
    "clients without a password": ({"auth": {"existingSecret": ""}}, "auth.existingSecret"),
    "links without TLS": ({"tls": {"existingSecret": ""}}, "mutual TLS"),
    "two sources of certificates": ({"tls": {"certManager": {"enabled": True}}}, "exclude each other"),
    "fault knobs for everyone": ({"config": {"dev": {"faults": True}}}, "loopback"),
    "an admin port that probes do not reach": ({"config": {"listen": {"admin": "127.0.0.1:9380"}}}, "probes"),
    "a grace shorter than the drain": ({"terminationGracePeriodSeconds": 10}, "terminationGracePeriodSeconds"),
    "less memory than hot objects": ({"resources": {"limits": {"memory": "2Gi"}}}, "memoryMax"),
    "a volume without room for the log": ({"persistence": {"size": "10Gi"}}, "retentionMax"),
    "root": ({"runAsUser": 0}, "runAsUser"),
    "a TCP port out of range": ({"service": {"port": 65536}}, "port"),
    "a port to listen on out of range": ({"config": {"listen": {"link": "0.0.0.0:65536"}}}, "link"),
    "a port of a peer out of range": ({"config": {"regions": [{"name": "eu", "address": "eu.example.net:70000"}]}}, "address"),
    "a node's port out of range": ({"link": {"type": "NodePort", "nodePort": 80}}, "nodePort"),
    "a port as text": ({"service": {"port": "6380"}}, "port"),
    "one port twice": ({"config": {"listen": {"admin": "0.0.0.0:6380"}}}, "same port"),
    "no memory at all": ({"config": {"store": {"memoryMax": "0MiB"}}}, "memoryMax"),
    "no retention at all": ({"config": {"log": {"retention": "0s"}}}, "retention"),
    "a duration as a number": ({"config": {"clock": {"maxSkew": 500}}}, "maxSkew"),
    "text for a switch": ({"config": {"seed": {"staleReads": "yes"}}}, "staleReads"),
    "more than all of the time": ({"config": {"seed": {"donorShare": 101}}}, "donorShare"),
    "a request beyond the limit": ({"resources": {"requests": {"memory": "64Gi"}}}, "more than the limit"),
    "a size that Kubernetes does not know": ({"persistence": {"size": "50GiB"}}, "size"),
    "data where nothing can be written": ({"config": {"dataDir": "/etc/meridian/data"}}, "read-only"),
    "data beside a path": ({"config": {"dataDir": "data"}}, "dataDir"),
    "a module without its ConfigMap": (
        {"config": {"conflicts": [{"keys": "*", "policy": "hook", "hook": "/etc/meridian/hooks/x.wasm"}]}}, "existingConfigMap"),
    "a renewal before the beginning": ({"tls": {"certManager": {"duration": "24h", "renewBefore": "48h"}}}, "shorter than duration"),
    "an image by no digest": ({"image": {"digest": "latest"}}, "digest"),
    "a log of no known form": ({"logging": {"format": "xml"}}, "format"),
    "an interval without a unit": ({"metrics": {"serviceMonitor": {"interval": "15"}}}, "interval"),
    "several regions in one": ({"replicas": 3}, "replicas"),
    "a budget beyond the pod": ({"podDisruptionBudget": {"maxUnavailable": 2}}, "maxUnavailable"),
    "a sidecar in no pod": ({"mode": "sidecar"}, "selectorLabels"),
    "a mode that does not exist": ({"mode": "daemonset"}, "mode"),
}


def pods(found):
    """The specs of all pods of rendered objects."""
    for (kind, _), item in found.items():
        if kind == "Pod":
            yield item["spec"]
        elif kind == "StatefulSet":
            yield item["spec"]["template"]["spec"]


def all_renderings():
    """Every rendering that is tested: its name and the manifests."""
    for shape in SHAPES:
        for region in NAMES:
            yield f"{shape}/{region}", template(f"meridian-{region}", values_of(shape, region)).stdout
    yield "everything", template("meridian-eu", values_of("ring", "eu"), more=EVERYTHING).stdout
    yield "sidecar", sidecar()


def sidecar():
    with directory() as home:
        chart = home / "sidecar"
        shutil.copytree(EXAMPLES / "helm/sidecar", chart, ignore=shutil.ignore_patterns("charts", "Chart.lock"))
        description = (chart / "Chart.yaml").read_text()
        repository = "file://../../../helm/meridian"
        assert repository in description
        (chart / "Chart.yaml").write_text(description.replace(repository, f"file://{CHART}"))
        helm("dependency", "build", chart)
        helm("lint", "--strict", "--kube-version", KUBERNETES, chart)
        return template("shop", chart=chart).stdout


class Rendering(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.renderings = dict(all_renderings())

    def test_helm_lints_every_values_file(self):
        for shape in SHAPES:
            for region in NAMES:
                helm("lint", "--strict", "--kube-version", KUBERNETES, CHART, "-f", values_of(shape, region))
        with overriding(EVERYTHING) as more:
            helm("lint", "--strict", "--kube-version", KUBERNETES, CHART, "-f", values_of("ring", "eu"), "-f", more)

    def test_manifests_are_of_the_kubernetes_api(self):
        with directory() as home:
            for name, text in self.renderings.items():
                (home / f"{name.replace('/', '-')}.yaml").write_text(text)
            told = run(TOOLS / "kubeconform", "-strict", "-summary", "-schema-location",
                       f"{TESTS}/schemas/{{{{ .ResourceKind }}}}.json", *home.glob("*.yaml"))
        self.assertRegex(told.stdout, r"Valid: [1-9]\d+, Invalid: 0, Errors: 0, Skipped: 0")

    def test_the_schemas_refuse_what_the_api_does_not_know(self):
        text = self.renderings["ring/eu"].replace("enableServiceLinks:", "enableServicLinks:")
        told = run(TOOLS / "kubeconform", "-strict", "-schema-location", f"{TESTS}/schemas/{{{{ .ResourceKind }}}}.json",
                   input=text, check=False)
        self.assertIn("enableServicLinks", told.stdout)
        self.assertNotEqual(told.returncode, 0)

    def test_what_is_there(self):
        kinds = {kind for kind, _ in objects(self.renderings["ring/eu"])}
        self.assertEqual(kinds, {"ConfigMap", "NetworkPolicy", "Pod", "PodDisruptionBudget", "Service", "ServiceAccount",
                                 "StatefulSet"})
        everything = {kind for kind, _ in objects(self.renderings["everything"])}
        self.assertEqual(everything - kinds, {"Certificate", "PrometheusRule", "ServiceMonitor"})
        self.assertIn(("ConfigMap", "meridian-eu-dashboard"), objects(self.renderings["everything"]))

    def test_pods_are_restricted(self):
        for name, text in self.renderings.items():
            for spec in pods(objects(text)):
                with self.subTest(name):
                    self.is_restricted(spec)

    def is_restricted(self, spec):
        """The restricted level of the Pod Security Standards, with a read-only root and no token on top."""
        self.assertIs(spec["automountServiceAccountToken"], False)
        of_pod = spec["securityContext"]
        self.assertIs(of_pod["runAsNonRoot"], True)
        self.assertGreater(of_pod["runAsUser"], 0)
        self.assertEqual(of_pod["seccompProfile"], {"type": "RuntimeDefault"})
        self.assertFalse({"hostNetwork", "hostPID", "hostIPC"} & spec.keys())
        for volume in spec.get("volumes", []):
            self.assertTrue({"configMap", "secret"} & volume.keys(), volume)
        for container in spec["containers"] + spec.get("initContainers", []):
            context = container["securityContext"]
            self.assertIs(context["allowPrivilegeEscalation"], False)
            self.assertIs(context["readOnlyRootFilesystem"], True)
            self.assertEqual(context["capabilities"], {"drop": ["ALL"]})
            self.assertIn("memory", container["resources"]["limits"])
            self.assertNotIn("privileged", context)
            self.assertFalse([entry for entry in container.get("env", []) if "valueFrom" in entry], "secrets are files")

    def test_secrets_are_for_the_group_alone(self):
        for text in self.renderings.values():
            for spec in pods(objects(text)):
                for volume in spec.get("volumes", []):
                    if "secret" in volume:
                        self.assertEqual(volume["secret"]["defaultMode"], 0o440)

    def test_secrets_reach_a_running_process(self):
        """As directories, which the kubelet swaps; a file of its own (subPath) would stay as it was."""
        for name, text in self.renderings.items():
            for spec in pods(objects(text)):
                secrets = {volume["name"] for volume in spec.get("volumes", []) if "secret" in volume}
                for container in spec["containers"] + spec.get("initContainers", []):
                    for mount in container.get("volumeMounts", []):
                        self.assertFalse({"subPath", "subPathExpr"} & mount.keys(), name)
                        if mount["name"] in secrets:
                            self.assertIs(mount["readOnly"], True)
        # What is rendered does not depend on what a Secret holds, so a new one restarts nothing.
        templates = "".join(path.read_text() for path in (CHART / "templates").rglob("*") if path.is_file())
        self.assertIsNone(re.search(r"\blookup\b", templates))

    def test_a_region_may_be_evicted_and_keeps_away_from_the_others(self):
        found = objects(self.renderings["ring/eu"])
        budget = found["PodDisruptionBudget", "meridian-eu"]["spec"]
        pod = found["StatefulSet", "meridian-eu"]["spec"]["template"]
        self.assertEqual((budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]), (1, "AlwaysAllow"))
        self.assertLessEqual(budget["selector"]["matchLabels"].items(), pod["metadata"]["labels"].items())
        [spread] = pod["spec"]["topologySpreadConstraints"]
        self.assertLessEqual(spread["labelSelector"]["matchLabels"].items(), pod["metadata"]["labels"].items())
        self.assertEqual((spread["topologyKey"], spread["whenUnsatisfiable"]), ("kubernetes.io/hostname", "ScheduleAnyway"))
        self.assertEqual(found["StatefulSet", "meridian-eu"]["spec"]["replicas"], 1)

    def test_who_may_talk_to_a_region(self):
        policy = objects(self.renderings["everything"])["NetworkPolicy", "meridian-eu"]["spec"]
        by_port = {rule["ports"][0]["port"]: rule["from"] for rule in policy["ingress"]}
        self.assertEqual(by_port, {"resp": EVERYTHING["networkPolicy"]["clients"], "admin": EVERYTHING["networkPolicy"]["monitoring"],
                                   "link": EVERYTHING["networkPolicy"]["peers"]})
        self.assertIn({"port": 7380, "protocol": "UDP"}, [port for rule in policy["egress"] for port in rule["ports"]])

    def test_prometheus_finds_the_admin_service_and_says_who_speaks(self):
        found = objects(self.renderings["everything"])
        monitor, service = found["ServiceMonitor", "meridian-eu"]["spec"], found["Service", "meridian-eu-admin"]
        self.assertLessEqual(monitor["selector"]["matchLabels"].items(), service["metadata"]["labels"].items())
        [endpoint] = monitor["endpoints"]
        self.assertEqual((endpoint["path"], endpoint["port"]), ("/metrics", service["spec"]["ports"][0]["name"]))
        self.assertEqual({rule["targetLabel"]: rule["replacement"] for rule in endpoint["relabelings"]},
                         {"meridian_cluster": "shop", "meridian_region": "eu"})

    def test_probes_and_grace(self):
        spec = next(pods(objects(self.renderings["ring/eu"])))
        proxy = spec["containers"][0]
        paths = {kind: proxy[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
        self.assertEqual(paths, {"startup": "/healthz", "readiness": "/readyz", "liveness": "/healthz"})
        self.assertGreater(spec["terminationGracePeriodSeconds"], 10)

    def test_memory_follows_memory_max(self):
        for size, limit in (("64MiB", 512 + 80 + 128), ("2GiB", 512 + 80 + 4096), ("64GiB", 512 + 80 + 131072)):
            text = template("m", values_of("ring", "eu"), more={"config": {"store": {"memoryMax": size}}}).stdout
            proxy = next(pods(objects(text)))["containers"][0]
            self.assertEqual(proxy["resources"]["limits"]["memory"], f"{limit}Mi")

    def test_links_reach_a_region_that_is_not_ready_and_clients_do_not(self):
        found = objects(self.renderings["ring/eu"])
        link = found["Service", "meridian-eu-link"]["spec"]
        self.assertIs(link["publishNotReadyAddresses"], True)
        self.assertEqual((link["type"], link["ports"][0]["protocol"]), ("LoadBalancer", "UDP"))
        self.assertNotIn("publishNotReadyAddresses", found["Service", "meridian-eu"]["spec"])

    def test_a_certificate_names_the_region_for_both_sides(self):
        spec = objects(self.renderings["everything"])["Certificate", "meridian-eu"]["spec"]
        self.assertEqual(spec["dnsNames"], ["eu"])
        self.assertLessEqual({"server auth", "client auth"}, set(spec["usages"]))
        self.assertEqual(spec["privateKey"], {"algorithm": "Ed25519", "encoding": "PKCS8", "rotationPolicy": "Always"})
        self.assertEqual(spec["issuerRef"], {"name": "regions", "kind": "Issuer", "group": "cert-manager.io"})
        pod = next(pods(objects(self.renderings["everything"])))
        [mounted] = [volume["secret"]["secretName"] for volume in pod["volumes"] if volume["name"] == "meridian-tls"]
        self.assertEqual(spec["secretName"], mounted)
        config = tomllib.loads(objects(self.renderings["everything"])["ConfigMap", "meridian-eu"]["data"]["meridian.toml"])
        self.assertEqual(config["tls"], {"ca": "/etc/meridian/tls/ca.crt", "cert": "/etc/meridian/tls/tls.crt",
                                         "key": "/etc/meridian/tls/tls.key"})

    def test_the_token_is_mounted_and_handed_to_prometheus(self):
        found = objects(self.renderings["everything"])
        spec = found["StatefulSet", "meridian-eu"]["spec"]["template"]["spec"]
        volume = {"name": "meridian-admin", "secret": {"secretName": "operators", "defaultMode": 0o440}}
        self.assertIn(volume, spec["volumes"])
        mount = {"name": "meridian-admin", "mountPath": "/etc/meridian/admin", "readOnly": True}
        self.assertIn(mount, spec["containers"][0]["volumeMounts"])
        config = tomllib.loads(found["ConfigMap", "meridian-eu"]["data"]["meridian.toml"])
        self.assertEqual(config["admin"], {"token_file": "/etc/meridian/admin/t.txt", "metrics": "token"})
        [endpoint] = found["ServiceMonitor", "meridian-eu"]["spec"]["endpoints"]
        credentials = {"name": "operators", "key": "t.txt"}
        self.assertEqual(endpoint["authorization"], {"type": "Bearer", "credentials": credentials})
        more = {"metrics": {"serviceMonitor": {"enabled": True}}, "admin": {"existingSecret": "operators"}}
        found = objects(template("meridian-eu", values_of("ring", "eu"), more=more).stdout)
        [endpoint] = found["ServiceMonitor", "meridian-eu"]["spec"]["endpoints"]
        self.assertNotIn("authorization", endpoint, "what is open is told no secret")

    def test_the_sidecar_is_in_the_application_s_pod(self):
        found = objects(self.renderings["sidecar"])
        spec = found["StatefulSet", "shop"]["spec"]["template"]["spec"]
        self.assertEqual([c["name"] for c in spec["initContainers"]], ["meridian", "meridian-reload"])
        self.assertEqual({c["restartPolicy"] for c in spec["initContainers"]}, {"Always"})
        self.assertNotIn(("StatefulSet", "shop-meridian"), found)
        labels = found["StatefulSet", "shop"]["spec"]["template"]["metadata"]["labels"]
        self.assertEqual(found["Service", "shop-meridian-link"]["spec"]["selector"], labels)
        self.assertNotIn(("Service", "shop-meridian"), found, "clients are in the pod alone")


class Refusing(unittest.TestCase):
    def test_nonsense_is_refused_by_name(self):
        for name, (values, words) in REFUSALS.items():
            with self.subTest(name):
                told = template("meridian-eu", values_of("ring", "eu"), more=values, check=False)
                self.assertNotEqual(told.returncode, 0, told.stdout)
                self.assertIn(words, told.stderr)

    def test_a_secret_is_refused_and_not_repeated(self):
        for values in ({"auth": {"password": "open sesame"}}, {"tls": {"key": "sesame"}}, {"admin": {"token": "sesame"}}):
            told = template("meridian-eu", values_of("ring", "eu"), more=values, check=False)
            self.assertNotIn("sesame", told.stderr + told.stdout)


class Configuration(unittest.TestCase):
    def rendered(self, more=None, shape="ring", region="eu"):
        found = objects(template(f"meridian-{region}", values_of(shape, region), more=more).stdout)
        pod = found["StatefulSet", f"meridian-{region}"]["spec"]["template"]["metadata"]
        text = found["ConfigMap", f"meridian-{region}"]["data"]["meridian.toml"]
        return text, pod["annotations"]["meridian/config-checksum"]

    def test_values_are_the_keys_of_the_configuration_one_by_one(self):
        source = (ROOT / "proxy/src/config/file.rs").read_text()
        declared = source[source.index("tables! {"):]
        tables = {name: re.findall(r"(\w+): ([\w<>]+),", body)
                  for name, body in re.findall(r"\b(\w+File) \{([^}]*)\}", declared)}

        def camel(name):
            first, *rest = name.split("_")
            return first + "".join(word.capitalize() for word in rest)

        def tree(table):
            return {camel(key): tree(kind) if kind in tables else None for key, kind in tables[table]}

        def shape_of(values):
            return {key: shape_of(value) if isinstance(value, dict) else None for key, value in values.items()}

        values = yaml.safe_load((CHART / "values.yaml").read_text())["config"]
        self.assertEqual(tree("ConfigFile"), shape_of(values),
                         "a key of the configuration belongs into values.yaml and values.schema.json")

    def test_the_schema_knows_every_value_and_no_other(self):
        schema = json.loads((CHART / "values.schema.json").read_text())
        values = yaml.safe_load((CHART / "values.yaml").read_text())

        def resolved(node):
            return schema["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node

        def compare(at, node, value):
            node = resolved(node)
            if isinstance(value, dict) and "properties" in node:
                # Of a probe there may be more than the defaults say.
                known = set(node["properties"]) & set(value) if at.startswith("values.probes.") else set(node["properties"])
                self.assertEqual(known, set(value), at)
                self.assertIs(node["additionalProperties"], False, at)
                for key, inner in value.items():
                    compare(f"{at}.{key}", node["properties"][key], inner)
        # Helm's own, and that of charts that depend on this one.
        for name in ("global", "enabled"):
            schema["properties"].pop(name)
        compare("values", schema, values)

    def test_defaults_are_those_of_the_configuration(self):
        text, _ = self.rendered()
        rendered = tomllib.loads(text)
        documented = tomllib.loads((ROOT / "proxy/src/config/example.toml").read_text())
        for table in ("limits", "clock", "seed", "anti_entropy", "inbox", "admin"):
            self.assertEqual(rendered[table], documented[table])
        self.assertEqual(rendered["log"], documented["log"])
        self.assertEqual(rendered["topology"]["heal_after"], documented["topology"]["heal_after"])

    def test_every_value_arrives_as_it_is(self):
        patterns = ["profile:*", 'quo"te\\slash', "<a&b>", "h\u00e9llo \U0001f600", "tab\t", "{{ .Release.Name }}", "'"]
        shadow = {"policy": "hook", "hook": "max"}
        more = {"config": {"conflicts": [{"keys": keys, "policy": "crdt", "shadow": shadow} for keys in patterns],
                           "limits": {"maxClients": 999999},
                           "topology": {"shape": "custom", "order": [],
                                        "feeds": [["eu", "us"], ["us", "ap"], ["ap", "eu"]]}}}
        rendered = tomllib.loads(self.rendered(more)[0])
        self.assertEqual([rule["keys"] for rule in rendered["conflicts"]], patterns)
        self.assertTrue(all(rule["shadow"] == shadow for rule in rendered["conflicts"]))
        self.assertEqual(rendered["limits"]["max_clients"], 999999)
        self.assertEqual(rendered["topology"]["feeds"], [["eu", "us"], ["us", "ap"], ["ap", "eu"]])
        self.assertEqual(rendered["auth"], {"password_file": "/etc/meridian/auth/password"})
        self.assertEqual(rendered["regions"][1], {"name": "us", "address": "meridian-us.example.net:7380"})

    def test_meridian_accepts_what_is_rendered(self):
        for shape in SHAPES:
            for region in NAMES:
                with self.subTest(f"{shape}/{region}"), directory() as home:
                    (home / "password").write_text("open sesame")
                    (home / "password").chmod(0o600)
                    text = self.rendered(shape=shape, region=region)[0]
                    config = home / "meridian.toml"
                    config.write_text(text.replace("/etc/meridian/auth/", f"{home}/"))
                    self.assertIn(f"region {region} of cluster shop", run(MERIDIAN, "check", "--config", config).stdout)

    def test_only_what_needs_a_restart_restarts(self):
        before = self.rendered()[1]
        address = yaml.safe_load(values_of("ring", "eu").read_text())["config"]["regions"]
        address[1]["address"] = "elsewhere.example.net:7380"
        star = {"shape": "star", "order": [], "hub": "eu"}
        changes = {
            "conflicts": {"conflicts": [{"keys": "*", "policy": "lww"}]},
            "homes": {"homes": [{"keys": "lock:*", "region": "eu", "elsewhere": "forward"}]},
            "regions": {"regions": address},
            "topology.shape": {"topology": {"shape": "mesh", "order": []}},
            "topology.order": {"topology": {"order": ["eu", "ap", "us"]}},
            "topology.hub": {"topology": star},
            "topology.standby_hubs": {"topology": star | {"standbyHubs": ["us"]}},
            "topology.feeds": {"topology": {"shape": "custom", "order": [], "feeds": [["eu", "us"], ["us", "ap"], ["ap", "eu"]]}},
        }
        source = (ROOT / "proxy/src/region/membership.rs").read_text()
        changeable = re.search(r"const CHANGEABLE: [^=]*= \[(.*?)\];", source, re.S)[1]
        self.assertEqual(set(changes), set(re.findall(r'"([^"]+)"', changeable)), "what a reload puts in force")
        for name, change in changes.items():
            with self.subTest(name):
                text, checksum = self.rendered({"config": change})
                self.assertNotEqual(text, self.rendered()[0])
                self.assertEqual(before, checksum)
        reloaded = {"config": changes["topology.shape"]}
        for restarting in ({"config": {"store": {"memoryMax": "3GiB"}}}, {"config": {"topology": {"healAfter": "9s"}}}):
            self.assertNotEqual(before, self.rendered(restarting)[1])
        off = {"reload": {"enabled": False}}
        self.assertNotEqual(self.rendered(off)[1], self.rendered(off | reloaded)[1])

    def test_the_notes_tell_what_comes_next(self):
        # Helm prints notes only for a cluster: here they are rendered as a manifest of a copy.
        with directory() as home:
            chart = home / "meridian"
            shutil.copytree(CHART, chart)
            (chart / "templates/NOTES.txt").rename(chart / "files/notes")
            manifest = 'kind: Notes\nmetadata: {name: notes}\ntext: |\n{{ tpl (.Files.Get "files/notes") . | indent 2 }}\n'
            (chart / "templates/notes.yaml").write_text(manifest)
            for link, reached in (("LoadBalancer", "loadBalancer.ingress"), ("NodePort", "nodePort"),
                                  ("ClusterIP", "meridian-eu-link.default.svc:7380")):
                found = objects(template("meridian-eu", values_of("ring", "eu"), more={"link": {"type": link}}, chart=chart).stdout)
                notes = found["Notes", "notes"]["text"]
                for words in ("Region eu of cluster shop, a ring of 3", "rollout status statefulset/meridian-eu",
                              "create secret generic meridian-eu-identity", "for Secret meridian-clients", "helm test meridian-eu", "meridian-eu.default.svc:6380", "meridian status --watch", reached):
                    self.assertIn(words, notes)


if __name__ == "__main__":
    unittest.main()
