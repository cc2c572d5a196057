"""The dashboard and the rules against a real Prometheus that scrapes three regions under a load full of conflicts."""

import contextlib
import json
import math
import re
import socket
import subprocess
import threading
import unittest
import urllib.error
import urllib.parse
import urllib.request

import redis
import yaml

from harness import (CHART, MERIDIAN, NAMES, ROOT, Ports, Region, directory, example_trio, ports_of, run, wait_for)

DASHBOARD = json.loads((CHART / "files/dashboard.json").read_text())
RULES = CHART / "files/rules.yaml"
# What the program exports: a promise of its own tests.
EXPORTED = set((ROOT / "proxy/tests/golden/metric-names.txt").read_text().split())
# Promised names that the program does not export yet. Once it does, a name has to leave this list, and its queries
# have to return data.
PROMISED = set()
# A zero in place of nothing is no data. What nothing here moves: a wrong clock, what all regions passed long ago, and a
# state that is given because the logs do not reach back.
UNMOVED = {"meridian_clock_rejected_total", "meridian_reaped_total", "meridian_seed_bytes_total"}
# Some of what the load writes for the hook is no JSON: it is called and declines.
RULES_OF_REGIONS = """
[[conflicts]]
keys = "hook:*"
policy = "hook"
hook = "json-merge"
shadow = { policy = "lww" }

[[homes]]
keys = "home:*"
region = "eu"
elsewhere = "forward"

[[homes]]
keys = "here:*"
region = "eu"
elsewhere = "refuse"

[[homes]]
keys = "there:*"
region = "eu"
elsewhere = "accept"
"""
# Of panels.
UNITS = {"short", "s", "bytes", "Bps", "ops", "cps", "percentunit"}
VARIABLES = {"$cluster": ".*", "$region": ".*", "$__rate_interval": "20s"}


