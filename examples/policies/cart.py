#!/usr/bin/env python3
"""Carts that two regions change at the same time, merged by the module ../hooks/cart.

As a string, a cart is a line for each item. As a hash, it is a field for each item and their total; the module is
handed the whole hash, so that the total is that of the merged cart and not one of those that were written.

    meridian demo --with policies.toml
    python3 cart.py
"""

from regions import Regions

regions = Regions.from_arguments(__doc__)
eu, us, _ = regions.all
regions.begin("cart:ada", "cart:bob")

eu.set("cart:ada", "tea 1\n")
regions.meet()
with regions.apart():
    eu.set("cart:ada", "tea 3\nmilk 1\n")
    us.set("cart:ada", "tea 2\nrice 1\n")
merged = regions.same("cart:ada", lambda region: region.get("cart:ada"))
assert merged == "milk 1\nrice 1\ntea 3\n", merged

with regions.apart():
    eu.hset("cart:bob", mapping={"tea": 3, "milk": 1, "total": 4})
    us.hset("cart:bob", mapping={"tea": 2, "rice": 1, "total": 3})
merged = regions.same("cart:bob", lambda region: region.hgetall("cart:bob"))
assert merged == {"milk": "1", "rice": "1", "tea": "3", "total": "5"}, merged

# The next write has seen the merged cart and replaces what it was made of.
us.set("cart:ada", "tea 4\n")
regions.meet()
assert regions.same("cart:ada", lambda region: region.get("cart:ada")) == "tea 4\n"
