"""What the chart renders, running: three processes from the rendered configuration, contained as their pods would be.

Each region has a root of its own with the program, the libraries it needs and the mounts of its container at the paths
of the manifest, read-only but for the volume, and runs as the chart's user without a way to more rights. Only
addresses are replaced.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import unittest

from harness import (EXAMPLES, MERIDIAN, NAMES, Region, converged, directory, identities, linked, objects,
                     ports_of, run, template, values_of, wait_for)

USER = 65532
PASSWORD = "open sesame"
MODULE = (EXAMPLES / "hooks/first-writer.wat").read_bytes()
HOOK = {"hooks": {"existingConfigMap": "hooks"},
        "config": {"conflicts": [{"keys": "first:*", "policy": "hook", "hook": "/etc/meridian/hooks/first.wat"}]}}


def libraries(program):
    """The shared libraries of a program."""
    return [pathlib.Path(path) for path in re.findall(r"(/\S+) \(0x", run("ldd", program).stdout)]


def on_this_machine(text, name, ports):
    """The configuration with this machine's addresses, and nothing else changed."""
    for port, listen in zip(ports[name], (6380, 7380, 9380)):
        text = text.replace(f'"0.0.0.0:{listen}"', f'"127.0.0.1:{port}"')
    for other, (_, link, _) in ports.items():
        text = text.replace(f'"meridian-{other}.example.net:7380"', f'"127.0.0.1:{link}"')
    assert "0.0.0.0" not in text and "example.net" not in text
    return text


class Mounted:
    """A directory as the kubelet mounts it: files are links through ..data, which is swapped as one."""

    def __init__(self, path, owner):
        self.path, self.owner, self.count = path, owner, 0
        path.mkdir(parents=True)

    def fill(self, files, mode=0o644):
        self.count += 1
        generation = self.path / f"..{self.count}"
        generation.mkdir()
        for name, content in files.items():
            file = generation / name
            file.write_bytes(content)
            file.chmod(mode)
            os.chown(file, 0, self.owner)
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")
        (self.path / "..next").symlink_to(generation.name)
        os.rename(self.path / "..next", self.path / "..data")


class Contained:
    """One region in its container."""

    def __init__(self, home, name, manifests, ports, tls):
        self.name, self.ports, self.home = name, ports, home / name
        release = f"meridian-{name}"
        self.spec = manifests["StatefulSet", release]["spec"]["template"]["spec"]
        proxy = next(c for c in self.spec["containers"] if c["name"] == "meridian")
        mounts = {mount["name"]: mount["mountPath"].lstrip("/") for mount in proxy["volumeMounts"]}
        self.root, self.data, self.data_path = self.home / "root", self.home / "data", mounts["data"]
        self.root.mkdir(parents=True)
        shutil.copy2(MERIDIAN, self.root / "meridian")
        for library in libraries(MERIDIAN):
            target = self.root / str(library).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(library, target)
        (self.root / self.data_path).mkdir(parents=True)
        # A volume as the kubelet gives it: the group's, with what a file system puts into its root.
        self.data.mkdir()
        (self.data / "lost+found").mkdir(mode=0o700)
        os.chown(self.data, 0, USER)
        self.data.chmod(0o2775)
        self.config = Mounted(self.root / mounts["meridian-config"], USER)
        self.configure(manifests)
        self.tls = Mounted(self.root / mounts["meridian-tls"], USER)
        self.identify(tls)
        if "meridian-hooks" in mounts:
            self.hooks = Mounted(self.root / mounts["meridian-hooks"], USER)
            self.hooks.fill({"first.wat": MODULE})
        Mounted(self.root / mounts["meridian-auth"], USER).fill({"password": PASSWORD.encode()}, 0o440)
        self.arguments = ["/meridian", *map(str, proxy["args"])]
        self.reload = next(c for c in self.spec["containers"] if c["name"] == "meridian-reload")

    def identify(self, tls):
        """The Secret of the region's identity, new or renewed."""
        self.tls.fill({"ca.crt": (tls / "ca.pem").read_bytes(), "tls.crt": (tls / f"{self.name}.pem").read_bytes(),
                       "tls.key": (tls / f"{self.name}.key").read_bytes()}, 0o440)


    def configure(self, manifests):
        text = manifests["ConfigMap", f"meridian-{self.name}"]["data"]["meridian.toml"]
        self.config.fill({"meridian.toml": on_this_machine(text, self.name, self.ports).encode()})

    def start(self):
        """The pod: the proxy, and beside it in the same space of processes what tells it to reload."""
        script = f"""
        mount --bind {self.root} {self.root}
        mount --bind {self.data} {self.root}/{self.data_path}
        mount -o remount,bind,ro {self.root}
        cd {self.root}
        unshare --setuid {USER} --setgid {USER} "$@" &
        exec unshare --root {self.root} --setuid {USER} --setgid {USER} {' '.join(self.arguments)}
        """
        shell, flag, text, name, _, *directories = self.reload["command"]
        # The shell of the manifest's images is busybox.
        reload = ["busybox", shell, flag, text, name, "0.2", *(self.root / path.lstrip("/") for path in directories)]
        command = ["setpriv", "--no-new-privs", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
                   "sh", "-ec", script, "pod", *reload]
        return Pod(self.name, self.ports[self.name], command, self.home / "log", PASSWORD)


