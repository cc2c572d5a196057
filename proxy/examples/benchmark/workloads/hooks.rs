//! What merge hooks cost: a call, and other keys beside one that uses up all it is given.

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use meridian_conflict::clock::{Dot, Hlc, Origin, Stamp};
use meridian_conflict::hook::builtin::BuiltIn;
use meridian_conflict::hook::{Call, MergeHook, Sibling};
use meridian_proxy::hook::{Limits, Sandbox};

use super::lag::{pause_until, percentile};
use crate::Bench;
use crate::cluster::{Cluster, Region, Sync};
use crate::report::{Bar, Row, Side, Spread};

/// Bytes of each of the two values, or a little less.
const VALUE_BYTES: usize = 1 << 10;

/// Built-in hooks and modules of the examples.
const HOOKS: [&str; 7] = [
    "max",
    "min",
    "longest",
    "concat-unique-lines",
    "json-merge",
    "examples/hooks/first-writer.wat",
    "examples/hooks/cart/cart.wasm",
];

/// Where the examples and the tests of the workspace are.
fn workspace(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

/// Two values of which half is the same, in the form that the hook merges.
fn values(hook: &str) -> [String; 2] {
    let lines = |from: usize, line: fn(usize) -> String, length: usize| {
        let lines = (from..).take(VALUE_BYTES / length).map(line);
        lines.collect::<Vec<_>>()
    };
    let halves = |line: fn(usize) -> String, length: usize| {
        [0, VALUE_BYTES / length / 2].map(|from| lines(from, line, length))
    };
    match hook {
        "json-merge" => halves(|n| format!("\"name-{n:03}\":{{\"value\":\"{n:03}\"}}"), 27)
            .map(|members| format!("{{{}}}", members.join(","))),
        hook if hook.ends_with("cart.wasm") => {
            halves(|n| format!("item-{n:03} {:02}\n", n % 100), 12).map(|lines| lines.concat())
        }
        _ => halves(|n| format!("line number {n:03}\n"), 16).map(|lines| lines.concat()),
    }
}

fn load(hook: &str) -> anyhow::Result<Box<dyn MergeHook>> {
    if let Some(built_in) = BuiltIn::named(hook) {
        return Ok(Box::new(built_in));
    }
    Ok(Box::new(Sandbox::load(&workspace(hook), Limits::default())?))
}

pub fn calls(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let length = Duration::from_millis(if bench.quick { 500 } else { 2_000 });
    let mut loaded = Vec::new();
    for name in HOOKS {
        loaded.push((name, load(name)?, values(name), Vec::new(), Vec::new()));
    }
    // The first round warms up.
    for round in 0..=bench.rounds {
        for (name, hook, values, rates, highs) in &mut loaded {
            let (rate, high) = measure(&**hook, values, length).with_context(|| (*name).to_owned())?;
            if round > 0 {
                rates.push(rate);
                highs.push(high);
            }
        }
    }
    let row = |(name, _, _, rates, highs): (&str, _, _, Vec<f64>, Vec<f64>)| {
        let workload = format!("`{name}` merges two values of 1 KiB, p99");
        let ours = Side { rate: Some(Spread::of(rates).median), ..Side::default() };
        Row { ours, ..Row::plain(&workload, "µs", Spread::of(highs), Bar::None) }
    };
    Ok(loaded.into_iter().map(row).collect())
}

/// Calls a second and their p99 in microseconds, one after the other on one thread.
fn measure(hook: &dyn MergeHook, values: &[String; 2], length: Duration) -> anyhow::Result<(f64, f64)> {
    let siblings: Vec<Sibling<'_>> = values
        .iter()
        .zip(1..)
        .map(|(value, n)| {
            let stamp = Stamp { hlc: Hlc::from_ms(n), dot: Dot::new(Origin(n), n) };
            Sibling { stamp, value: value.as_bytes() }
        })
        .collect();
    let call = Call { key: b"key:000000000001", field: None, siblings: &siblings };
    let (began, mut times) = (Instant::now(), Vec::new());
    while began.elapsed() < length {
        let asked = Instant::now();
        if let Err(failure) = black_box(hook.merge(black_box(&call))) {
            bail!("the hook fails: {failure}");
        }
        times.push(asked.elapsed().as_secs_f64() * 1e6);
    }
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    Ok((rate, percentile(&mut times, 0.99)?))
}

/// 2,000 commands a second on other keys.
const INTERVAL: Duration = Duration::from_micros(500);

/// The hot key is written and read this often: a hook that uses up its fuel takes some milliseconds each time.
const HOT_INTERVAL: Duration = Duration::from_millis(20);

/// Keys of which some share a lock with the hot one.
const OTHERS: usize = 2_000;

pub fn beside(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let commands = if bench.quick { 4_000 } else { 20_000 };
    let mut rows = Vec::new();
    for (name, what) in
        [("loop", "loops until its fuel is used up"), ("grow", "takes all the memory it may have")]
    {
        let hook = workspace("proxy/tests/cluster/hooks").join(format!("{name}.wat"));
        let rules = format!(
            "[dev]\nfaults = true\n[[conflicts]]\nkeys = \"hot\"\npolicy = \"hook\"\nhook = {hook:?}\n"
        );
        let cluster = Cluster::start_with(bench, 2, Sync::Everysec, &rules)?;
        make_hot(&cluster)?;
        let region = cluster.first()?;
        p99(region, commands / 4)?;
        let (mut alone, mut hot) = (Vec::new(), Vec::new());
        let failed = region.hook_failures()?;
        for _ in 0..bench.rounds {
            alone.push(p99(region, commands)?);
            hot.push(beside_hot(region, commands)?);
        }
        let failed = region.hook_failures()? - failed;
        if failed < bench.rounds as f64 {
            bail!("the hook was asked {failed} times");
        }
        let ratios = hot.iter().zip(&alone).map(|(hot, alone)| hot / alone).collect();
        let ms = |times: Vec<f64>| Spread::of(times.into_iter().map(|time| time * 1e3).collect()).median;
        let workload = format!(
            "p99 of SET and GET of other keys, beside a hook that {what} against without ({:.2} ms, {:.2} ms)",
            ms(hot),
            ms(alone)
        );
        rows.push(Row::plain(&workload, "ratio", Spread::of(ratios), Bar::None));
    }
    Ok(rows)
}

/// Has both regions write the hot key without hearing of each other.
fn make_hot(cluster: &Cluster) -> anyhow::Result<()> {
    let both = [cluster.first()?, cluster.second()?];
    let cut = |cut: bool| {
        both.iter().zip(both.iter().rev()).try_for_each(|(region, peer)| {
            region.post("/faults", &format!("{{\"peer\":\"{}\",\"cut\":{cut}}}", peer.name))
        })
    };
    cut(true)?;
    for region in both {
        region.server.client()?.call(&[b"HSET", b"hot", b"field", region.name.as_bytes()])?;
    }
    cut(false)?;
    cluster.settle()
}

/// [`p99`] while the hot key is written and read.
fn beside_hot(region: &Region, commands: usize) -> anyhow::Result<f64> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let heating = [true, false].map(|writes| {
            let done = &done;
            scope.spawn(move || heat(region, writes, done))
        });
        let measured = p99(region, commands);
        done.store(true, Ordering::Relaxed);
        for heating in heating {
            heating.join().map_err(|_| anyhow!("the hot key's client ended badly"))??;
        }
        measured
    })
}

fn heat(region: &Region, writes: bool, done: &AtomicBool) -> anyhow::Result<()> {
    let (mut client, began) = (region.server.client()?, Instant::now());
    let mut number = 0;
    while !done.load(Ordering::Relaxed) {
        number += 1;
        pause_until(began + HOT_INTERVAL * number);
        if writes {
            client.call(&[b"HSET", b"hot", b"written", number.to_string().as_bytes()])?;
        } else {
            client.call(&[b"HGET", b"hot", b"field"])?;
        }
    }
    Ok(())
}

fn p99(region: &Region, commands: usize) -> anyhow::Result<f64> {
    let (mut client, began) = (region.server.client()?, Instant::now());
    let mut times = Vec::with_capacity(commands);
    for number in 0..commands {
        pause_until(began + INTERVAL * u32::try_from(number)?);
        let key = format!("key:{:012}", number / 2 % OTHERS);
        let asked = Instant::now();
        if number % 2 == 0 {
            client.call(&[b"SET", key.as_bytes(), b"value"])?;
        } else {
            client.call(&[b"GET", key.as_bytes()])?;
        }
        times.push(asked.elapsed().as_secs_f64());
    }
    percentile(&mut times, 0.99)
}
