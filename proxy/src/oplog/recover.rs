//! What [`super::open`] does: finds where the log ends, and makes the files say so.

use std::io;

use super::{
    Disk, LogError, LogFile, Lsn, Settings, Verify,
    frame::{self, BATCH_HEAD, BATCH_WORD, Frame, Parsed, SEAL, Seal, Stop},
    segment::{self, DAMAGED, Header, SPARE, SegmentInfo},
};

/// What was found at open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovery {
    /// Segments kept.
    pub segments: usize,
    /// Where the oldest segment starts; the start of the log if there is none.
    pub oldest: Lsn,
    /// Where valid data ends.
    pub end: Lsn,
    /// What follows it.
    pub tail: Tail,
    /// Bytes kept.
    pub bytes: u64,
    /// Files in the directory that were set aside, now or earlier. Never deleted by the log.
    pub set_aside: Vec<String>,
}

/// How the log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// There was no log.
    New,
    /// It was shut down in order: nothing is missing.
    Closed,
    /// No shutdown, but nothing behind the last record. Under [`super::Sync::EverySecond`] and
    /// [`super::Sync::Never`] records may have been lost.
    Clean,
    /// A write was cut short: `dropped` bytes from `lsn` on, none of which is known to have been durable.
    Torn {
        /// Where valid data ends.
        lsn: Lsn,
        /// Bytes from there to the last that is not zero.
        dropped: u64,
    },
    /// What had been durable is not readable; everything from `lsn` on was set aside.
    Damaged {
        /// Where valid data ends.
        lsn: Lsn,
    },
    /// A segment file is gone; everything behind the hole was set aside.
    Missing {
        /// Where the hole starts.
        lsn: Lsn,
    },
}

struct Candidate {
    name_start: Lsn,
    header: Option<SegmentInfo>,
}

/// How one segment read through ended.
struct Scan {
    end: Lsn,
    stop: Stop,
}

pub(super) fn recover(
    disk: &dyn Disk,
    settings: &Settings,
) -> Result<(Vec<SegmentInfo>, Lsn, Recovery), LogError> {
    let (candidates, names) = candidates(disk)?;
    if names.iter().any(|n| n == SPARE) {
        disk.remove(SPARE).map_err(LogError::io("remove the spare segment"))?;
    }
    let start = next_start(&candidates, &names);
    let (kept, tail) = Chain { disk, settings, candidates: &candidates }.follow()?;
    let set_aside = settle(disk, &candidates, &kept, tail)?;
    let kept = resize(disk, kept)?;
    let recovery = Recovery {
        segments: kept.len(),
        oldest: kept.first().map_or(start, |s| s.start),
        end: kept.last().map_or(start, |s| s.end),
        tail,
        bytes: kept.iter().map(|s| s.bytes).sum(),
        set_aside: names.into_iter().filter(|n| n.contains(DAMAGED)).chain(set_aside).collect(),
    };
    Ok((kept, start, recovery))
}

/// All segment files in order, read before anything is touched: a foreign version refuses the directory.
fn candidates(disk: &dyn Disk) -> Result<(Vec<Candidate>, Vec<String>), LogError> {
    let mut names = disk.list().map_err(LogError::io("list the directory"))?;
    names.sort_unstable();
    let mut found = Vec::new();
    for name in &names {
        let Some(name_start) = segment::parse_name(name) else { continue };
        let header = open(disk, name_start)
            .and_then(|f| segment::read_header(&*f).map_err(LogError::io("read a segment header")))?;
        let header = match header {
            Header::OtherVersion(found) => return Err(LogError::Version { file: name.clone(), found }),
            Header::Good(info) if info.start == name_start => Some(info),
            Header::Good(_) | Header::Bad => None,
        };
        found.push(Candidate { name_start, header });
    }
    Ok((found, names))
}

fn open(disk: &dyn Disk, start: Lsn) -> Result<std::sync::Arc<dyn LogFile>, LogError> {
    disk.open(&segment::file_name(start)).map_err(LogError::io("open a segment"))
}

