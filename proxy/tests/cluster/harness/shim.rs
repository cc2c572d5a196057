//! A library loaded into a region's process before all others: it moves the clock, and at a chosen call
//! that changes the data directory it ends the process or lets the call fail.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Calls that change what is in files.
pub const WRITES: u64 = 1;
/// Calls that make files or directories durable.
pub const SYNCS: u64 = 2;
/// Calls that create, rename and remove.
pub const NAMES: u64 = 4;

/// What happens at the chosen call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The process ends before the call.
    KillBefore = 1,
    /// The process ends after the call, or after half of a write.
    KillWithin = 2,
    /// The call answers `EIO`, this once, and does nothing.
    Fail = 3,
}

/// What a process is told; the layout is the library's.
pub struct Shim {
    control: File,
    path: PathBuf,
}

const CLOCK: u64 = 0;
const KINDS: u64 = 8;
const SEEN: u64 = 16;
const AT: u64 = 24;
const ACTION: u64 = 32;
const PART: u64 = 40;
const PART_BYTES: usize = 32;
const BYTES: u64 = PART + PART_BYTES as u64;

impl Shim {
    /// Whose orders lie in a new file at `path`.
    pub fn new(path: PathBuf) -> Self {
        let control = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        control.set_len(BYTES).unwrap();
        Self { control, path }
    }

    /// Loads the library into what `command` starts.
    pub fn load(&self, command: &mut Command, directory: &Path) {
        command.env("LD_PRELOAD", library()).env("SHIM_CONTROL", &self.path);
        command.env("SHIM_DIRECTORY", directory);
    }

    /// Moves the wall clock by this much from what it really is.
    pub fn set_clock_ms(&self, ms: i64) {
        self.put(CLOCK, ms as u64);
    }

    /// From now on counts calls of `kinds` and does `action` at the one with this number.
    pub fn arm(&self, kinds: u64, at: u64, action: Action) {
        self.arm_within("", kinds, at, action);
    }

    /// Likewise for the calls on files whose path below the data directory contains `part`.
    pub fn arm_within(&self, part: &str, kinds: u64, at: u64, action: Action) {
        self.disarm();
        let mut bytes = [0; PART_BYTES];
        bytes[..part.len()].copy_from_slice(part.as_bytes());
        assert_eq!(bytes.last(), Some(&0), "ended by a zero");
        self.control.write_all_at(&bytes, PART).unwrap();
        self.put(SEEN, 0);
        self.put(AT, at);
        self.put(ACTION, action as u64);
        self.put(KINDS, kinds);
    }

    /// Counts no more; how many calls there were.
    pub fn disarm(&self) -> u64 {
        self.put(KINDS, 0);
        self.seen()
    }

    /// How many calls there were since it was armed.
    pub fn seen(&self) -> u64 {
        self.get(SEEN)
    }

    /// The number of the chosen call.
    pub fn at(&self) -> u64 {
        self.get(AT)
    }

    fn get(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, at).unwrap();
        u64::from_ne_bytes(bytes)
    }

    fn put(&self, at: u64, value: u64) {
        self.control.write_all_at(&value.to_ne_bytes(), at).unwrap();
    }
}

/// The library, compiled once for all tests of this process.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(directory).unwrap();
        let library = directory.join(format!("shim-{}.so", std::process::id()));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/harness/shim.c");
        let mut compile = Command::new("cc");
        compile.args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
        let compiled =
            compile.output().unwrap_or_else(|error| panic!("{error}; the tests need a C compiler"));
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        // Another run may be loading the old one: it keeps what it has open.
        let shared = directory.join("shim.so");
        fs::rename(library, &shared).unwrap();
        shared
    })
}
