//! Commands about the server, and the entries of those about the connection, which the session runs.

mod info;

use super::table::{REST, all};
use super::{Command, CommandError, Context, Family, Flags, Keys, Outcome, find};
use crate::resp::{Args, Reply};

/// The version of Redis whose commands and replies these are.
pub const REDIS_VERSION: &str = "7.2.0";

const fn entry(name: &'static str, arity: i32, flags: Flags, handler: super::Handler) -> Command {
    Command { name, arity, flags, keys: Keys::None, family: Family::Server, handler }
}

const fn session(name: &'static str, arity: i32, flags: Flags) -> Command {
    entry(name, arity, flags.and(Flags::SESSION), in_transaction)
}

/// The family's commands.
pub const COMMANDS: &[Command] = &[
    entry("ping", -1, Flags::FAST, ping),
    entry("echo", 2, Flags::FAST, echo),
    entry("time", 1, Flags::FAST, time),
    entry("info", -1, Flags::NONE, info::info),
    entry("config", -2, Flags::ADMIN, config),
    entry("command", -1, Flags::NONE, command),
    entry("lastsave", 1, Flags::FAST, lastsave),
    session("select", 2, Flags::FAST),
    session("auth", -2, Flags::FAST.and(Flags::NO_AUTH).and(Flags::NO_MULTI)),
    session("hello", -1, Flags::FAST.and(Flags::NO_AUTH).and(Flags::NO_MULTI)),
    session("quit", -1, Flags::FAST.and(Flags::NO_AUTH)),
    session("reset", 1, Flags::FAST.and(Flags::NO_AUTH)),
    session("client", -2, Flags::NO_MULTI),
    session("wait", 3, Flags::NO_MULTI),
    session("debug", -2, Flags::ADMIN.and(Flags::NO_MULTI)),
    session("multi", 1, Flags::FAST),
    session("exec", 1, Flags::NONE),
    session("discard", 1, Flags::FAST),
    Command { keys: REST, ..session("watch", -2, Flags::FAST) },
    session("unwatch", 1, Flags::FAST),
];

/// What a session command answers inside a transaction: only `SELECT` gets there, and the session
/// has already noted it.
fn in_transaction(_: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.ok();
    Ok(())
}

fn ping(_: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    match (args.get(1), args.len()) {
        (None, _) => reply.simple("PONG"),
        (Some(text), 2) => reply.bulk(text),
        _ => return Err(CommandError::Arity("ping".into())),
    }
    Ok(())
}

fn echo(_: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.bulk(args.get(1).unwrap_or_default());
    Ok(())
}

fn time(_: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    reply.array(2);
    reply.bulk(since.as_secs().to_string().as_bytes());
    reply.bulk(since.subsec_micros().to_string().as_bytes());
    Ok(())
}

/// Nothing is ever unsaved longer than the log's settings say; the start is as good an answer as any.
fn lastsave(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let up = context.region().uptime().as_millis();
    let started = context.now_ms().saturating_sub(u64::try_from(up).unwrap_or(0));
    reply.int(i64::try_from(started / 1000).unwrap_or(i64::MAX));
    Ok(())
}

/// What `CONFIG GET` answers: the parameters that clients and tools ask for.
fn parameters(context: &Context<'_, '_>) -> Vec<(&'static str, String)> {
    let settings = context.region().settings();
    let limits = &settings.limits;
    let sync = match settings.log.sync {
        crate::config::settings::LogSync::Always => "always",
        crate::config::settings::LogSync::Everysec => "everysec",
        crate::config::settings::LogSync::Never => "no",
    };
    vec![
        ("appendfsync", sync.into()),
        ("appendonly", "yes".into()),
        ("bind", settings.listen.resp.ip().to_string()),
        ("databases", crate::keyspace::DATABASES.to_string()),
        ("dir", settings.data_dir.display().to_string()),
        ("maxclients", limits.max_clients.to_string()),
        ("maxmemory", settings.store.memory_max.to_string()),
        ("maxmemory-policy", "noeviction".into()),
        ("port", settings.listen.resp.port().to_string()),
        ("proto-max-bulk-len", limits.proto_max_bulk_len.to_string()),
        ("save", String::new()),
        ("timeout", "0".into()),
    ]
}

