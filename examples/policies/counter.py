#!/usr/bin/env python3
"""A counter that all regions increment: every increment counts exactly once, whatever the regions have heard of each other.

    meridian demo --with policies.toml
    python3 counter.py
"""

from regions import Regions

regions = Regions.from_arguments(__doc__)
eu, us, ap = regions.all
regions.begin("views:home")

with regions.apart():
    for region, views in [(eu, 7), (us, 3), (ap, 1)]:
        for _ in range(views):
            region.incr("views:home")
assert regions.same("views:home", lambda region: region.get("views:home")) == "11"

# A reset sets aside what it has seen. What it has not seen is added to what it sets.
with regions.apart():
    eu.set("views:home", 0)
    us.incrby("views:home", 5)
assert regions.same("views:home", lambda region: region.get("views:home")) == "5"
