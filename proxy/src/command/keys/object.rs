//! `OBJECT` and `MEMORY`: what is known about a key beside its content.

use std::borrow::Cow;

use meridian_conflict::object::Object;
use meridian_conflict::op::Facet;

use super::super::{CommandError, Context, Outcome};
use crate::keyspace::entry::Entry;
use crate::keyspace::{DATABASES, KeyRef};
use crate::resp::{Args, Reply, fmt};

/// Redis shares the objects of the integers below this.
const SHARED_INTEGERS: i64 = 10_000;

/// The longest element that Redis keeps in a listpack, by default.
const LISTPACK_ELEMENT: usize = 64;

/// The most elements that Redis keeps in a listpack, by default.
const LISTPACK_ELEMENTS: usize = 128;

/// The most integers that Redis keeps in an intset, by default.
const INTSET_ELEMENTS: usize = 512;

/// The longest string that Redis embeds in its object.
const EMBEDDED: usize = 44;

const OBJECT_HELP: &[&str] = &[
    "OBJECT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "ENCODING <key>",
    "    Return the kind of internal representation used in order to store the value",
    "    associated with a <key>.",
    "FREQ <key>",
    "    Return the access frequency index of the <key>. The returned integer is",
    "    proportional to the logarithm of the recent access frequency of the key.",
    "IDLETIME <key>",
    "    Return the idle time of the <key>, that is the approximated number of",
    "    seconds elapsed since the last access to the key.",
    "REFCOUNT <key>",
    "    Return the number of references of the value associated with the specified",
    "    <key>.",
    "HELP",
    "    Prints this help.",
];

const MEMORY_HELP: &[&str] = &[
    "MEMORY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "DOCTOR",
    "    Return memory problems reports.",
    "MALLOC-STATS",
    "    Return internal statistics report from the memory allocator.",
    "PURGE",
    "    Attempt to purge dirty pages for reclamation by the allocator.",
    "STATS",
    "    Return information about the memory usage of the server.",
    "USAGE <key> [SAMPLES <count>]",
    "    Return memory in bytes used by <key> and its value. Nested values are",
    "    sampled up to <count> times (default: 5, 0 means sample all).",
    "HELP",
    "    Prints this help.",
];

fn help(lines: &[&str], reply: &mut Reply<'_>) {
    reply.array(lines.len());
    for line in lines {
        reply.simple(line);
    }
}

/// The subcommand in lower case.
fn subcommand(args: Args<'_>) -> Vec<u8> {
    args.get(1).unwrap_or_default().to_ascii_lowercase()
}

fn unknown(args: Args<'_>, command: &str) -> CommandError {
    let name = String::from_utf8_lossy(args.get(1).unwrap_or_default());
    // Redis quotes at most so much of it.
    let name: String = name.chars().take(128).collect();
    let command_upper = command.to_ascii_uppercase();
    CommandError::Text(Cow::Owned(format!("ERR unknown subcommand '{name}'. Try {command_upper} HELP.")))
}

/// Refuses more or fewer words than a subcommand takes.
fn expect(args: Args<'_>, count: std::ops::RangeInclusive<usize>, name: &'static str) -> Outcome {
    if count.contains(&args.len()) { Ok(()) } else { Err(CommandError::Arity(Cow::Borrowed(name))) }
}

/// `OBJECT ENCODING | FREQ | IDLETIME | REFCOUNT key`, `OBJECT HELP`.
pub(super) fn object(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let name = subcommand(args);
    match name.as_slice() {
        b"help" => {
            expect(args, 2..=2, "object|help")?;
            help(OBJECT_HELP, reply);
            return Ok(());
        }
        b"encoding" => expect(args, 3..=3, "object|encoding")?,
        b"refcount" => expect(args, 3..=3, "object|refcount")?,
        b"idletime" => expect(args, 3..=3, "object|idletime")?,
        b"freq" => expect(args, 3..=3, "object|freq")?,
        _ => return Err(unknown(args, "object")),
    }
    let key = args.get(2).unwrap_or_default();
    let Some(shown) = cx.read(key) else {
        reply.null();
        return Ok(());
    };
    match name.as_slice() {
        b"encoding" => reply.bulk(encoding(shown).as_bytes()),
        b"refcount" => reply.int(reference_count(shown)),
        b"idletime" => {
            let entry = cx.locked.entry(&KeyRef::new(cx.database, key));
            let used = entry.map_or(0, Entry::used);
            reply.int(i64::from(cx.region.keyspace().clock().saturating_sub(used)));
        }
        _ => {
            return Err(CommandError::text(
                "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note \
                 that when switching between policies at runtime LRU and LFU data will take some time to \
                 adjust.",
            ));
        }
    }
    Ok(())
}

