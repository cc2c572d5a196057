"""The three regions of `meridian demo --with policies.toml`, cut apart and brought together again."""

import argparse
import contextlib
import itertools
import json
import urllib.request

import redis

NAMES = ["eu", "us", "ap"]
# From a region's port for Redis to the one for operators.
ADMIN_OFFSET = 3000
# How long the regions may take to have each other's writes.
MEET_MS = 30_000


class Regions:
    def __init__(self, base_port):
        self.admin = [base_port + ADMIN_OFFSET + at for at in range(len(NAMES))]
        # One connection each: a token covers what its connection has seen and written.
        self.all = [
            redis.Redis(port=base_port + at, decode_responses=True, single_connection_client=True)
            for at in range(len(NAMES))
        ]

    @classmethod
    def from_arguments(cls, description):
        parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--base-port", type=int, default=6381, help="as of the demo")
        return cls(parser.parse_args().base_port)

    @contextlib.contextmanager
    def apart(self):
        """Nothing passes between the regions in such a block. After it, each has everything."""
        self._cut(True)
        try:
            yield
        finally:
            self._cut(False)
        self.meet()

    def meet(self):
        """Waits until each region has what the others have."""
        for here, there in itertools.permutations(self.all, 2):
            there.execute_command("MERIDIAN.AWAIT", here.execute_command("MERIDIAN.TOKEN"), MEET_MS)

    def begin(self, *keys):
        """Removes what an earlier run has left, everywhere."""
        self.all[0].delete(*keys)
        self.meet()

    def same(self, what, read):
        """What `read` gives in each region, which has to be the same."""
        shown = [read(region) for region in self.all]
        for name, value in zip(NAMES, shown):
            print(f"{name}: {what} is {value!r}")
        assert all(value == shown[0] for value in shown), f"{what} differs"
        return shown[0]

    def _cut(self, cut):
        for (_, admin), (peer, _) in itertools.permutations(zip(NAMES, self.admin), 2):
            body = json.dumps({"peer": peer, "cut": cut}).encode()
            urllib.request.urlopen(f"http://127.0.0.1:{admin}/faults", body, timeout=10).close()
