"""Every alert, with Prometheus' own unit tests: one case in which it fires and one in which it does not."""

import unittest

import yaml

from harness import CHART, directory, run

RULES = CHART / "files/rules.yaml"
WHO = 'meridian_cluster="shop",meridian_region="eu"'

# For each alert: series that make it fire and series that do not, over three hours of minutes, and the labels it has.
CASES = {
    "MeridianConflictStorm": (
        {'meridian_conflicts_total{WHO,kind="field"}': "0+9000x180", 'meridian_conflicts_total{WHO,kind="write_write"}': "0+1x180"},
        {'meridian_conflicts_total{WHO,kind="field"}': "0+5000x180"}, {}),
    "MeridianDivergentRanges": (
        {'meridian_divergent_ranges{WHO,peer="us"}': "0x150 3x30"},
        # Found and mended hours ago.
        {'meridian_divergent_ranges{WHO,peer="us"}': "0x60 3x120"}, {"peer": "us"}),
    "MeridianReseedNear": (
        {'meridian_seconds_until_reseed{WHO,peer="us"}': "12000-60x180"},
        {'meridian_seconds_until_reseed{WHO,peer="us"}': "86400-60x180"}, {"peer": "us"}),
    "MeridianGarbageCollectionBlocked": (
        {'meridian_gc_blocked_by{WHO,region="us"}': "1x180", 'meridian_gc_blocked_by{WHO,region="ap"}': "0x180",
         'meridian_seconds_until_reseed{WHO,peer="us"}': "86400-60x180", 'meridian_seconds_until_reseed{WHO,peer="ap"}': "86400x180"},
        # The region that is furthest away is the last to have everything, and always will be.
        {'meridian_gc_blocked_by{WHO,region="us"}': "1x180", 'meridian_seconds_until_reseed{WHO,peer="us"}': "86400x180",
         'meridian_seconds_until_reseed{WHO,peer="ap"}': "86400-60x180"}, {"region": "us"}),
    "MeridianClockSkew": (
        {'meridian_peer_clock_skew_seconds{WHO,peer="us"}': "0x100 -0.4x80"},
        {'meridian_peer_clock_skew_seconds{WHO,peer="us"}': "0.1x180"}, {"peer": "us"}),
    "MeridianClockRejected": (
        {'meridian_clock_rejected_total{WHO,peer="us"}': "0x176 1x4"},
        {'meridian_clock_rejected_total{WHO,peer="us"}': "5x180"}, {"peer": "us"}),
    "MeridianHomeWithoutLease": (
        {'meridian_homes_without_lease{WHO}': "0x170 1x10"},
        # A move.
        {'meridian_homes_without_lease{WHO}': "0x170 1 0x9"}, {}),
    "MeridianLinkDown": (
        {'meridian_link_up{WHO,peer="us"}': "1x175 0x5", 'meridian_link_up{WHO,peer="ap"}': "1x180"},
        # A reconnect.
        {'meridian_link_up{WHO,peer="us"}': "1x178 0 1"}, {"peer": "us"}),
    "MeridianCertificateExpiry": (
        {"meridian_cert_expiry_seconds{WHO}": "1210000-60x180"},
        {"meridian_cert_expiry_seconds{WHO}": "2592000-60x180"}, {}),
    "MeridianHookQuarantined": (
        {'meridian_hook_quarantined{WHO,hook="cart"}': "0x179 1", 'meridian_hook_quarantined{WHO,hook="max"}': "0x180"},
        # A hook that fails alike everywhere, and one that was released.
        {'meridian_hook_failures_total{WHO,hook="cart",reason="fuel"}': "0+3x180",
         'meridian_hook_quarantined{WHO,hook="cart"}': "1x170 0x10"}, {"hook": "cart"}),
    "MeridianRegionFenced": (
        {'meridian_fenced{WHO,region="us"}': "0x170 1x10", 'meridian_fenced{WHO,region="ap"}': "0x180"},
        {'meridian_fenced{WHO,region="us"}': "1x100 0x80"}, {"region": "us"}),
    "MeridianParkedOps": (
        {"meridian_parked_ops_total{WHO}": "0x170 1x10"},
        {"meridian_parked_ops_total{WHO}": "1x180"}, {}),
    "MeridianLogDiskNearlyFull": (
        {"meridian_disk_available_bytes{WHO}": "40e9-1e9x35 5e9x145", "meridian_disk_capacity_bytes{WHO}": "50e9x180"},
        # Below for the moment of a compaction, and a disk that could not be measured.
        {"meridian_disk_available_bytes{WHO}": "20e9x176 5e9x2 20e9x2", "meridian_disk_capacity_bytes{WHO}": "50e9x180",
         'meridian_disk_available_bytes{meridian_cluster="shop",meridian_region="us"}': "0x180",
         'meridian_disk_capacity_bytes{meridian_cluster="shop",meridian_region="us"}': "0x180"}, {}),
    "MeridianReplicationLag": (
        {'meridian_replication_lag_seconds_bucket{WHO,origin="us",le="10"}': "0x180",
         'meridian_replication_lag_seconds_bucket{WHO,origin="us",le="20"}': "0+60x180",
         'meridian_replication_lag_seconds_bucket{WHO,origin="us",le="+Inf"}': "0+60x180"},
        {'meridian_replication_lag_seconds_bucket{WHO,origin="us",le="1"}': "0+60x180",
         'meridian_replication_lag_seconds_bucket{WHO,origin="us",le="+Inf"}': "0+60x180"}, {"origin": "us"}),
    "MeridianStoreErrors": (
        {"meridian_store_errors_total{WHO}": "0x175 2x5"},
        {"meridian_store_errors_total{WHO}": "2x180"}, {}),
    "MeridianConfigMismatch": (
        {'meridian_config_mismatch{WHO,peer="us",what="topology"}': "1x180"},
        {'meridian_config_mismatch{WHO,peer="us",what="topology"}': "0x170 1x9 0"}, {"peer": "us", "what": "topology"}),
}
# Counters whose first sample is not zero have counted something, too.
BORN = {
    "MeridianDivergentRanges": {'meridian_divergent_ranges{WHO,peer="us"}': "_x170 3x10"},
    "MeridianClockRejected": {'meridian_clock_rejected_total{WHO,peer="us"}': "_x178 1x2"},
}
# When the cases are looked at.
AT = "180m"


