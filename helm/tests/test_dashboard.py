"""The dashboard and the rules against a real Prometheus that scrapes three regions under a load full of conflicts."""

import contextlib
import json
import math
import re
import socket
import subprocess
import threading
import unittest
import urllib.parse
import urllib.request

import redis
import yaml

from harness import CHART, NAMES, ROOT, Ports, directory, example_trio, wait_for

DASHBOARD = json.loads((CHART / "files/dashboard.json").read_text())
RULES = CHART / "files/rules.yaml"
# What the program exports: a promise of its own tests.
EXPORTED = set((ROOT / "proxy/tests/golden/metric-names.txt").read_text().split())
# Promised names that the program does not export yet. Once it does, a name has to leave this list, and its queries
# have to return data.
PROMISED = set()
# What the load writes there is no JSON, so the hook is called and declines.
HOOKS = '\n[[conflicts]]\nkeys = "hook:*"\npolicy = "hook"\nhook = "json-merge"\n\n[[homes]]\nkeys = "home:*"\nregion = "eu"\nelsewhere = "forward"\n'
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
                    batch.incr(f"home:{key}")
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
        self.assertEqual(len({panel["id"] for panel in DASHBOARD["panels"]}), len(DASHBOARD["panels"]))
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
        cls.regions = cls.enterClassContext(example_trio("ring", more=HOOKS))
        cls.prometheus = Prometheus(cls.enterClassContext(directory()), cls.regions)
        cls.addClassCleanup(cls.prometheus.stop)
        load = Load(cls.regions)
        cls.addClassCleanup(load.stop)

    def test_every_query_of_the_dashboard_returns_data(self):
        # A link that is cut for a while, so that ops take another way and the figures of that move.
        self.cut("eu", "us", True)
        wait_for("ops go around the cut", lambda: self.prometheus.numbers("sum(meridian_reroutes_total) > 0"))
        self.cut("eu", "us", False)
        asked = 0
        for title, query in queries():
            if metrics_of(query) & PROMISED:
                continue
            asked += 1
            for name, value in VARIABLES.items():
                query = query.replace(name, value)
            # A bare zero that stands in for an absence shows that the query is valid, and no more.
            with self.subTest(title):
                wait_for(f"data for {title}: {query}", lambda query=query: self.prometheus.numbers(query))
        self.assertGreater(asked, 45)

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
