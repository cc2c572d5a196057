//! Connections as QUIC gives them: streams that keep their order, each for itself, and that end
//! without notice.

use std::collections::{BTreeMap, VecDeque};

/// What travels.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    /// The handshake reaches the side that was dialled.
    Connected,
    Control(Vec<u8>),
    Batch(Vec<u8>),
    /// A takeover is asked for, with the number that tells its stream from earlier ones of the connection.
    SeedRequest(u64, Vec<u8>),
    /// What a donor sends, under the number of the request.
    SeedRows(u64, Vec<u8>),
    /// The donor's log is not needed any more.
    SeedDone,
}

/// A stream within a connection: sent by the dialler or not, and its number (0 is control).
pub(super) type StreamId = (bool, u64);

#[derive(Debug)]
pub(super) struct Connection {
    /// Dialler and dialled.
    pub(super) ends: [usize; 2],
    /// Which side still believes in it.
    pub(super) open: [bool; 2],
    /// Nothing arrives any more, though neither side may know.
    broken: bool,
    streams: BTreeMap<StreamId, Stream>,
}

#[derive(Debug, Default)]
struct Stream {
    /// With the time of arrival.
    queue: VecDeque<(u64, Payload)>,
    last_arrival: u64,
}

impl Connection {
    pub(super) fn new(dialler: usize, dialled: usize) -> Self {
        Self { ends: [dialler, dialled], open: [true, true], broken: false, streams: BTreeMap::new() }
    }

    /// Which side `node` is.
    pub(super) fn side(&self, node: usize) -> usize {
        usize::from(self.ends[0] != node)
    }

    /// From whom to whom a stream goes.
    pub(super) fn direction(&self, stream: StreamId) -> (usize, usize) {
        if stream.0 { (self.ends[0], self.ends[1]) } else { (self.ends[1], self.ends[0]) }
    }

    /// Puts a payload on its way; returns when it arrives, never before its predecessors.
    pub(super) fn send(&mut self, stream: StreamId, payload: Payload, arrival: u64) -> u64 {
        let stream = self.streams.entry(stream).or_default();
        stream.last_arrival = stream.last_arrival.max(arrival);
        stream.queue.push_back((stream.last_arrival, payload));
        stream.last_arrival
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    pub(super) fn receive(&mut self, stream: StreamId) -> Option<Payload> {
        self.streams.get_mut(&stream)?.queue.pop_front().map(|(_, payload)| payload)
    }

    /// The process at `side` has ended, and sends nothing again: what would arrive after `latest` never does.
    pub(super) fn lose_later(&mut self, side: usize, latest: u64) {
        for stream in self.streams.iter_mut().filter(|((dialler, _), _)| *dialler == (side == 0)).map(|s| s.1)
        {
            stream.queue.retain(|(arrival, _)| *arrival <= latest);
            stream.last_arrival = stream.last_arrival.min(latest);
        }
    }

    /// What is on the way on a stream never arrives.
    pub(super) fn lose(&mut self, stream: StreamId) {
        self.streams.remove(&stream);
    }

    /// What is on the way never arrives, nor what is sent from now on.
    pub(super) fn lose_everything(&mut self) {
        self.broken = true;
        self.streams.clear();
    }

    /// When the last of what was sent by `side` arrives.
    pub(super) fn last_arrival(&self, side: usize) -> u64 {
        let of_side = self.streams.iter().filter(|((dialler, _), _)| *dialler == (side == 0));
        of_side.map(|(_, stream)| stream.last_arrival).max().unwrap_or(0)
    }
}
