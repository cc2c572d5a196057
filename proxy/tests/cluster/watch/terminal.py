"""Runs a command on a terminal of 100 by 30, makes that small, presses Ctrl-C, and tells as JSON what was written there."""

import fcntl
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time

PATIENCE_SECONDS = 60
TOP, LEFT = b"\x1b[H", b"\x1b[?1049l"

ours, theirs = pty.openpty()
written = b""


def size(columns, lines):
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))


def echoes():
    return bool(termios.tcgetattr(theirs)[3] & termios.ECHO)


def own():
    fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)


def wait_for(what, condition):
    global written
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        ready, _, _ = select.select([ours], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            sys.exit(f"waited in vain for {what}: {written!r}")
        written += os.read(ours, 65536)


size(100, 30)
before = echoes()
child = subprocess.Popen(sys.argv[1:], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, preexec_fn=own)
wait_for("a region that is ready", lambda: "● ready".encode() in written)
wait_for("more of it", lambda: written.count(TOP) >= 4)
during = echoes()
size(40, 10)
large = len(written)
# The first may have been on its way.
wait_for("a small screen", lambda: written[large:].count(TOP) >= 3)
os.write(ours, b"\x03")
wait_for("the screen that was there before", lambda: LEFT in written)
code = child.wait(PATIENCE_SECONDS)
print(json.dumps({"written": written.decode(), "code": code, "echo": [before, during, echoes()]}))
