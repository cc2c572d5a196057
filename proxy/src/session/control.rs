//! Commands about the connection itself.

use std::time::Duration;

use meridian_topology::time::WallMs;

use super::{After, End, Session};
use crate::command::Command;
use crate::command::meridian::restore;
use crate::keyspace::DATABASES;
use crate::resp::fmt::parse_i64;
use crate::resp::{Args, Limits, Protocol, Reply};

/// Wrong passwords are answered this late.
const WRONG_PASSWORD_DELAY: Duration = Duration::from_millis(100);

/// The longest `DEBUG SLEEP`.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// A database number, if it is one.
pub(super) fn parse_database(text: &[u8]) -> Option<u8> {
    let number = parse_i64(text).and_then(|n| u8::try_from(n).ok())?;
    (usize::from(number) < DATABASES).then_some(number)
}

fn is(arg: Option<&[u8]>, word: &str) -> bool {
    arg.is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()))
}

impl Session {
    pub(super) async fn control(
        &mut self,
        command: &'static Command,
        args: Args<'_>,
        now: WallMs,
    ) -> Result<After, End> {
        self.client.tell(|told| told.command = command.name);
        match command.name {
            "multi" => self.multi(),
            "exec" => self.exec(now).await?,
            "discard" => self.discard(),
            "watch" => self.watch(args, now),
            "unwatch" => self.unwatch(),
            "select" => self.select(args),
            "auth" => self.auth(args).await,
            "hello" => self.hello(args).await,
            "client" => return Ok(self.client_command(args)),
            "reset" => self.reset(),
            "debug" => self.debug(args).await,
            "wait" => self.wait(args).await?,
            "meridian.token" => self.token(),
            "meridian.await" => self.await_token(args).await?,
            "meridian.restore" => self.restore(args, now),
            "meridian.home" => self.home(args).await?,
            "quit" => {
                self.reply().ok();
                return Ok(After::Close);
            }
            _ => self.reply().error(&format!("ERR '{}' is not available in this version", command.name)),
        }
        Ok(After::Continue)
    }

    fn restore(&mut self, args: Args<'_>, now: WallMs) {
        let mut reply = Reply::new(&mut self.output, self.protocol);
        let ran = restore::restore(&self.region, &mut self.scratch, args, now, &mut reply);
        self.note(ran);
    }

    fn select(&mut self, args: Args<'_>) {
        let arg = args.get(1).unwrap_or_default();
        match parse_database(arg) {
            Some(database) => {
                self.database = database;
                self.client.tell(|told| told.database = database);
                self.reply().ok();
            }
            None if parse_i64(arg).is_none() => {
                self.reply().error("ERR value is not an integer or out of range")
            }
            None => self.reply().error("ERR DB index is out of range"),
        }
    }