def metrics_of(query):
    """The metrics of a query, as the program names them; what the process collector adds counts as exported."""
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bmeridian_\w+(?=[{\[ )]|$)", query)}
    labels = {"meridian_region", "meridian_cluster"}
    return {name for name in names - labels if not name.startswith("meridian_process_")}


def queries():
    """Every query of the dashboard: its panel's title and its text."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


class Load:
    """Clients of all regions that write the same keys at the same time, until stopped."""

    def __init__(self, regions):
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self.write, args=(region,), daemon=True) for region in regions.values()]
        for thread in self.threads:
            thread.start()

    def write(self, region):
        turn = 0
        while not self.stopped.wait(0.02):
            turn += 1
            with contextlib.closing(region.db.pipeline(transaction=False)) as batch:
                for key in range(5):
                    batch.set(f"string:{key}", f"{region.name} {turn}")
                    batch.set(f"hook:{key}", f"{region.name} {turn}")
                    batch.set(f"hook:json:{key}", json.dumps({region.name: turn}))
                    batch.get(f"hook:json:{key}")
                    batch.incr(f"home:{key}")
                    batch.incr(f"here:{key}")
                    batch.incr(f"there:{key}")
                    batch.hset(f"hash:{key}", "field", f"{region.name} {turn}")
                    batch.sadd(f"set:{key}", turn % 7)
                    batch.srem(f"set:{key}", (turn + 3) % 7)
                    batch.zadd(f"zset:{key}", {"member": turn})
                    batch.incr(f"counter:{key}")
                    batch.delete(f"string:{(key + turn) % 9}")
                    batch.get(f"string:{key}")
                    batch.get(f"hook:{key}")
                try:
                    answers = batch.execute(raise_on_error=False)
                except redis.ConnectionError:
                    # A region that loses its lease between a write and the reply closes the connection.
                    continue
                # A home refuses until others have confirmed it, and while the line is cut.
                wrong = [answer for answer in answers
                         if isinstance(answer, redis.ResponseError) and not str(answer).startswith(("HOME", "UNCERTAIN"))]
                if wrong:
                    raise wrong[0]

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()


class Prometheus:
    """A real one, with the rules of the chart."""

    def __init__(self, home, regions):
        [self.port] = Ports(socket.SOCK_STREAM).take()
        targets = [{"targets": [f"127.0.0.1:{region.admin}"], "labels": {"meridian_cluster": "shop", "meridian_region": name}}
                   for name, region in regions.items()]
        config = {"global": {"scrape_interval": "1s", "evaluation_interval": "1s"}, "rule_files": [str(RULES)],
                  "scrape_configs": [{"job_name": "meridian", "static_configs": targets}]}
        (home / "prometheus.yaml").write_text(yaml.safe_dump(config))
        self.log = open(home / "prometheus.log", "wb")
        self.process = subprocess.Popen(
            ["prometheus", f"--config.file={home}/prometheus.yaml", f"--storage.tsdb.path={home}/data",
             f"--web.listen-address=127.0.0.1:{self.port}"], stdout=self.log, stderr=self.log)

    def ask(self, path, **arguments):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def numbers(self, query):
        """The finite numbers that a query returns now."""
        values = [float(found["value"][1]) for found in self.ask("query", query=query)["result"]]
        return [value for value in values if math.isfinite(value)]

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


class Queries(unittest.TestCase):
    def test_all_metrics_are_exported_or_promised(self):
        self.assertFalse(PROMISED & EXPORTED, "exported by now: take it from PROMISED")
        rules = [rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
        for query in [query for _, query in queries()] + rules:
            self.assertLessEqual(metrics_of(query), EXPORTED | PROMISED, query)

    def test_the_dashboard_shows_what_it_should(self):
        rows = [panel["title"] for panel in DASHBOARD["panels"] if panel["type"] == "row"]
        self.assertEqual(rows, ["Regions", "Links", "Lag by origin", "Conflicts", "Inbox and hooks", "Store and log", "Clocks",
                                "Saturation", "Seeding and anti-entropy", "Home regions"])
        shown = set().union(*(metrics_of(query) for _, query in queries()))
        self.assertEqual(EXPORTED - shown, set(), "a metric that no panel shows")

    def test_every_panel_is_whole(self):
        panels = DASHBOARD["panels"]
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        source = {"type": "prometheus", "uid": "${datasource}"}
        [variable] = [known for known in DASHBOARD["templating"]["list"] if known["type"] == "datasource"]
        self.assertEqual(variable["name"], "datasource")
        for panel in [panel for panel in panels if panel["type"] != "row"]:
            with self.subTest(panel["title"]):
                self.assertTrue(panel["description"].endswith("."))
                self.assertIn(panel["fieldConfig"]["defaults"]["unit"], UNITS)
                self.assertEqual(panel["datasource"], source)
                self.assertEqual(len({target["refId"] for target in panel["targets"]}), len(panel["targets"]))
                for target in panel["targets"]:
                    self.assertEqual(target["datasource"], source)
                    self.assertTrue(target["legendFormat"])
                    for metric in metrics_of(target["expr"]):
                        self.assertRegex(target["expr"], metric + r"\w*{meridian_cluster=~", "the variables choose")

    def test_no_panel_covers_another(self):
        taken = {}
        for panel in DASHBOARD["panels"]:
            place = panel["gridPos"]
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    self.assertLess(x, 24)
                    self.assertIsNone(taken.setdefault((x, y), None), f"{panel['title']} covers {taken[x, y]}")
                    taken[x, y] = panel["title"]


class Live(unittest.TestCase):
    """One Prometheus, three regions, one load."""

    @classmethod
    def setUpClass(cls):
        cls.regions = cls.enterClassContext(example_trio("ring", more=RULES_OF_REGIONS))
        cls.prometheus = Prometheus(cls.enterClassContext(directory()), cls.regions)
        cls.addClassCleanup(cls.prometheus.stop)
        load = Load(cls.regions)
        cls.addClassCleanup(load.stop)

    def test_every_query_of_the_dashboard_returns_data(self):
        # A link that is cut for a while, so that ops take another way and the figures of that move.
        self.cut("eu", "us", True)
        wait_for("ops go around the cut", lambda: self.prometheus.numbers("sum(meridian_reroutes_total) > 0"))
        self.cut("eu", "us", False)
        self.renew_a_certificate()
        self.be_refused()
        self.disturb_a_hook()
        asked = 0
        for title, query in queries():
            if metrics_of(query) & PROMISED:
                continue
            asked += 1
            if not metrics_of(query) & UNMOVED:
                query = query.removesuffix(" or vector(0)")
            for name, value in VARIABLES.items():
                query = query.replace(name, value)
            with self.subTest(title):
                wait_for(f"data for {title}: {query}", lambda query=query: self.prometheus.numbers(query))
        self.assertGreater(asked, 80)

    def moved(self, name):
        wait_for(f"{name} moves", lambda: self.prometheus.numbers(f"sum({name}) > 0"))

    def renew_a_certificate(self):
        eu = self.regions["eu"]
        tls, new = eu.home / "tls", eu.home / "new"
        run(MERIDIAN, "cert", "region", "eu", "--ca", tls, "--out", new, "--days", "100")
        for name in ("eu.pem", "eu.key"):
            (new / name).rename(tls / name)
        self.moved("meridian_cert_renewals_total")

    def be_refused(self):
        """A browser at the ports for clients and operators, and a region of another cluster at the one for links."""
        eu, us = self.regions["eu"], self.regions["us"]
        with socket.create_connection(("127.0.0.1", eu.resp), timeout=10) as browser:
            browser.sendall(b"GET / HTTP/1.1\r\nHost: eu\r\n\r\n")
            self.assertIn(browser.recv(1), (b"", b"-"))
        self.moved("meridian_client_errors_total")
        request = urllib.request.Request(f"http://127.0.0.1:{eu.admin}/reload", data=b"", headers={"Origin": "http://page"})
        with self.assertRaises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        refused.exception.close()
        self.moved("meridian_admin_refusals_total")
        [*ports] = ports_of(["us"])["us"]
        text = (us.home / "us.toml").read_text().replace('"example"', '"other"')
        text = text.replace("data/us", "data/other")
        for old, port in zip((us.resp, us.link, us.admin), ports):
            text = text.replace(f"127.0.0.1:{old}", f"127.0.0.1:{port}")
        self.assertIn('"other"', text)
        (us.home / "other.toml").write_text(text)
        other = Region("us", ports, [MERIDIAN, "serve", "--config", us.home / "other.toml"], us.home / "other.log")
        try:
            self.moved("meridian_link_refusals_total")
        finally:
            other.stop()

    def disturb_a_hook(self):
        self.regions["eu"].post("/faults", {"hooks": "differ"})
        self.moved("meridian_hook_quarantined")
        self.regions["eu"].post("/faults", {"hooks": "no"})

    def test_conflicts_of_every_region_are_counted(self):
        for name in NAMES:
            wait_for(f"conflicts in {name}",
                     lambda name=name: self.prometheus.numbers(f'sum(meridian_conflicts_total{{meridian_region="{name}"}}) > 0'))
        kinds = wait_for("conflicts of several kinds", lambda: self.several("kind"))
        self.assertIn("write_write", kinds)

    def several(self, label):
        found = {sample["metric"].get(label) for sample in self.prometheus.ask("query", query=f"sum by ({label}) (meridian_conflicts_total) > 0")["result"]}
        return found if len(found) > 1 else None

    def test_all_targets_are_scraped_and_all_rules_evaluated(self):
        wait_for("all regions are scraped", lambda: len(self.prometheus.numbers('up{job="meridian"} == 1')) == len(NAMES))

        def evaluated():
            rules = [rule for group in self.prometheus.ask("rules")["groups"] for rule in group["rules"]]
            return rules if rules and all(rule["health"] == "ok" for rule in rules) else None
        rules = wait_for("all rules are evaluated without error", evaluated)
        recorded = [rule["name"] for rule in rules if rule["type"] == "recording"]
        self.assertGreaterEqual(len(recorded), 6)
        for name in recorded:
            wait_for(f"data for {name}", lambda name=name: self.prometheus.numbers(name))

    def cut(self, one, other, is_cut):
        for region, peer in ((one, other), (other, one)):
            self.regions[region].post("/faults", {"peer": peer, "cut": is_cut})


if __name__ == "__main__":
    unittest.main()