/// Past everything that was ever given out: what one run can write between two starts of segments is far less
/// than the 2^39 of slack.
fn next_start(candidates: &[Candidate], names: &[String]) -> Lsn {
    let damaged = names.iter().filter_map(|n| segment::parse_name(n.split_once(DAMAGED)?.0));
    let ends = candidates.iter().map(|c| {
        let bytes = c.header.as_ref().map_or(0, |h| h.bytes);
        c.name_start.0.saturating_add(bytes)
    });
    let last = ends.chain(damaged.map(|l| l.0)).max();
    let epoch = last.map_or(0, |l| l.saturating_add(1 << 39) >> 40);
    Lsn(epoch.saturating_add(1).saturating_mul(1 << 40))
}

/// The candidates, followed from the oldest until something is wrong.
struct Chain<'a> {
    disk: &'a dyn Disk,
    settings: &'a Settings,
    candidates: &'a [Candidate],
}

impl Chain<'_> {
    fn follow(&self) -> Result<(Vec<SegmentInfo>, Tail), LogError> {
        let mut kept: Vec<SegmentInfo> = Vec::new();
        let mut tail = Tail::New;
        for (i, candidate) in self.candidates.iter().enumerate() {
            let previous_end = kept.last().map(|s| s.end);
            let Some(mut info) = candidate.header.clone() else {
                return Ok((kept, Tail::Damaged { lsn: previous_end.unwrap_or(candidate.name_start) }));
            };
            if let Some(lsn) = previous_end.filter(|end| *end != info.previous_end) {
                return Ok((kept, Tail::Missing { lsn }));
            }
            let file = open(self.disk, info.start)?;
            let next = self.candidates.get(i + 1);
            let (end, found) = match next {
                None => self.last(&*file, &info)?,
                Some(next) => self.inner(&*file, &info, next)?,
            };
            info.end = end;
            kept.push(info);
            tail = found;
            if matches!(tail, Tail::Damaged { .. } | Tail::Missing { .. }) {
                break;
            }
        }
        Ok((kept, tail))
    }

    /// A segment with another behind it must end with a seal, where the next one says.
    fn inner(
        &self,
        file: &dyn LogFile,
        info: &SegmentInfo,
        next: &Candidate,
    ) -> Result<(Lsn, Tail), LogError> {
        let said = next.header.as_ref().map(|h| h.previous_end);
        if let (Some(end), Verify::Tail) = (said, self.settings.verify)
            && segment::sealed_at(file, info, end).map_err(LogError::io("read a segment"))?
        {
            return Ok((end, Tail::Clean));
        }
        let scan = self.scan(file, info)?;
        let tail = match (scan.stop, said) {
            (Stop::Sealed(_), Some(said)) if said != scan.end => Tail::Missing { lsn: scan.end },
            (Stop::Sealed(_), _) => Tail::Clean,
            _ => Tail::Damaged { lsn: scan.end },
        };
        Ok((scan.end, tail))
    }

    fn last(&self, file: &dyn LogFile, info: &SegmentInfo) -> Result<(Lsn, Tail), LogError> {
        let scan = self.scan(file, info)?;
        let lsn = scan.end;
        let tail = match scan.stop {
            Stop::Sealed(Seal::Closed) => Tail::Closed,
            Stop::Sealed(_) => Tail::Clean,
            _ => {
                let rest = rest(file, info, lsn).map_err(LogError::io("read a segment"))?;
                if rest.dropped == 0 {
                    Tail::Clean
                } else if rest.durable > lsn {
                    Tail::Damaged { lsn }
                } else {
                    Tail::Torn { lsn, dropped: rest.dropped }
                }
            }
        };
        Ok((lsn, tail))
    }

    fn scan(&self, file: &dyn LogFile, info: &SegmentInfo) -> Result<Scan, LogError> {
        let limit = Lsn(info.start.0.saturating_add(info.bytes.saturating_sub(info.header_len as u64)));
        let mut end = info.start;
        loop {
            let frames = segment::read_frames(file, info, end, limit, self.settings.max_record)
                .map_err(LogError::io("read a segment"))?;
            end = end.plus(frames.bytes.len());
            if let Some(stop) = frames.stop {
                return Ok(Scan { end, stop });
            }
        }
    }
}

