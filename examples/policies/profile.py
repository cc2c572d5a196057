#!/usr/bin/env python3
"""A profile as JSON, of which two regions change different parts at the same time: `json-merge` keeps both changes.

Objects are merged by path. At a path where both have written something else, an array included, the newer value shows.

    meridian demo --with policies.toml
    python3 profile.py
"""

import json

from regions import Regions

regions = Regions.from_arguments(__doc__)
eu, us, _ = regions.all
regions.begin("profile:ada")


def change(region, **changes):
    """Reads the profile, changes it and writes it, as an application does that knows nothing of regions."""
    profile = json.loads(region.get("profile:ada") or "{}")
    for part, values in changes.items():
        profile.setdefault(part, {}).update(values)
    region.set("profile:ada", json.dumps(profile))


change(eu, name={"first": "Ada"}, address={"city": "London", "zip": "W1"})
regions.meet()
with regions.apart():
    change(eu, name={"last": "Lovelace"})
    change(us, address={"street": "St James's Square"})
merged = regions.same("profile:ada", lambda region: json.loads(region.get("profile:ada")))
assert merged == {
    "name": {"first": "Ada", "last": "Lovelace"},
    "address": {"city": "London", "zip": "W1", "street": "St James's Square"},
}, merged
