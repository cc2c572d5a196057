#!/usr/bin/env python3
"""A note whose application joins what was written at the same time itself.

Under `multi-value` every text is kept until a write has seen it. A plain GET shows the newest; MERIDIAN.SIBLINGS lists
all. Where there are several, this application joins them line by line, says whose line is whose, and writes the result
back: that write has seen all of them, so it replaces them everywhere.

    meridian demo --with policies.toml
    python3 note.py
"""

import difflib

import redis
from regions import Regions


def siblings(connection, key):
    """The texts alive with the region where each was written, oldest first."""
    # As maps, or in RESP2 as names and values in turn.
    maps = (reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2]))
            for reply in connection.execute_command("MERIDIAN.SIBLINGS", key))
    return [(sibling["origin"], sibling["value"]) for sibling in maps]


def joined(one, other):
    """Both texts: lines that both have once, all others with their author."""
    (_, old), (author, new) = one, other
    lines = []
    old, new = old.splitlines(), new.splitlines()
    for what, i, j, k, l in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if what == "equal":
            lines += old[i:j]
        else:
            lines += [line if line.startswith("[") else f"[{one[0]}] {line}" for line in old[i:j]]
            lines += [line if line.startswith("[") else f"[{author}] {line}" for line in new[k:l]]
    return author, "\n".join(lines)


def read(region, key):
    """The note's text. Several are joined and written back first."""
    with region.pipeline() as pipe:
        while True:
            # A text that arrives between here and EXEC makes it fail: nothing is replaced that was not looked at.
            pipe.watch(key)
            texts = siblings(pipe, key)
            if len(texts) < 2:
                return texts[0][1] if texts else None
            text = texts[0]
            for other in texts[1:]:
                text = joined(text, other)
            try:
                pipe.multi()
                pipe.set(key, text[1])
                pipe.execute()
                return text[1]
            except redis.WatchError:
                continue


regions = Regions.from_arguments(__doc__)
eu, us, ap = regions.all
regions.begin("note:plan")

eu.set("note:plan", "buy tea\nmeet at ten\ncall Bob")
regions.meet()
with regions.apart():
    eu.set("note:plan", "buy tea and milk\nmeet at ten\ncall Bob")
    us.set("note:plan", "buy tea\nmeet at ten\ncall Bob on Monday")
print("kept:", siblings(ap, "note:plan"))
assert len(siblings(ap, "note:plan")) == 2

text = read(ap, "note:plan")
assert text.splitlines() == [
    "[eu] buy tea and milk",
    "[us] buy tea",
    "meet at ten",
    "[eu] call Bob",
    "[us] call Bob on Monday",
], text
regions.meet()
assert regions.same("note:plan", lambda region: region.get("note:plan")) == text
assert all(len(siblings(region, "note:plan")) == 1 for region in regions.all), "the write has replaced what it saw"