class Pod(Region):
    """Ended through its first process: signals do not pass through unshare."""

    def stop(self):
        self.db.close()
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        if self.process.poll() is None:
            for child in children.read_text().split():
                os.kill(int(child), 15)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        return self.process.returncode


@unittest.skipIf(os.geteuid(), "needs root, to make roots that cannot be written")
class Trio(unittest.TestCase):
    def render(self, shape, name, more=None):
        return objects(template(f"meridian-{name}", values_of(shape, name), more=more).stdout)

    def trio(self, shape, more=None):
        """Three pods of a shape, linked."""
        home = self.enterContext(directory())
        home.chmod(0o711)
        tls, ports, pods, contained = home / "tls", ports_of(NAMES), {}, {}
        identities(tls, NAMES)

        def stop():
            codes = {name: pod.stop() for name, pod in pods.items()}
            self.assertEqual(set(codes.values()), {0}, {name: pod.log.read_text()[-2000:] for name, pod in pods.items()})
        self.addCleanup(stop)
        for name in NAMES:
            contained[name] = Contained(home, name, self.render(shape, name, more), ports, tls)
            pods[name] = contained[name].start()
        return linked(pods), contained

    def replicates(self, pods):
        for name, pod in pods.items():
            self.assertTrue(pod.db.set(f"from:{name}", name))
            pod.db.incrby("visits", 7)
        for name, pod in pods.items():
            for other in pods:
                wait_for(f"{name} has what {other} wrote", lambda pod=pod, other=other: pod.db.get(f"from:{other}") == other)
            wait_for(f"{name} counts all", lambda pod=pod: pod.db.get("visits") == str(7 * len(pods)))
        wait_for("all show the same", lambda: converged(pods))

    def test_a_rendered_ring_replicates(self):
        began = time.monotonic()
        self.replicates(self.trio("ring")[0])
        print(f"from `helm template` to what all three regions wrote, seen in all: {time.monotonic() - began:.1f} s", file=sys.stderr)

    def test_a_rendered_star_replicates(self):
        self.replicates(self.trio("star")[0])

    def test_a_rendered_mesh_is_tested_and_reloaded_as_in_kubernetes(self):
        pods, contained = self.trio("mesh", HOOK)
        self.replicates(pods)
        self.is_contained(contained["eu"], pods["eu"])
        for name, pod in pods.items():
            self.helm_test(name, pod, contained[name])
        self.renews(pods, contained)
        self.takes_a_mended_hook(pods, contained)
        self.reloads(pods, contained)
        self.logs_are_lines_of_json(pods)

    def is_contained(self, contained, pod):
        """That the root was indeed read-only and nothing but the volume was written."""
        [shell] = pathlib.Path(f"/proc/{pod.process.pid}/task/{pod.process.pid}/children").read_text().split()
        status = dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{shell}/status").read_text().splitlines() if ":\t" in line)
        self.assertEqual(status["Uid"].split(), [str(USER)] * 4)
        self.assertEqual(status["CapEff"], "0" * 16)
        self.assertEqual(status["NoNewPrivs"], "1")
        mounts = [line.split() for line in pathlib.Path(f"/proc/{shell}/mountinfo").read_text().splitlines()]
        options = {mount[4]: mount[5].split(",") for mount in mounts}
        self.assertIn("ro", options["/"])
        self.assertIn("rw", options[f"/{contained.data_path}"])
        self.assertEqual({path.name for path in contained.data.iterdir()}, {"lost+found", "clock", "identity.toml", "log", "policies", "store"}
                         | {path.name for path in contained.data.iterdir() if path.suffix == ".lock"})

    def helm_test(self, name, pod, contained):
        """The script of the test hook, with the arguments of the manifest but for addresses."""
        manifest = self.render("mesh", name)["Pod", f"meridian-{name}-test"]
        shell, flag, script, word, host, port, admin, role, password = manifest["spec"]["containers"][0]["command"]
        self.assertEqual((host, port, admin), (f"meridian-{name}", "6380", f"http://meridian-{name}-admin:9380"))
        told = run("busybox", shell, flag, script, word, "127.0.0.1", pod.resp, f"http://127.0.0.1:{pod.admin}", role,
                   contained.root / password.lstrip("/"))
        self.assertIn('"ready":true', told.stdout.replace(" ", ""))
        wrong = run("busybox", shell, flag, script, word, "127.0.0.1", pod.resp, f"http://127.0.0.1:{pod.admin}", role, "", check=False)
        self.assertNotEqual(wrong.returncode, 0, "without its password the test has to fail")

    def renews(self, pods, contained):
        """The kubelet swaps the Secret of one region: its peers meet the new certificate, and no process ends."""
        tls, new = contained["eu"].home.parent / "tls", contained["eu"].home.parent / "renewed"
        run(MERIDIAN, "cert", "region", "eu", "--ca", tls, "--out", new, "--days", "100")
        shutil.copy(tls / "ca.pem", new)
        before = {name: pod.status()["origin"] for name, pod in pods.items()}
        # Of a link the smaller name dials, and it does so anew; the other side waits for the end of the former certificate.
        ended, met = (pods["eu"].sample("meridian_cert_expiry_seconds"),
                      pods["us"].sample('meridian_link_connections_total{peer="eu"}'))
        contained["eu"].identify(new)
        wait_for("eu has renewed", lambda: pods["eu"].sample('meridian_cert_renewals_total{outcome="renewed"}') == 1)
        self.assertAlmostEqual(ended - pods["eu"].sample("meridian_cert_expiry_seconds"), 265 * 86400, delta=3600)
        wait_for("us has met the new certificate",
                 lambda: pods["us"].sample('meridian_link_connections_total{peer="eu"}') > met)
        linked(pods)
        self.assertEqual(before, {name: pod.status()["origin"] for name, pod in pods.items()})

    def takes_a_mended_hook(self, pods, contained):
        """The kubelet swaps the ConfigMap of the modules, and nothing else."""
        def identities_of():
            return {hook["identity"] for pod in pods.values() for hook in pod.status()["hooks"]}
        [before] = identities_of()
        for name in NAMES:
            contained[name].hooks.fill({"first.wat": MODULE + b"\n;; mended\n"})
        wait_for("all have the new module", lambda: before not in (now := identities_of()) and len(now) == 1)

    def logs_are_lines_of_json(self, pods):
        """As the chart asks for them, with the fields that docs/logs.md names."""
        told = {name: [json.loads(line) for line in pod.log.read_text().splitlines()
                       if not line.startswith("the configuration has changed")] for name, pod in pods.items()}
        for name, lines in told.items():
            for line in lines:
                self.assertLessEqual({"timestamp", "level", "target", "message"}, line.keys())
            [started] = [line for line in lines if line["message"] == "started"]
            self.assertEqual((started["region"], started["level"]), (name, "INFO"))
            peers = {line["peer"] for line in lines if line["message"] == "link up"}
            self.assertEqual(peers, set(NAMES) - {name})
            self.assertTrue([line for line in lines if line["message"] == "the membership has changed" and line["shape"]])
        [renewed] = [line for line in told["eu"] if line["message"] == "renewed the certificate"]
        self.assertEqual(renewed["days"], 99)

    def reloads(self, pods, contained):
        """The kubelet swaps the configurations: another shape, no restart."""
        before = {name: pod.status()["origin"] for name, pod in pods.items()}
        self.assertTrue(all(pod.status()["topology"]["shape"].startswith("mesh") for pod in pods.values()))
        for name in NAMES:
            contained[name].configure(self.render("ring", name, HOOK))
        for name, pod in pods.items():
            wait_for(f"{name} is in a ring", lambda pod=pod: pod.status()["topology"]["shape"].startswith("ring"))
        linked(pods)
        self.replicates_more(pods)
        self.assertEqual(before, {name: pod.status()["origin"] for name, pod in pods.items()})

    def replicates_more(self, pods):
        pods["eu"].db.set("after", "the swap")
        for name, pod in pods.items():
            wait_for(f"{name} has what came after", lambda pod=pod: pod.db.get("after") == "the swap")


if __name__ == "__main__":
    unittest.main()
