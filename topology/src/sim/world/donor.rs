//! Giving one's state: as production does it, a position first and then the store's rows, which go on
//! changing meanwhile.

use super::*;
use crate::seed::{Cursor, Record, Request, SeedRefusal};
use crate::sim::seeding::{Donation, Rows, cursor_of, hash, stream};
use crate::takeover::may_give_while_loading;

/// Streams of takeovers, beside those of ops.
pub(super) const SEED_STREAM: u64 = u64::MAX;

impl World<'_> {
    /// A region wants to take over our state.
    pub(super) fn asked(
        &mut self,
        node: usize,
        asker: usize,
        session: u64,
        number: u64,
        request: &[u8],
    ) -> Result<(), String> {
        let request = Request::decode(request).map_err(|e| e.to_string())?;
        match self.begin_donation(node, self.ids[asker], number, &request) {
            Err(reason) => {
                let refusal = stream(&[Record::Refused { reason }])?;
                self.transmit(node, session, SEED_STREAM, Payload::SeedRows(number, refusal));
            }
            Ok(donation) => {
                self.note(|| format!("{node} gives to {asker}"));
                let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
                process.takeover.donations.insert(session, donation);
                let generation = process.generation;
                self.after(1, 5, Event::Donate { node, generation, session });
            }
        }
        Ok(())
    }

    fn begin_donation(
        &self,
        node: usize,
        asker: RegionId,
        number: u64,
        request: &Request,
    ) -> Result<Donation, SeedRefusal> {
        let this = &self.nodes[node];
        let Some(process) = &this.process else { return Err(SeedRefusal::Draining) };
        let row = process.replica.stability().row(asker);
        let gives = |wanted| row.is_some_and(|row| may_give_while_loading(&row.durable, wanted));
        let torn = process.takeover.stage.as_ref().is_some_and(|stage| !gives(stage.wanted()));
        if torn {
            return Err(SeedRefusal::Loading);
        }
        let donation = match &request.resume {
            None => Donation {
                number,
                pin: this.disk.log.len(),
                position: process.sequencer.position().encode(),
                from: Cursor::default(),
                begun: false,
                ended: false,
            },
            Some((begin, from)) => {
                let has = |mark: &VersionVector| covers_all(begin, mark);
                if !covers_all(process.sequencer.applied(), begin) || !has(process.sequencer.floor()) {
                    return Err(SeedRefusal::StartOver);
                }
                let pin =
                    (this.disk.start..=this.disk.log.len()).rev().find(|at| has(&this.disk.vector_at(*at)));
                let pin = pin.ok_or(SeedRefusal::StartOver)?;
                Donation { number, pin, position: Vec::new(), from: *from, begun: false, ended: false }
            }
        };
        Ok(donation)
    }

    /// Some more rows.
    pub(super) fn donate(&mut self, node: usize, generation: u64, session: u64) -> Result<(), String> {
        if self.running(node, generation).is_none() {
            return Ok(());
        }
        let keys = self.random.between(1, 2) as usize;
        let this = &mut self.nodes[node];
        let Some(process) = &mut this.process else { return Ok(()) };
        let ahead = process.durable_vector.clone();
        let Some(donation) = process.takeover.donations.get_mut(&session).filter(|d| !d.ended) else {
            return Ok(());
        };
        let number = donation.number;
        let bytes = if !donation.begun {
            // No row may be older than the position, and that must be durable.
            if this.disk.store.at < donation.pin || this.disk.durable < donation.pin {
                self.after(2, 15, Event::Donate { node, generation, session });
                return Ok(());
            }
            donation.begun = true;
            let expected = this.disk.store.rows.len() as u64;
            stream(&[Record::Head { position: &donation.position, from: donation.from, keys: expected }])?
        } else {
            let mut rows: Vec<_> =
                this.disk.store.rows.iter().filter(|(key, _)| hash(key) >= donation.from.hash).collect();
            rows.sort_by_key(|(key, _)| hash(key));
            let next = rows.get(keys).map(|(key, _)| hash(key));
            rows.truncate(keys);
            donation.from = cursor_of(next);
            donation.ended = next.is_none();
            let rows: Vec<_> = rows.into_iter().map(|(key, object)| (key, Rows::of(object))).collect();
            let mut records = vec![Record::Ahead { applied: ahead }];
            records.extend(rows.iter().flat_map(|(key, rows)| rows.records(key)));
            records.push(Record::Passed { cursor: donation.from });
            records.extend(donation.ended.then_some(Record::End));
            stream(&records)?
        };
        self.transmit(node, session, SEED_STREAM, Payload::SeedRows(number, bytes));
        self.after(5, 120, Event::Donate { node, generation, session });
        Ok(())
    }

    /// The receiver has caught up: the log need not be kept any more.
    pub(super) fn donated(&mut self, node: usize, session: u64) {
        if let Some(process) = &mut self.nodes[node].process {
            process.takeover.donations.remove(&session);
        }
    }
}
