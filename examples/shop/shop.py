#!/usr/bin/env python3
"""A small shop that runs in every region, on that region's own Meridian.

A cart is a hash: fields are items, values are quantities that HINCRBY changes, so two regions that add to one cart
at the same moment both count. The number of visits is one counter for the whole world. Whoever moves from a region to
another, a phone from wi-fi to mobile say, brings along a token in a cookie, and sees there what they did here.

    python3 shop.py --port 8081 --redis redis://127.0.0.1:6381

    GET  /                 a page
    GET  /api/cart/NAME    {"region", "cart": {item: quantity}, "visits"}
    POST /api/cart/NAME    {"item": "tea", "add": 1} (or -1)
"""

import argparse
import html
import http.cookies
import http.server
import json
import urllib.parse

import redis

ITEMS = ["tea", "coffee", "cake"]
# How long a visitor who comes from another region waits for their own writes before they see the page without them.
CATCH_UP_MS = 2000
# The longest request that is read.
BODY_MAX = 4096


class Shop:
    """The shop's data in one region."""

    def __init__(self, url):
        self.pool = redis.ConnectionPool.from_url(url, decode_responses=True)

    def connection(self):
        """A connection of one request's own: a token covers what its connection has seen."""
        return redis.Redis(connection_pool=self.pool, single_connection_client=True)

    def visit(self, name, token, change=None):
        """One request: what is in the cart, the visits, whether the visitor's own past shows, and their new token."""
        with self.connection() as db:
            caught_up = self.catch_up(db, token)
            if change:
                item, add = change
                db.hincrby(f"cart:{name}", item, add)
                visits = int(db.get("visits") or 0)
            else:
                visits = db.incr("visits")
            quantities = db.hgetall(f"cart:{name}")
            cart = {item: int(quantity) for item, quantity in sorted(quantities.items()) if int(quantity) > 0}
            return cart, visits, caught_up, db.execute_command("MERIDIAN.TOKEN")

    @staticmethod
    def catch_up(db, token):
        """Whether this region has all that the token stands for. A token that means nothing counts as none."""
        if not token:
            return True
        try:
            return db.execute_command("MERIDIAN.AWAIT", token, CATCH_UP_MS) == "OK"
        except redis.ResponseError:
            return False


class Page(http.server.BaseHTTPRequestHandler):
    """HTTP around a shop."""

    protocol_version = "HTTP/1.1"
    shop = None
    region = ""

    def do_GET(self):
        if self.path == "/healthz":
            return self.answer(200, "text/plain", "ok\n")
        name = self.cart_name()
        if name is None and self.path != "/":
            return self.answer(404, "text/plain", "no such page\n")
        return self.serve(name)

    def do_POST(self):
        try:
            length = int(self.headers.get("Content-Length", 0))
            if not 0 < length <= BODY_MAX:
                raise ValueError
            body = self.rfile.read(length).decode()
            if self.headers.get("Content-Type", "").startswith("application/json"):
                form = json.loads(body)
            else:
                form = dict(urllib.parse.parse_qsl(body))
            item, add = form["item"], int(form.get("add", 1))
            if item not in ITEMS or add not in (1, -1):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            self.close_connection = True
            return self.answer(400, "text/plain", "an item of the shop, and 1 or -1\n")
        return self.serve(self.cart_name(), (item, add))

    def cart_name(self):
        prefix = "/api/cart/"
        return self.path[len(prefix):][:64] if self.path.startswith(prefix) else None

    def serve(self, name, change=None):
        cookie = http.cookies.SimpleCookie(self.headers.get("Cookie", ""))
        token = cookie["meridian"].value if "meridian" in cookie else None
        try:
            cart, visits, caught_up, token = self.shop.visit(name or "everyone", token, change)
        except redis.RedisError as error:
            return self.answer(503, "text/plain", f"the shop is closed: {error}\n")
        if name is not None:
            found = {"region": self.region, "cart": cart, "visits": visits, "caught_up": caught_up}
            return self.answer(200, "application/json", json.dumps(found) + "\n", token)
        if change:
            return self.answer(303, "text/plain", "", token)
        return self.answer(200, "text/html; charset=utf-8", self.page(cart, visits, caught_up), token)

    def page(self, cart, visits, caught_up):
        rows = "".join(
            f"<tr><td>{html.escape(item)}<td>{cart.get(item, 0)}"
            f'<td><form method=post><input type=hidden name=item value="{html.escape(item)}">'
            "<button name=add value=1>+</button> <button name=add value=-1>&minus;</button></form>"
            for item in ITEMS
        )
        late = "" if caught_up else "<p>What you did in another region has not arrived here yet."
        return (
            "<!doctype html><meta charset=utf-8><title>Shop</title>"
            "<style>body{font:18px sans-serif;margin:3em auto;max-width:24em}td{padding:.3em 1em}</style>"
            f"<h1>Shop in {html.escape(self.region)}</h1>{late}"
            f"<p>The cart that everyone in the world shares:<table>{rows}</table>"
            f"<p>Visit number {visits}, over all regions."
        )

    def answer(self, code, kind, text, token=None):
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if code == 303:
            self.send_header("Location", "/")
        if token:
            self.send_header("Set-Cookie", f"meridian={token}; Path=/; HttpOnly; SameSite=Lax")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, form, *arguments):
        pass


def main():
    arguments = argparse.ArgumentParser(description="A shop with a shared cart, in one of several regions.")
    arguments.add_argument("--host", default="127.0.0.1")
    arguments.add_argument("--port", type=int, default=8081, help="0: the system chooses")
    arguments.add_argument("--redis", default="redis://127.0.0.1:6381", help="this region's Meridian")
    arguments.add_argument("--password-file", help="what Meridian asks its clients for")
    arguments.add_argument("--region", default="", help="its name on the page")
    given = arguments.parse_args()
    url = given.redis
    if given.password_file:
        with open(given.password_file, encoding="utf-8") as file:
            password = urllib.parse.quote(file.read().rstrip("\r\n"), safe="")
        url = url.replace("://", f"://:{password}@", 1)
    Page.shop = Shop(url)
    Page.region = given.region or given.redis
    server = http.server.ThreadingHTTPServer((given.host, given.port), Page)
    print(f"the shop in {Page.region} is at http://{given.host}:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
