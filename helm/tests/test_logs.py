"""What docs/logs.md says of the program's logs, held against its source."""

import re
import unittest

from harness import ROOT

ROW = re.compile(r"^\| (\w+) \| `([^`]+)` \| (.*?) ?\| (.*?) ?\|$", re.M)
EVENT = re.compile(r'tracing::(\w+)!\(((?:[^";]|"(?:[^"\\]|\\.)*")*?)"((?:[^"\\]|\\.)*)"\s*,?\s*\)', re.S)


def names(cell):
    return re.findall(r"`([^`]+)`", cell)


def fields_of(text):
    """The fields of an event: `a, %b, ?c, d = e`."""
    found, depth, start = [], 0, 0
    for at, letter in enumerate(text + ","):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            found.append(text[start:at])
            start = at + 1
    return {re.match(r"\s*[%?]?(\w+)", field)[1] for field in found if field.strip()}


class Logs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.document = ROW.findall((ROOT / "docs/logs.md").read_text())
        cls.events = {}
        for path in (ROOT / "proxy/src").rglob("*.rs"):
            for level, fields, message in EVENT.findall(path.read_text()):
                cls.events.setdefault(message, []).append((level, fields_of(fields)))

    def test_every_event_of_the_document_is_one_of_the_program(self):
        self.assertGreater(len(self.document), 30)
        for level, message, fields, _ in self.document:
            with self.subTest(message):
                self.assertIn((level, set(names(fields))), self.events.get(message, []))

    def test_every_metric_of_the_document_is_exported(self):
        exported = (ROOT / "proxy/tests/golden/metric-names.txt").read_text().split()
        for _, message, _, metrics in self.document:
            self.assertLessEqual(set(names(metrics)), set(exported), message)

    def test_no_event_has_what_could_be_a_secret(self):
        for message, events in self.events.items():
            for _, fields in events:
                self.assertFalse({"password", "token", "secret", "value", "argument"} & fields, message)


if __name__ == "__main__":
    unittest.main()
