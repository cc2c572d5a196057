"""The container image and the compose file, as far as they can be checked where nothing builds or runs containers."""

import pathlib
import re
import shlex
import shutil
import tomllib
import unittest

import yaml

from harness import CHART, EXAMPLES, MERIDIAN, NAMES, ROOT, TOOLS, directory, run

DOCKERFILE = (ROOT / "proxy/Dockerfile").read_text()
# What the base image brings along: the C library, and what programs of GCC and LLVM need beside it.
IN_THE_IMAGE = {"ld-linux-x86-64.so.2", "libc.so.6", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "libdl.so.2"}


def instructions():
    """Each instruction and its argument."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.M))
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def layers():
    """The steps of the first stage: copies and the commands between them."""
    build = []
    for word, argument in instructions():
        if word == "FROM" and build and not argument.endswith("AS build"):
            break
        if word in ("COPY", "RUN"):
            build.append((word, argument))
    return build


class Image(unittest.TestCase):
    def copied(self, home, argument):
        *sources, target = shlex.split(argument)
        for source in sources:
            found, to = ROOT / source, home / target
            if found.is_dir():
                shutil.copytree(found, to, dirs_exist_ok=True)
            else:
                to = to / found.name if target.endswith(("/", ".")) or to.is_dir() else to
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(found, to)

    def test_both_layers_have_all_that_cargo_needs(self):
        with directory() as home:
            builds = 0
            for word, argument in layers():
                if word == "COPY":
                    self.copied(home, argument)
                    continue
                # All but the build itself, whose place cargo's reading of the workspace takes.
                steps = [step.strip() for step in argument.split("&&")]
                for step in steps:
                    if not step.startswith(("cargo", "strip")):
                        run("sh", "-ec", step, cwd=home)
                self.assertTrue(any("--locked" in step for step in steps))
                run("cargo", "metadata", "--locked", "--format-version", "1", cwd=home)
                builds += 1
            self.assertEqual(builds, 2, "one layer for others' code and one for ours")
            included = [found for path in home.rglob("*.rs") if "tests" not in path.parts
                        for found in re.findall(r'^\s*include_(?:str|bytes)!\("([^"]+)"', path.read_text(), re.M)
                        if not (path.parent / found).exists() and "golden" not in found]
            self.assertEqual(included, [])

    def test_the_context_has_what_is_copied(self):
        ignored = (ROOT / "proxy/Dockerfile.dockerignore").read_text().split()
        self.assertEqual(ignored[0], "*")
        sources = {source for word, argument in layers() if word == "COPY" for source in shlex.split(argument)[:-1]}
        self.assertEqual({f"!{source}" for source in sources}, set(ignored[1:]))

    def test_the_base_has_all_libraries_of_the_program(self):
        needed = set(re.findall(r"(\S+\.so\.\d+)(?= \(| =>)", run("ldd", MERIDIAN).stdout))
        needed = {pathlib.Path(name).name for name in needed if "vdso" not in name}
        self.assertIn("libc.so.6", needed)
        self.assertLessEqual(needed, IN_THE_IMAGE)

    def test_it_runs_as_the_chart_and_the_manifest_of_cargo_want_it(self):
        told = dict(instructions())
        values = yaml.safe_load((CHART / "values.yaml").read_text())
        self.assertEqual(told["USER"], f"{values['runAsUser']}:{values['runAsGroup']}")
        self.assertEqual(told["ENTRYPOINT"], '["/usr/local/bin/meridian"]')
        package = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]
        bases = [argument for word, argument in instructions() if word == "FROM"]
        self.assertEqual(bases[0], f"rust:{package['rust-version']}-bookworm AS build")
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
        self.assertEqual(chart["appVersion"], package["version"])


class Compose(unittest.TestCase):
    HOME = EXAMPLES / "compose"

    def test_meridian_accepts_the_regions(self):
        with directory() as home:
            for name in NAMES:
                shutil.copy(self.HOME / f"{name}.toml", home)
            (home / "password").write_text("open sesame")
            (home / "password").chmod(0o600)
            for name in NAMES:
                self.assertIn("topology: ring", run(MERIDIAN, "check", "--config", home / f"{name}.toml").stdout)

    def test_compose_s_own_parser_accepts_the_file(self):
        told = run(TOOLS / "compose", "compose.yaml", cwd=self.HOME)
        resolved = yaml.safe_load(told.stdout)["services"]
        self.assertEqual(resolved["eu"]["stop_grace_period"], "15s")
        for volume in [volume for service in resolved.values() for volume in service["volumes"]]:
            self.assertEqual(volume["type"], "bind")

    def test_services_fit_the_configurations(self):
        services = yaml.safe_load((self.HOME / "compose.yaml").read_text())["services"]
        self.assertEqual(set(services), {"cert", *NAMES, *(f"shop-{name}" for name in NAMES)})
        for name in NAMES:
            config = tomllib.loads((self.HOME / f"{name}.toml").read_text())
            service = services[name]
            self.assertEqual({region["address"] for region in config["regions"]}, {f"{other}:7380" for other in NAMES})
            mounts = dict(volume.split(":")[:2] for volume in service["volumes"])
            self.assertEqual(mounts[f"./{name}.toml"], service["command"][-1])
            self.assertEqual(mounts[f"./data/{name}"], config["data_dir"])
            self.assertIn("/etc/meridian/tls", mounts.values())
            for file in (config["auth"]["password_file"], config["admin"]["token_file"]):
                self.assertEqual(mounts[f"./{file}"], f"/etc/meridian/{file}")
            for port in service["ports"] + services[f"shop-{name}"]["ports"]:
                self.assertTrue(port.startswith("127.0.0.1:"), "nothing is open to the network")
            self.assertIn(f"redis://{name}:6380", services[f"shop-{name}"]["command"])
        for service in services.values():
            self.assertIs(service["read_only"], True)
            self.assertEqual(service["cap_drop"], ["ALL"])


if __name__ == "__main__":
    unittest.main()