fn config(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let sub = args.get(1).unwrap_or_default().to_ascii_uppercase();
    match (sub.as_slice(), args.len()) {
        (b"GET", 3..) => {
            let mut found = parameters(context);
            found.retain(|(name, _)| {
                args.tail(2).iter().any(|pattern| {
                    pattern.len() <= 1024
                        && meridian_conflict::glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes())
                })
            });
            reply.map(found.len());
            for (name, value) in found {
                reply.bulk(name.as_bytes());
                reply.bulk(value.as_bytes());
            }
        }
        (b"SET", 4..) => {
            return Err(CommandError::text(
                "ERR CONFIG SET is not available: settings are those of the configuration file",
            ));
        }
        (b"RESETSTAT", 2) => reply.ok(),
        (b"REWRITE", 2) => return Err(CommandError::text("ERR The server is running without a config file")),
        _ => return Err(unknown_subcommand("CONFIG", args)),
    }
    Ok(())
}

/// Redis' text for a subcommand that is not there.
pub(super) fn unknown_subcommand(command: &str, args: Args<'_>) -> CommandError {
    let sub = String::from_utf8_lossy(args.get(1).unwrap_or_default()).into_owned();
    let sub: String = sub.chars().take(128).collect();
    CommandError::Text(
        format!("ERR unknown subcommand or wrong number of arguments for '{sub}'. Try {command} HELP.")
            .into(),
    )
}

fn flag_names(flags: Flags) -> Vec<&'static str> {
    [
        (Flags::WRITE, "write"),
        (Flags::READONLY, "readonly"),
        (Flags::DENY_OOM, "denyoom"),
        (Flags::ADMIN, "admin"),
        (Flags::NO_AUTH, "no_auth"),
        (Flags::NO_MULTI, "no_multi"),
        (Flags::FAST, "fast"),
    ]
    .into_iter()
    .filter(|(flag, _)| flags.has(*flag))
    .map(|(_, name)| name)
    .collect()
}

fn describe(command: &Command, reply: &mut Reply<'_>) {
    let (first, last, step) = match command.keys {
        Keys::Range { first, last, step } => (first, last, step),
        _ => (0, 0, 0),
    };
    let flags = flag_names(command.flags);
    reply.array(10);
    reply.bulk(command.name.as_bytes());
    reply.int(i64::from(command.arity));
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.simple(flag));
    reply.int(i64::try_from(first).unwrap_or(0));
    reply.int(i64::from(last));
    reply.int(i64::try_from(step).unwrap_or(0));
    let category =
        format!("@{}", if command.family == Family::SortedSet { "sortedset" } else { command.family.name() });
    reply.set(1);
    reply.simple(&category);
    reply.array(0);
    reply.array(0);
    reply.array(0);
}

fn command(_: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let sub = args.get(1).unwrap_or_default().to_ascii_uppercase();
    match (sub.as_slice(), args.len()) {
        (_, 1) => {
            reply.array(all().count());
            all().for_each(|command| describe(command, reply));
        }
        (b"COUNT", 2) => reply.int(i64::try_from(all().count()).unwrap_or(i64::MAX)),
        (b"LIST", 2) => {
            reply.array(all().count());
            all().for_each(|command| reply.bulk(command.name.as_bytes()));
        }
        (b"INFO", 2) => {
            reply.array(all().count());
            all().for_each(|command| describe(command, reply));
        }
        (b"INFO", _) => {
            reply.array(args.len().saturating_sub(2));
            for name in args.tail(2).iter() {
                match find(name) {
                    Some(command) => describe(command, reply),
                    None => reply.null_array(),
                }
            }
        }
        // Documentation is for people; clients such as redis-cli do without.
        (b"DOCS", _) => reply.map(0),
        (b"GETKEYS", 3..) => {
            let words = args.tail(2);
            let Some(command) = words.first().and_then(find) else {
                return Err(CommandError::text("ERR Invalid command specified"));
            };
            if !command.accepts(words.len()) {
                return Err(CommandError::text("ERR Invalid number of arguments specified for command"));
            }
            let keys = command.keys.of(words);
            if keys.is_empty() {
                return Err(CommandError::text("ERR The command has no key arguments"));
            }
            reply.array(keys.len());
            keys.iter().for_each(|key| reply.bulk(key));
        }
        _ => return Err(unknown_subcommand("COMMAND", args)),
    }
    Ok(())
}
