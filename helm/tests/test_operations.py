"""The procedures of docs/operations.md and docs/security.md, done as they are written down."""

import shutil
import unittest

from harness import MERIDIAN, converged, example_trio, linked, run, wait_for


def shows(regions, key, value):
    for region in regions.values():
        wait_for(f"{region.name} shows {key}", lambda region=region: region.db.get(key) == value)


class Restoring(unittest.TestCase):
    def test_the_past_is_restored_everywhere(self):
        regions = self.enterContext(example_trio("ring"))
        for at in range(500):
            regions["us"].db.set(f"key:{at}", f"old {at}")
        regions["eu"].db.incrby("visits", 41)
        shows(regions, "visits", "41")
        shows(regions, "key:499", "old 499")
        backup = regions["eu"].home / "backup"
        self.assertEqual(regions["ap"].stop(), 0)
        shutil.copytree(regions["ap"].data, backup)
        regions["ap"].start()
        linked(regions)
        # The mistake, everywhere.
        regions["us"].db.flushall()
        regions["us"].db.set("key:0", "wrong")
        shows(regions, "key:0", "wrong")
        for region in regions.values():
            self.assertEqual(region.stop(), 0)
            shutil.rmtree(region.data)
        shutil.copytree(backup, regions["ap"].data)
        regions["ap"].start()
        wait_for("the restored region answers", lambda: regions["ap"].db.get("key:0") == "old 0")
        for name in ("eu", "us"):
            regions[name].start()
        linked(regions)
        shows(regions, "key:499", "old 499")
        shows(regions, "visits", "41")
        regions["eu"].db.incr("visits")
        shows(regions, "visits", "42")
        wait_for("all show the same", lambda: converged(regions))
        self.assertEqual(regions["us"].db.dbsize(), 501)

    def test_a_region_that_lost_its_disk_takes_over_a_neighbour_s_state(self):
        regions = self.enterContext(example_trio("ring"))
        regions["eu"].db.set("before", "the loss")
        shows(regions, "before", "the loss")
        regions["eu"].stop()
        shutil.rmtree(regions["eu"].data)
        regions["eu"].start()
        linked(regions)
        shows(regions, "before", "the loss")
        wait_for("all show the same", lambda: converged(regions))


class Certificates(unittest.TestCase):
    def restart_one_by_one(self, regions):
        """As operations.md says: one after the other, each until it is ready and linked."""
        for region in regions.values():
            self.assertEqual(region.stop(), 0)
            region.start()
            linked(regions)
        turn = regions["eu"].db.incr("turn")
        shows(regions, "turn", str(turn))

    def test_renewal_and_a_new_authority_without_a_gap(self):
        regions = self.enterContext(example_trio("ring"))
        tls, new = regions["eu"].home / "tls", regions["eu"].home / "new"
        # Renewal under the same authority, here for fewer days, which the metric shows.
        run(MERIDIAN, "cert", "region", "eu", "--ca", tls, "--out", new, "--days", "100")
        for name in ("eu.pem", "eu.key"):
            (new / name).rename(tls / name)
        before = regions["eu"].sample("meridian_cert_expiry_seconds")
        self.restart_one_by_one(regions)
        self.assertAlmostEqual(before - regions["eu"].sample("meridian_cert_expiry_seconds"), 265 * 86400, delta=3600)
        # Another authority: both are trusted, then identities change, then the old one goes.
        old = (tls / "ca.pem").read_text()
        run(MERIDIAN, "cert", "ca", "--out", new)
        (tls / "ca.pem").write_text(old + (new / "ca.pem").read_text())
        self.restart_one_by_one(regions)
        for name in regions:
            run(MERIDIAN, "cert", "region", name, "--ca", new, "--out", new)
            for file in (f"{name}.pem", f"{name}.key"):
                (new / file).rename(tls / file)
            regions[name].stop()
            regions[name].start()
            linked(regions)
        (tls / "ca.pem").write_text((new / "ca.pem").read_text())
        self.restart_one_by_one(regions)


if __name__ == "__main__":
    unittest.main()
