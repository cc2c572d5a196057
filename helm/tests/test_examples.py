"""The examples: configurations, the shop in three regions, the rehearsal, and the compose file."""

import json
import os
import re
import socket
import subprocess
import sys
import tomllib
import unittest
import urllib.error
import urllib.request

import redis
import yaml

from harness import EXAMPLES, MERIDIAN, NAMES, SHAPES, Ports, converged, directory, example_trio, run, wait_for


class Configurations(unittest.TestCase):
    def test_meridian_accepts_all_nine(self):
        for shape in SHAPES:
            for name in NAMES:
                told = run(MERIDIAN, "check", "--config", EXAMPLES / shape / f"{name}.toml").stdout
                self.assertIn(f"region {name} of cluster example", told)
                self.assertIn(f"topology: {shape}", told)

    def test_the_regions_of_a_shape_agree(self):
        for shape in SHAPES:
            files = [tomllib.loads((EXAMPLES / shape / f"{name}.toml").read_text()) for name in NAMES]
            for file in files:
                self.assertEqual(file["topology"], files[0]["topology"])
                self.assertEqual(file["regions"], files[0]["regions"])

    def test_the_values_files_are_of_the_same_topologies(self):
        for shape in SHAPES:
            for name in NAMES:
                example = tomllib.loads((EXAMPLES / shape / f"{name}.toml").read_text())["topology"]
                values = yaml.safe_load((EXAMPLES / "helm" / shape / f"{name}.yaml").read_text())["config"]["topology"]
                values = {re.sub("([A-Z])", lambda found: "_" + found[1].lower(), key): value for key, value in values.items()}
                self.assertEqual(values, example)


def demo_port(regions):
    """The base of ports that are all free."""
    def free(kind, port):
        with socket.socket(socket.AF_INET, kind) as held:
            try:
                held.bind(("127.0.0.1", port))
            except OSError:
                return False
            return True
    kinds = ((socket.SOCK_STREAM, 0), (socket.SOCK_DGRAM, 1000), (socket.SOCK_STREAM, 3000))
    return next(base for base in range(21000, 29000, 16)
                if all(free(kind, base + more + at) for kind, more in kinds for at in range(regions)))


class Visitor:
    """A browser: it keeps its cookie, wherever it goes."""

    def __init__(self):
        self.cookie = None

    def ask(self, url, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | ({"Cookie": self.cookie} if self.cookie else {})
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=10) as answer:
            if cookie := answer.headers.get("Set-Cookie"):
                self.cookie = cookie.split(";")[0]
            text = answer.read().decode()
            return json.loads(text) if answer.headers["Content-Type"].startswith("application/json") else text


class Shop(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.regions = cls.enterClassContext(example_trio("ring"))
        cls.shops = {}
        for name, region in cls.regions.items():
            command = [sys.executable, EXAMPLES / "shop/shop.py", "--port", "0", "--region", name,
                       "--redis", f"redis://127.0.0.1:{region.resp}"]
            shop = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)
            cls.addClassCleanup(cls.stop, shop)
            cls.shops[name] = shop.stdout.readline().split()[-1]

    @staticmethod
    def stop(shop):
        shop.terminate()
        shop.wait()
        shop.stdout.close()

    def cart(self, region, name, visitor=None):
        return (visitor or Visitor()).ask(f"{self.shops[region]}/api/cart/{name}")

    def test_a_cart_that_all_regions_fill_at_once_has_everything(self):
        for turn in range(10):
            for region in NAMES:
                Visitor().ask(f"{self.shops[region]}/api/cart/shared", {"item": "tea"})
        for region in NAMES:
            wait_for(f"{region} has thirty", lambda region=region: self.cart(region, "shared")["cart"] == {"tea": 30})

    def test_visits_are_counted_over_all_regions(self):
        wait_for("all show the same", lambda: converged(self.regions))
        before = self.cart("eu", "nobody")["visits"]
        for region in NAMES:
            for _ in range(5):
                self.cart(region, "nobody")
        wait_for("all visits count", lambda: int(self.regions["ap"].db.get("visits")) >= before + 15)
        wait_for("all show the same", lambda: converged(self.regions))
        self.assertEqual(int(self.regions["us"].db.get("visits")), before + 15)

    def test_a_visitor_who_moves_sees_what_they_did(self):
        visitor = Visitor()
        for turn in range(30):
            here, there = NAMES[turn % 3], NAMES[(turn + 1) % 3]
            visitor.ask(f"{self.shops[here]}/api/cart/mover", {"item": "cake"})
            seen = self.cart(there, "mover", visitor)
            self.assertEqual((seen["cart"], seen["caught_up"]), ({"cake": turn + 1}, True))

    def test_the_page_shows_and_takes_orders_and_refuses_nonsense(self):
        visitor = Visitor()
        self.assertIn("Shop in eu", visitor.ask(f"{self.shops['eu']}/"))
        form = urllib.request.Request(f"{self.shops['eu']}/", b"item=coffee&add=1")
        with urllib.request.urlopen(form, timeout=10) as answer:
            self.assertIn("<td>coffee<td>1", answer.read().decode())
        for body in (b"item=gold&add=1", b"item=tea&add=1000000", b"", b"\xff", b"item=tea&add=x"):
            with self.assertRaises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(urllib.request.Request(f"{self.shops['eu']}/", body), timeout=10)
            self.assertEqual(refused.exception.code, 400)
            refused.exception.close()


