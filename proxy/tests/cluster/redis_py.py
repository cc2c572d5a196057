"""What an application does with redis-py: python redis_py.py PORT PROTOCOL"""

import sys
import threading

import redis

port, protocol = int(sys.argv[1]), int(sys.argv[2])
r = redis.Redis(port=port, protocol=protocol, decode_responses=True, socket_timeout=30)
assert r.ping()
r.delete("py:counter", "py:hash", "py:set", "py:sorted", "py:a", "py:b", "py:text", "py:lock")

# Strings
assert r.set("py:text", "grüße", ex=100)
assert r.get("py:text") == "grüße"
assert 0 < r.ttl("py:text") <= 100
assert r.set("py:lock", "1", nx=True) is True
assert r.set("py:lock", "2", nx=True) is None
assert r.append("py:lock", "23") == 3
assert r.getrange("py:lock", 1, -1) == "23"
assert r.mset({"py:a": "1", "py:b": "2"})
assert r.mget("py:a", "py:none", "py:b") == ["1", None, "2"]
assert r.incrbyfloat("py:a", 0.5) == 1.5

# Pipelines, with and without a transaction
pipeline = r.pipeline(transaction=False)
for n in range(500):
    pipeline.set(f"py:many:{n}", n)
assert all(pipeline.execute())
with r.pipeline(transaction=True) as pipeline:
    pipeline.set("py:a", "x").get("py:a").exists("py:b", "py:none")
    assert pipeline.execute() == [True, "x", 1]

# WATCH: many hands on one counter, none gets lost
def increment():
    mine = redis.Redis(port=port, protocol=protocol, decode_responses=True, socket_timeout=30)
    for _ in range(10):
        def once(pipe):
            value = int(pipe.get("py:counter") or 0)
            pipe.multi()
            pipe.set("py:counter", value + 1)
        mine.transaction(once, "py:counter")

threads = [threading.Thread(target=increment) for _ in range(5)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert r.get("py:counter") == "50", r.get("py:counter")

# Scans
assert len(set(r.scan_iter("py:many:*", count=50))) == 500
assert r.exists(*[f"py:many:{n}" for n in range(500)]) == 500

# Hashes
assert r.hset("py:hash", mapping={"name": "eu", "n": 1}) == 2
assert r.hincrby("py:hash", "n", 4) == 5
assert r.hgetall("py:hash") == {"name": "eu", "n": "5"}
assert r.hmget("py:hash", "name", "none") == ["eu", None]
assert dict(r.hscan_iter("py:hash")) == {"name": "eu", "n": "5"}

# Sets
assert r.sadd("py:set", "x", "y", "z") == 3
assert r.srem("py:set", "y") == 1
assert set(r.smembers("py:set")) == {"x", "z"}
assert r.sismember("py:set", "x")
assert set(r.sscan_iter("py:set")) == {"x", "z"}

# Sorted sets
assert r.zadd("py:sorted", {"one": 1, "two": 2, "half": 0.5}) == 3
assert r.zincrby("py:sorted", 2, "one") == 3.0
assert r.zrange("py:sorted", 0, -1) == ["half", "two", "one"]
top = r.zrange("py:sorted", 0, 0, desc=True, withscores=True)
assert [tuple(pair) for pair in top] == [("one", 3.0)], top
assert r.zrangebyscore("py:sorted", 1, "+inf") == ["two", "one"]
assert r.zrank("py:sorted", "two") == 1
assert dict(r.zscan_iter("py:sorted")) == {"half": 0.5, "two": 2.0, "one": 3.0}

# Errors are Redis' own
try:
    r.hget("py:text", "f")
    raise AssertionError("no error")
except redis.ResponseError as error:
    assert str(error).startswith("WRONGTYPE"), error

assert r.delete(*[f"py:many:{n}" for n in range(500)]) == 500
print("ok")