/// The encoding that Redis would choose for such content.
fn encoding(object: &Object) -> &'static str {
    let small = |elements: usize| elements <= LISTPACK_ELEMENTS;
    let short = |element: &[u8]| element.len() <= LISTPACK_ELEMENT;
    match object.facet() {
        Some(Facet::Hash) => {
            let listpack = object.hash().is_some_and(|hash| {
                let fits = |value: Option<Cow<'_, [u8]>>| value.is_none_or(|value| short(&value));
                small(hash.len()) && hash.fields().iter().all(|(f, v)| short(f) && fits(v.shown()))
            });
            if listpack { "listpack" } else { "hashtable" }
        }
        Some(Facet::Set) => object.set().map_or("hashtable", |set| {
            let mut members = set.members().keys();
            if set.len() <= INTSET_ELEMENTS && members.all(|member| fmt::parse_i64(member).is_some()) {
                "intset"
            } else if small(set.len()) && set.members().keys().all(|member| short(member)) {
                "listpack"
            } else {
                "hashtable"
            }
        }),
        Some(Facet::SortedSet) => {
            let listpack = object
                .sorted_set()
                .is_some_and(|sorted| small(sorted.len()) && sorted.members().keys().all(|m| short(m)));
            if listpack { "listpack" } else { "skiplist" }
        }
        Some(Facet::String) | None => {
            let value = object.string().and_then(|string| string.shown()).unwrap_or_default();
            match value.len() {
                _ if fmt::parse_i64(&value).is_some() => "int",
                0..=EMBEDDED => "embstr",
                _ => "raw",
            }
        }
    }
}

fn reference_count(object: &Object) -> i64 {
    let number = object.string().and_then(|string| string.shown()).and_then(|value| fmt::parse_i64(&value));
    match (object.facet(), number) {
        (Some(Facet::String), Some(0..SHARED_INTEGERS)) => i64::from(i32::MAX),
        _ => 1,
    }
}

/// `MEMORY USAGE key [SAMPLES n]` and the rest of `MEMORY`, as far as it makes sense here.
pub(super) fn memory(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    match subcommand(args).as_slice() {
        b"usage" => usage(cx, args, reply)?,
        b"help" => {
            expect(args, 2..=2, "memory|help")?;
            help(MEMORY_HELP, reply);
        }
        b"doctor" => {
            expect(args, 2..=2, "memory|doctor")?;
            reply.verbatim(
                *b"txt",
                b"The store bounds memory by itself: see store.memory_max and the metrics.",
            );
        }
        b"malloc-stats" => {
            expect(args, 2..=2, "memory|malloc-stats")?;
            reply.verbatim(*b"txt", b"Stats not supported for the current allocator");
        }
        b"purge" => {
            expect(args, 2..=2, "memory|purge")?;
            reply.ok();
        }
        b"stats" => {
            expect(args, 2..=2, "memory|stats")?;
            stats(cx, reply);
        }
        _ => return Err(unknown(args, "memory")),
    }
    Ok(())
}

fn usage(cx: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    expect(args, 3..=usize::MAX, "memory|usage")?;
    let mut options = args.tail(3).iter();
    while let Some(word) = options.next() {
        let number = options.next().ok_or(CommandError::Syntax)?;
        if !word.eq_ignore_ascii_case(b"samples") {
            return Err(CommandError::Syntax);
        }
        // Figures are kept, not sampled.
        if fmt::parse_i64(number).ok_or(CommandError::NotInteger)? < 0 {
            return Err(CommandError::Syntax);
        }
    }
    let key = args.get(2).unwrap_or_default();
    match cx.read(key) {
        Some(object) => {
            let bytes = size_of::<Entry>() + key.len() + object.heap_bytes();
            reply.int(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        None => reply.null(),
    }
    Ok(())
}

fn stats(cx: &Context<'_, '_>, reply: &mut Reply<'_>) {
    let keyspace = cx.region().keyspace();
    let keys: u64 = (0..DATABASES as u8).map(|database| keyspace.len(database)).sum();
    let bytes = keyspace.memory_bytes();
    let figures = [
        ("total.allocated", bytes),
        ("dataset.bytes", bytes),
        ("keys.count", keys),
        ("keys.bytes-per-key", bytes.checked_div(keys).unwrap_or(0)),
    ];
    reply.map(figures.len());
    for (name, figure) in figures {
        reply.bulk(name.as_bytes());
        reply.int(i64::try_from(figure).unwrap_or(i64::MAX));
    }
}