class Rehearsal(unittest.TestCase):
    def test_the_demo_comes_through(self):
        """As the README says: nothing but the demo, and the script."""
        base = demo_port(len(NAMES))
        command = [str(MERIDIAN), "demo", "--base-port", str(base)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as demo:
            try:
                while line := demo.stdout.readline():
                    if line.strip() == "ready":
                        break
                ports = {f"{kind}_{name.upper()}": str(base + more + at) for at, name in enumerate(NAMES)
                         for kind, more in (("REDIS", 0), ("ADMIN", 3000))}
                told = run(EXAMPLES / "rehearse", "--auto", env=os.environ | ports, timeout=300).stdout
                self.assertIn("Done: every link is healed.", told)
            finally:
                demo.terminate()

    def rehearse(self, shape):
        with example_trio(shape) as regions:
            ports = {f"REDIS_{name.upper()}": str(region.resp) for name, region in regions.items()}
            ports |= {f"ADMIN_{name.upper()}": str(region.admin) for name, region in regions.items()}
            told = run(EXAMPLES / "rehearse", "--auto", env=os.environ | ports, timeout=300).stdout
            self.assertIn("visits: 10", told)
            self.assertIn("cake 2", told)
            self.assertIn("tea 1", told)
            self.assertIn("1 conflict was counted in eu", told)
            self.assertIn("Done: every link is healed.", told)
            for region in regions.values():
                knobs = json.loads(region.get("/faults"))
                self.assertNotIn("true", json.dumps(knobs).lower().replace('"cut": false', ""))
            self.assertTrue(wait_for("all show the same", lambda: converged(regions)))

    def test_a_ring_comes_through(self):
        self.rehearse("ring")

    def test_a_star_comes_through(self):
        self.rehearse("star")

    def test_a_mesh_comes_through(self):
        self.rehearse("mesh")


class Copying(unittest.TestCase):
    """From a real Redis into a region and back, with data of every type."""

    def copy(self, source, target, *more):
        return run(sys.executable, EXAMPLES / "copy-from-redis", "--from", source, "--to", target, *more, check=False)

    def fill(self, db):
        pipe = db.pipeline(transaction=False)
        for at in range(1000):
            pipe.set(f"string:{at}", bytes([at % 256]) * (at % 50))
            pipe.hset(f"hash:{at % 300}", mapping={f"field {at}": at, b"\xff": b"\x00\r\n"})
            pipe.sadd(f"set:{at % 300}", f"member {at}")
            pipe.zadd(f"zset:{at % 300}", {f"member {at}": at / 7, "infinite": float("-inf")})
            if at % 3 == 0:
                pipe.expire(f"string:{at}", 3600 + at)
        pipe.execute()

    def test_redis_is_copied_into_all_regions_and_back(self):
        with directory() as home, example_trio("ring") as regions:
            [port] = Ports(socket.SOCK_STREAM).take()
            server = subprocess.Popen(["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(home)],
                                      stdout=subprocess.DEVNULL)
            try:
                old = redis.Redis(port=port)
                wait_for("Redis answers", old.ping)
                self.fill(old)
                source, target = f"redis://127.0.0.1:{port}/0", f"redis://127.0.0.1:{regions['eu'].resp}/0"
                self.assertIn("copied 1900 keys", self.copy(source, target).stdout)
                old.delete("string:5", "hash:5")
                old.set("hash:6", "now a string")
                old.persist("string:3")
                self.assertIn("0 keys differ", (told := self.copy(source, target, "--exact")).stdout)
                self.assertIn("copied 2 keys", told.stdout)
                self.assertIn("deleted 2 keys", told.stdout)
                self.assertEqual(told.returncode, 0)
                self.assertIn("copied 0 keys", self.copy(source, target, "--exact").stdout)
                wait_for("all regions show the same", lambda: converged(regions))
                self.assertEqual(regions["ap"].db.dbsize(), old.dbsize())
                self.assertEqual(redis.Redis(port=regions["ap"].resp).hgetall("hash:7"), old.hgetall("hash:7"))
                self.assertGreater(regions["ap"].db.ttl("string:999"), 3600)
                old.rpush("list", 1)
                told = self.copy(source, target, "--exact")
                self.assertEqual(told.returncode, 1)
                self.assertIn("not copied: 1 keys of type list", told.stderr)
                old.flushall()
                self.assertIn("0 keys differ", self.copy(target, source, "--exact").stdout)
                self.assertEqual(regions["eu"].db.dbsize(), old.dbsize())
            finally:
                server.terminate()
                server.wait()


if __name__ == "__main__":
    unittest.main()
