"""What the tests of chart, rules, dashboard and examples share: tools, regions as processes, and one way to wait."""

import contextlib
import functools
import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

import redis
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHART = ROOT / "helm/meridian"
EXAMPLES = ROOT / "examples"
TESTS = ROOT / "helm/tests"
SHAPES = ("ring", "star", "mesh")
NAMES = ("eu", "us", "ap")
TOOLS = ROOT / "target/tools/bin"
MERIDIAN = pathlib.Path(os.environ.get("MERIDIAN", ROOT / "target/release/meridian"))
KUBERNETES = "1.34.0"
# How long anything may take before a test fails. Machines under load are slow; nothing waits this long when all is well.
DEADLINE = 60.0
# How often a condition is looked at.
POLL = 0.05


def wait_for(what, condition, deadline=DEADLINE):
    """What `condition` returns, as soon as that is true. Its errors of I/O count as not yet."""
    end, error = time.monotonic() + deadline, None
    pause = threading.Event()
    while time.monotonic() < end:
        try:
            if found := condition():
                return found
        except (OSError, redis.RedisError, urllib.error.URLError) as met:
            error = repr(met)
        pause.wait(POLL)
    raise AssertionError(f"not within {deadline:.0f} s: {what}" + (f" (last error: {error})" if error else ""))


def run(*command, check=True, **more):
    """A command's end, with its output as text."""
    told = subprocess.run([str(word) for word in command], capture_output=True, text=True, **more)
    if check and told.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}: {told.returncode}\n{told.stdout}\n{told.stderr}")
    return told


def helm(*arguments, check=True):
    return run(TOOLS / "helm", *arguments, check=check)


def overriding(values):
    """Values as a JSON file's path for `-f`, for as long as the context lasts."""
    return contextlib.nullcontext() if values is None else Written(values)


class Written:
    """A JSON file that is there for as long as the context lasts."""

    def __init__(self, values):
        self.values = values

    def __enter__(self):
        self.file = tempfile.NamedTemporaryFile("w", suffix=".json")
        json.dump(self.values, self.file, ensure_ascii=False)
        self.file.flush()
        return self.file.name

    def __exit__(self, *_):
        self.file.close()


def template(release, *values, more=None, check=True, chart=CHART, extra=()):
    """What `helm template` tells. `values` are files, `more` values on top of them."""
    arguments = ["template", release, chart, "--kube-version", KUBERNETES, *extra]
    for file in values:
        arguments += ["-f", file]
    with overriding(more) as file:
        return helm(*arguments, *(["-f", file] if file else []), check=check)


def objects(text):
    """The objects of rendered manifests, by kind and name."""
    found = [item for item in yaml.safe_load_all(text) if item]
    return {(item["kind"], item["metadata"]["name"]): item for item in found}


@functools.cache
def values_of(shape, region):
    return EXAMPLES / "helm" / shape / f"{region}.yaml"


class Ports:
    """Ports that the system chose, held until they are handed out together, so that none is given twice."""

    def __init__(self, *kinds):
        self.sockets = []
        for kind in kinds:
            held = socket.socket(socket.AF_INET, kind)
            held.bind(("127.0.0.1", 0))
            self.sockets.append(held)

    def take(self):
        ports = [held.getsockname()[1] for held in self.sockets]
        for held in self.sockets:
            held.close()
        return ports


def ports_of(names):
    """For each name, the ports for clients, links and operators."""
    kinds = [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_STREAM] * len(names)
    ports = Ports(*kinds).take()
    return {name: ports[at * 3: at * 3 + 3] for at, name in enumerate(names)}


def identities(directory, names):
    """An authority and an identity for each name, made as the README says."""
    run(MERIDIAN, "cert", "ca", "--out", directory)
    for name in names:
        run(MERIDIAN, "cert", "region", name, "--ca", directory, "--out", directory)


class Region:
    """One running region."""

    def __init__(self, name, ports, command, log, password=None):
        self.name, self.password = name, password
        self.resp, self.link, self.admin = ports
        self.command, self.log = [str(word) for word in command], pathlib.Path(log)
        self.db = redis.Redis(port=self.resp, password=password, decode_responses=True, socket_timeout=10)
        self.start()

    def start(self):
        with open(self.log, "ab") as output:
            self.process = subprocess.Popen(self.command, stdout=output, stderr=output,
                                            stdin=subprocess.DEVNULL, start_new_session=True)

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=10) as answer:
            return answer.read().decode()

    def post(self, path, body):
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.admin}{path}", data=data, method="POST")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read().decode()

    def status(self):
        return json.loads(self.get("/status"))

    def sample(self, series):
        """One number of /metrics; zero where it is not there yet."""
        lines = [line for line in self.get("/metrics").splitlines() if line.startswith(f"{series} ")]
        return float(lines[0].split()[-1]) if lines else 0.0

    def is_linked(self):
        """Ready, and every link is up. A region that has ended will not become so."""
        if self.process.poll() is not None:
            raise AssertionError(f"region {self.name} ended with {self.process.returncode}:\n{self.log.read_text()}")
        status = self.status()
        return status["ready"] and status["links"] and all(link["connected"] for link in status["links"])

    def stop(self):
        """Asks it to end in order; its exit code."""
        self.db.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode


@contextlib.contextmanager
def directory():
    path = pathlib.Path(tempfile.mkdtemp(prefix="meridian-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def linked(regions):
    """Waits until all are ready and linked."""
    for region in regions.values():
        wait_for(f"{region.name} is ready and linked", region.is_linked)
    return regions


def converged(regions):
    """Whether all show the same."""
    return len({region.db.execute_command("MERIDIAN.DIGEST") for region in regions.values()}) == 1


@contextlib.contextmanager
def example_trio(shape, faults=True, more=""):
    """Three processes from the configurations of examples/SHAPE and `more`, on ports of their own, in `home` of each."""
    with directory() as home:
        ports = ports_of(NAMES)
        identities(home / "tls", NAMES)
        regions = {}
        try:
            for at, name in enumerate(NAMES):
                text = (EXAMPLES / shape / f"{name}.toml").read_text()
                for other, known in enumerate(NAMES):
                    for port, base in zip(ports[known], (6381, 7381, 9381)):
                        text = text.replace(f"127.0.0.1:{base + other}", f"127.0.0.1:{port}")
                assert "faults = true" in text or not faults
                config = home / f"{name}.toml"
                config.write_text(text + more)
                command = [MERIDIAN, "serve", "--config", config]
                regions[name] = Region(name, ports[name], command, home / f"{name}.log")
                regions[name].home, regions[name].data = home, home / "data" / name
            yield linked(regions)
        finally:
            for region in regions.values():
                region.stop()