    /// Whether name and password are right; an error text if not.
    async fn check_password(&mut self, user: Option<&[u8]>, password: &[u8]) -> Result<(), &'static str> {
        let region = std::sync::Arc::clone(&self.region);
        let right_user = user.is_none_or(|user| user == b"default");
        let right = match region.password() {
            Some(known) => known.matches(password).await && right_user,
            None if user.is_none() => {
                return Err("ERR AUTH <password> called without any password configured for the default \
                            user. Are you sure your configuration is correct?");
            }
            None => right_user,
        };
        if !right {
            tokio::time::sleep(WRONG_PASSWORD_DELAY).await;
            return Err("WRONGPASS invalid username-password pair or user is disabled.");
        }
        self.authenticated = true;
        self.limits = Limits {
            bulk: usize::try_from(region.settings().limits.proto_max_bulk_len).unwrap_or(usize::MAX),
            command: usize::try_from(region.settings().limits.query_buffer_max).unwrap_or(usize::MAX),
            ..Limits::default()
        };
        Ok(())
    }

    async fn auth(&mut self, args: Args<'_>) {
        let (user, password) = match args.len() {
            2 => (None, args.get(1)),
            3 => (args.get(1), args.get(2)),
            _ => return self.reply().error("ERR syntax error"),
        };
        match self.check_password(user, password.unwrap_or_default()).await {
            Ok(()) => self.reply().ok(),
            Err(text) => self.reply().error(text),
        }
    }

    async fn hello(&mut self, args: Args<'_>) {
        let mut protocol = self.protocol;
        let mut at = 1;
        if let Some(version) = args.get(1) {
            protocol = match parse_i64(version) {
                Some(2) => Protocol::Resp2,
                Some(3) => Protocol::Resp3,
                Some(_) => return self.reply().error("NOPROTO unsupported protocol version"),
                None => return self.reply().error("ERR Protocol version is not an integer or out of range"),
            };
            at = 2;
        }
        let (mut credentials, mut name) = (None, None);
        while at < args.len() {
            if is(args.get(at), "AUTH") && at + 2 < args.len() {
                credentials = args.get(at + 1).zip(args.get(at + 2));
                at += 3;
            } else if is(args.get(at), "SETNAME") && at + 1 < args.len() {
                name = args.get(at + 1);
                at += 2;
            } else {
                let option = String::from_utf8_lossy(args.get(at).unwrap_or_default()).into_owned();
                return self.reply().error(&format!("ERR Syntax error in HELLO option '{option}'"));
            }
        }
        if let Some((user, password)) = credentials
            && let Err(text) = self.check_password(Some(user), password).await
        {
            return self.reply().error(text);
        }
        if !self.authenticated {
            return self.reply().error(
                "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO \
                 <proto> AUTH <user> <pass> option can be used to authenticate the client and select the \
                 RESP protocol version at the same time",
            );
        }
        if let Some(name) = name
            && let Err(text) = self.set_name(name)
        {
            return self.reply().error(text);
        }
        self.protocol = protocol;
        let number = if protocol == Protocol::Resp3 { 3 } else { 2 };
        self.client.tell(|told| told.protocol = number);
        let (id, follower) = (self.client.id, self.region.is_follower());
        let mut reply = self.reply();
        reply.map(7);
        for (field, value) in [("server", "redis"), ("version", crate::command::server::REDIS_VERSION)] {
            reply.bulk(field.as_bytes());
            reply.bulk(value.as_bytes());
        }
        reply.bulk(b"proto");
        reply.int(i64::from(number));
        reply.bulk(b"id");
        reply.int(i64::try_from(id).unwrap_or(i64::MAX));
        reply.bulk(b"mode");
        reply.bulk(b"standalone");
        reply.bulk(b"role");
        reply.bulk(if follower { b"replica" } else { b"master" });
        reply.bulk(b"modules");
        reply.array(0);
    }

    fn set_name(&mut self, name: &[u8]) -> Result<(), &'static str> {
        if !name.iter().all(|byte| (b'!'..=b'~').contains(byte)) || name.len() > 1024 {
            return Err("ERR Client names cannot contain spaces, newlines or special characters.");
        }
        let name = String::from_utf8_lossy(name).into_owned();
        self.client.tell(|told| told.name = name);
        Ok(())
    }

    fn reset(&mut self) {
        self.transaction = None;
        self.watched.clear();
        self.database = 0;
        self.protocol = Protocol::Resp2;
        self.silent = false;
        self.skip = 0;
        self.authenticated = self.region.settings().auth.is_none();
        self.client.tell(|told| {
            (told.database, told.protocol) = (0, 2);
            told.name.clear();
        });
        self.reply().simple("RESET");
    }

    async fn debug(&mut self, args: Args<'_>) {
        if is(args.get(1), "SLEEP") && args.len() == 3 {
            let seconds = args.get(2).and_then(crate::resp::fmt::parse_f64).unwrap_or(0.0);
            let asked = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(SLEEP_MAX);
            // Only this connection sleeps.
            tokio::time::sleep(asked.min(SLEEP_MAX)).await;
            return self.reply().ok();
        }
        let sub = String::from_utf8_lossy(args.get(1).unwrap_or_default()).into_owned();
        self.reply().error(&format!(
            "ERR unknown subcommand or wrong number of arguments for '{}'. Try DEBUG HELP.",
            sub.chars().take(128).collect::<String>()
        ));
    }

    fn client_command(&mut self, args: Args<'_>) -> After {
        let sub = args.get(1).unwrap_or_default().to_ascii_uppercase();
        let client = std::sync::Arc::clone(&self.client);
        match (sub.as_slice(), args.len()) {
            (b"ID", 2) => self.reply().int(i64::try_from(client.id).unwrap_or(i64::MAX)),
            (b"GETNAME", 2) => {
                let name = client.told().name;
                if name.is_empty() { self.reply().null() } else { self.reply().bulk(name.as_bytes()) }
            }
            (b"SETNAME", 3) => match self.set_name(args.get(2).unwrap_or_default()) {
                Ok(()) => self.reply().ok(),
                Err(text) => self.reply().error(text),
            },
            (b"SETINFO", 4) => self.set_info(args),
            (b"INFO", 2) => self.reply().verbatim(*b"txt", format!("{}\n", client.line()).as_bytes()),
            (b"LIST", _) => self.client_list(),
            (b"KILL", 3..) => self.client_kill(args),
            (b"REPLY", 3) => self.client_reply(args),
            (b"NO-EVICT" | b"NO-TOUCH", 3) => {
                if is(args.get(2), "ON") || is(args.get(2), "OFF") {
                    self.reply().ok();
                } else {
                    self.reply().error("ERR syntax error");
                }
            }
            (b"GETREDIR", 2) => self.reply().int(-1),
            (b"UNPAUSE", 2) => self.reply().ok(),
            (b"HELP", 2) => self.client_help(),
            _ => {
                let sub = String::from_utf8_lossy(args.get(1).unwrap_or_default()).into_owned();
                let sub: String = sub.chars().take(128).collect();
                self.reply().error(&format!(
                    "ERR unknown subcommand or wrong number of arguments for '{sub}'. Try CLIENT HELP."
                ));
            }
        }
        if client.is_killed() { After::Close } else { After::Continue }
    }

    fn set_info(&mut self, args: Args<'_>) {
        let value = args.get(3).unwrap_or_default();
        if !value.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
            let option = String::from_utf8_lossy(args.get(2).unwrap_or_default()).to_lowercase();
            return self
                .reply()
                .error(&format!("ERR {option} cannot contain spaces, newlines or special characters."));
        }
        let value: String = String::from_utf8_lossy(value).chars().take(256).collect();
        if is(args.get(2), "LIB-NAME") {
            self.client.tell(|told| told.library = value);
        } else if is(args.get(2), "LIB-VER") {
            self.client.tell(|told| told.library_version = value);
        } else {
            let option = String::from_utf8_lossy(args.get(2).unwrap_or_default()).into_owned();
            return self.reply().error(&format!("ERR Unrecognized option '{option}'"));
        }
        self.reply().ok();
    }

    fn client_list(&mut self) {
        let lines: String =
            self.region.clients().list().iter().map(|client| format!("{}\n", client.line())).collect();
        self.reply().verbatim(*b"txt", lines.as_bytes());
    }

    /// `CLIENT KILL addr` and `CLIENT KILL [ID id] [ADDR addr] [LADDR addr] [SKIPME yes|no]`.
    fn client_kill(&mut self, args: Args<'_>) {
        let old_form = args.len() == 3;
        let (mut id, mut address, mut local, mut skip_me) = (None, None, None, true);
        if old_form {
            address = args.get(2).map(|a| String::from_utf8_lossy(a).into_owned());
            skip_me = false;
        }
        let mut at = if old_form { args.len() } else { 2 };
        while at < args.len() {
            let Some(value) = args.get(at + 1) else { return self.reply().error("ERR syntax error") };
            let text = String::from_utf8_lossy(value).into_owned();
            if is(args.get(at), "ID") {
                match parse_i64(value).and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0) {
                    Some(number) => id = Some(number),
                    None => return self.reply().error("ERR client-id should be greater than 0"),
                }
            } else if is(args.get(at), "ADDR") {
                address = Some(text);
            } else if is(args.get(at), "LADDR") {
                local = Some(text);
            } else if is(args.get(at), "SKIPME") {
                skip_me = !text.eq_ignore_ascii_case("no");
            } else {
                return self.reply().error("ERR syntax error");
            }
            at += 2;
        }
        let mut killed = 0;
        for client in self.region.clients().list() {
            let meant = id.is_none_or(|id| client.id == id)
                && address.as_ref().is_none_or(|a| client.address.to_string() == *a)
                && local.as_ref().is_none_or(|l| client.local.to_string() == *l)
                && !(skip_me && client.id == self.client.id);
            if meant {
                client.kill();
                killed += 1;
            }
        }
        match (old_form, killed) {
            (true, 0) => self.reply().error("ERR No such client"),
            (true, _) => self.reply().ok(),
            (false, _) => self.reply().int(killed),
        }
    }

    fn client_reply(&mut self, args: Args<'_>) {
        if is(args.get(2), "ON") {
            self.silent = false;
            self.reply().ok();
        } else if is(args.get(2), "OFF") {
            self.silent = true;
        } else if is(args.get(2), "SKIP") {
            self.skip = if self.silent { 0 } else { 2 };
        } else {
            self.reply().error("ERR syntax error");
        }
    }

    fn client_help(&mut self) {
        const LINES: &[&str] = &[
            "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
            "GETNAME | SETNAME <name> | SETINFO <LIB-NAME|LIB-VER> <value>",
            "    The name and library of this connection.",
            "ID | INFO | LIST",
            "    This connection's number, what is known of it, and all connections.",
            "KILL <ip:port> | KILL [ID <id>] [ADDR <ip:port>] [LADDR <ip:port>] [SKIPME <yes|no>]",
            "    Closes connections.",
            "REPLY <ON|OFF|SKIP>",
            "    Whether replies are sent.",
        ];
        let mut reply = Reply::new(&mut self.output, self.protocol);
        reply.array(LINES.len());
        LINES.iter().for_each(|line| reply.simple(line));
    }
}