def alerts():
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def case(name, series, labels):
    """A test of promtool's. Without labels the alert has to be silent."""
    expected = []
    if labels is not None:
        own = {"severity": alerts()[name]["labels"]["severity"], "meridian_cluster": "shop", "meridian_region": "eu"}
        expected = [{"exp_labels": own | labels}]
    return {"interval": "1m", "input_series": [{"series": at.replace("WHO", WHO), "values": values} for at, values in series.items()],
            "alert_rule_test": [{"eval_time": AT, "alertname": name, "exp_alerts": expected}]}


class Rules(unittest.TestCase):
    def promtool(self, tests):
        """What promtool says of tests, over the rules without prose: it compares annotations, too."""
        with directory() as home:
            rules = yaml.safe_load(RULES.read_text())
            for group in rules["groups"]:
                for rule in group["rules"]:
                    rule.pop("annotations", None)
            (home / "rules.yaml").write_text(yaml.safe_dump(rules))
            (home / "tests.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": tests}))
            return run("promtool", "test", "rules", home / "tests.yaml", check=False)

    def test_promtool_accepts_the_rules(self):
        self.assertIn("SUCCESS", run("promtool", "check", "rules", RULES).stdout)

    def test_every_alert_is_here_and_has_a_runbook(self):
        self.assertEqual(set(alerts()), set(CASES))
        for name, rule in alerts().items():
            self.assertLessEqual({"summary", "runbook"}, set(rule["annotations"]), name)
            self.assertIn(rule["labels"]["severity"], ("warning", "critical"))

    def test_every_alert_is_in_the_runbook_of_the_docs(self):
        text = (CHART.parents[1] / "docs/operations.md").read_text()
        for name in alerts():
            self.assertIn(name, text)

    def test_every_alert_fires_and_is_silent(self):
        for name, (fires, silent, labels) in CASES.items():
            for series, expected in ((fires, labels), (silent, None)):
                with self.subTest(name, fires=expected is not None):
                    told = self.promtool([case(name, series, expected)])
                    self.assertEqual(told.returncode, 0, told.stdout + told.stderr)

    def test_a_counter_that_begins_with_a_count_fires(self):
        for name, series in BORN.items():
            told = self.promtool([case(name, series, CASES[name][2])])
            self.assertEqual(told.returncode, 0, told.stdout + told.stderr)

    def test_a_case_that_is_wrong_fails(self):
        name = "MeridianLinkDown"
        fires, silent, labels = CASES[name]
        self.assertNotEqual(self.promtool([case(name, fires, None)]).returncode, 0)
        self.assertNotEqual(self.promtool([case(name, silent, labels)]).returncode, 0)


if __name__ == "__main__":
    unittest.main()