/// What lies behind the last valid frame.
struct Rest {
    /// Bytes up to the last one that is not zero.
    dropped: u64,
    /// The highest position a batch head in there says had been durable.
    durable: Lsn,
}

fn rest(file: &dyn LogFile, info: &SegmentInfo, from: Lsn) -> io::Result<Rest> {
    const CHUNK: usize = 256 << 10;
    let mut found = Rest { dropped: 0, durable: Lsn(0) };
    let mut at = from;
    loop {
        // Chunks overlap, so that no batch head is cut.
        let bytes = segment::read_up_to(file, info.offset(at), CHUNK + BATCH_HEAD)?;
        if let Some(last) = bytes.iter().rposition(|b| *b != 0) {
            found.dropped = at.plus(last).since(from) + 1;
            for (i, window) in bytes.windows(BATCH_HEAD).enumerate() {
                if !window.starts_with(&BATCH_WORD.to_le_bytes()) {
                    continue;
                }
                if let Parsed::Frame { frame: Frame::Batch { durable }, .. } =
                    frame::parse(window, at.plus(i), 0, true)
                {
                    found.durable = found.durable.max(durable);
                }
            }
        }
        if bytes.len() < CHUNK + BATCH_HEAD {
            return Ok(found);
        }
        at = at.plus(CHUNK);
    }
}

/// Makes the end found durable, so that nothing behind it is ever read again. Each step leaves a directory
/// from which recovery comes to the same end.
fn settle(
    disk: &dyn Disk,
    candidates: &[Candidate],
    kept: &[SegmentInfo],
    tail: Tail,
) -> Result<Vec<String>, LogError> {
    let mut set_aside = Vec::new();
    if let Some(last) = kept.last() {
        let file = open(disk, last.start)?;
        let sealed = segment::sealed_at(&*file, last, last.end).map_err(LogError::io("read a segment"))?;
        if matches!(tail, Tail::Damaged { .. }) && !sealed {
            let name = format!("{}{DAMAGED}", last.file_name());
            copy(disk, &*file, &name).map_err(LogError::io("copy a damaged segment"))?;
            set_aside.push(name);
        }
        if !sealed {
            let at = last.offset(last.end);
            file.write_at(&Seal::Recovered.encode(last.end), at)
                .and_then(|()| file.set_len(at.saturating_add(SEAL as u64)))
                .and_then(|()| file.sync_data())
                .map_err(LogError::io("seal the last segment"))?;
        }
    }
    for gone in candidates.iter().skip(kept.len()) {
        let name = segment::file_name(gone.name_start);
        let aside = format!("{name}{DAMAGED}");
        disk.rename(&name, &aside).map_err(LogError::io("set a segment aside"))?;
        set_aside.push(aside);
    }
    disk.sync_dir().map_err(LogError::io("flush the directory"))?;
    Ok(set_aside)
}

fn copy(disk: &dyn Disk, from: &dyn LogFile, name: &str) -> io::Result<()> {
    const CHUNK: usize = 1 << 20;
    let to = disk.create(name, from.len()?)?;
    let mut at = 0;
    loop {
        let bytes = segment::read_up_to(from, at, CHUNK)?;
        if bytes.is_empty() {
            break;
        }
        to.write_at(&bytes, at)?;
        at = at.saturating_add(bytes.len() as u64);
    }
    to.sync_data()?;
    disk.sync_dir()
}

fn resize(disk: &dyn Disk, mut kept: Vec<SegmentInfo>) -> Result<Vec<SegmentInfo>, LogError> {
    if let Some(last) = kept.last_mut() {
        last.bytes = open(disk, last.start)?.len().map_err(LogError::io("measure a segment"))?;
    }
    Ok(kept)
}
