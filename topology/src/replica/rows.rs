//! Gossip of who has durably applied what.

use meridian_conflict::clock::{Origin, RegionId, VersionVector};

use super::link::{Link, merge};
use super::status::Amnesia;
use super::{Effect, Notice, Replica};
use crate::frame::{Control, GoodbyeReason, Row};
use crate::stability::{Merged, Stability};
use crate::time::MonoMs;

/// Bytes of rows in one message, about; the rest follows in the next.
const ROWS_BYTES_MAX: usize = 16 << 10;

/// A row that only shows that its region lives is passed on at every second beat.
const BEATS: u64 = 2;

/// Nothing heard of a member for this many times `heal_after`: it is dialled.
const UNHEARD: u64 = 5;

impl<B: AsRef<[u8]>> Replica<B> {
    /// Everything up to `durable` is safe on disk here.
    pub fn handle_durable(&mut self, now: MonoMs, durable: &VersionVector) {
        let told = self.told(durable);
        if !self.stability.own_durable(&told) {
            return;
        }
        let ack_every_ms = self.settings.ack_every_ms;
        let mut due = false;
        for link in self.links.values_mut().filter(|link| link.greeted.is_some()) {
            link.own_risen = true;
            link.send_rows_soon(now, ack_every_ms);
            due |= link.rows_at.is_some_and(|at| at <= now);
        }
        if due {
            let due = |link: &Link| link.greeted.is_some() && link.rows_at.is_some_and(|at| at <= now);
            let peers: Vec<RegionId> =
                self.links.iter().filter(|(_, link)| due(link)).map(|(peer, _)| *peer).collect();
            peers.into_iter().for_each(|peer| self.send_rows(now, peer));
        }
    }

    /// Who has durably applied what.
    pub fn stability(&self) -> &Stability {
        &self.stability
    }

    /// The same, to ask for the time that has passed everywhere.
    pub fn stability_mut(&mut self) -> &mut Stability {
        &mut self.stability
    }

    /// A new peer is told everything once, its own row included: it may have forgotten.
    pub(super) fn introduce_rows(&mut self, now: MonoMs, peer: RegionId) {
        let known: Vec<RegionId> =
            self.router.members().filter(|m| self.stability.row(*m).is_some()).collect();
        let own = self.region;
        let Some(link) = self.links.get_mut(&peer) else { return };
        link.rows_risen.extend(known.into_iter().filter(|region| *region != own));
        self.send_rows(now, peer);
    }

    /// Sends what rose.
    pub(super) fn send_rows(&mut self, now: MonoMs, peer: RegionId) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        link.rows_at = None;
        link.rows_sent_at = Some(now);
        let mut rows = Vec::new();
        let mut bytes = 0;
        if std::mem::take(&mut link.own_risen) {
            rows.push(rise(link, self.stability.own()));
        }
        while bytes < ROWS_BYTES_MAX
            && let Some(region) = link.rows_risen.pop_first()
        {
            let Some(row) = self.stability.row(region) else { continue };
            let risen = rise(link, row);
            // Region, origin, life, beat and HLC, then origin and sequence of each entry.
            bytes += 40 + 15 * risen.durable.dots.len();
            rows.push(risen);
        }
        if !link.rows_risen.is_empty() {
            link.send_rows_soon(now, self.settings.ack_every_ms);
        }
        if !rows.is_empty() {
            self.send(peer, Control::Stability { rows });
        }
    }

    /// With every heartbeat: the own beat, and others' that rose by some.
    pub(super) fn beat_rows(&mut self, now: MonoMs, peer: RegionId) {
        self.stability.own_beat(now, self.settings.heartbeat_ms / 2);
        let Some(link) = self.links.get_mut(&peer) else { return };
        link.own_risen = true;
        for (region, _) in self.stability.heard().filter(|(region, _)| *region != peer) {
            let beat = |row: Option<&Row>| row.map_or(0, |row| row.beat);
            let known = link.rows_known.get(&region);
            if beat(self.stability.row(region)) >= beat(known) + BEATS {
                link.rows_risen.insert(region);
            }
        }
        self.send_rows(now, peer);
    }

    /// Rows came from `peer`.
    pub(super) fn take_rows(&mut self, now: MonoMs, peer: RegionId, rows: &[Row]) {
        for row in rows {
            if !self.believes(peer, &row.durable) {
                return;
            }
            if let Some(link) = self.links.get_mut(&peer) {
                let origin = link.greeted.as_ref().map(|greeted| greeted.origin);
                if row.region == peer && Some(row.origin) == origin {
                    merge(&mut link.acknowledged, &row.durable);
                }
                learn(link, row);
            }
            match self.stability.merge(now, row) {
                Merged::Nothing | Merged::Beat => {}
                Merged::Risen => self.row_rose(now, peer, row.region),
                Merged::Forgotten(known) => {
                    let remembered = self.stability.own().durable.get(&known.actor);
                    self.forgot(Amnesia { peer, known, remembered });
                    return;
                }
            }
        }
    }

    /// Passes on what rose: at once to those who do not hear it from its own region. That region itself
    /// is told of a former life whose row stands in the way of its present one.
    fn row_rose(&mut self, now: MonoMs, source: RegionId, region: RegionId) {
        let ack_every_ms = self.settings.ack_every_ms;
        let origin = self.stability.row(region).map(|row| row.origin);
        for (peer, link) in &mut self.links {
            if *peer == source || link.greeted.is_none() {
                continue;
            }
            if region == self.region {
                link.own_risen = true;
            } else if *peer != region || link.greeted.as_ref().map(|greeted| greeted.origin) != origin {
                link.rows_risen.insert(region);
            }
            if !self.router.are_neighbours(*peer, region) {
                link.send_rows_soon(now, ack_every_ms);
            }
        }
    }

    /// The disk was put back to an older state: the present origin must not be used any more.
    pub(super) fn forgot(&mut self, amnesia: Amnesia) {
        if !std::mem::replace(&mut self.amnesiac, true) {
            self.effects.push_back(Effect::TakeNewIncarnation(amnesia));
            self.end(GoodbyeReason::NewIncarnation);
        }
    }

    /// Leases, and who is to be looked for because nothing is heard of him.
    pub(super) fn review_members(&mut self, now: MonoMs) {
        for (region, fenced) in self.stability.review(now) {
            let notice = if fenced { Notice::Fenced { region } } else { Notice::Unfenced { region } };
            self.effects.push_back(Effect::Notice(notice));
        }
        let unheard_ms = self.unheard_ms();
        let long = |heard: Option<MonoMs>| heard.is_some_and(|heard| now.since(heard) >= unheard_ms);
        let unheard = self.stability.heard().filter(|(_, heard)| long(*heard)).map(|(region, _)| region);
        self.router.set_unheard(unheard.collect());
    }

    /// When [`Replica::review_members`] has something to do after `reviewed`.
    pub(super) fn members_at(&self, reviewed: MonoMs) -> Option<MonoMs> {
        let unheard = self.stability.heard().filter_map(|(_, heard)| Some(heard?.after(self.unheard_ms())));
        unheard.filter(|at| *at > reviewed).chain(self.stability.review_at()).min()
    }

    fn unheard_ms(&self) -> u64 {
        self.settings.heal_after_ms.saturating_mul(UNHEARD)
    }
}

/// Whether what is known of one row is known of the other. A life that took a greater number did so because
/// a row of a former one stood in its way: where that did, what was known before is forgotten.
fn is_same_life(one: &Row, other: &Row) -> bool {
    (one.origin, one.life) == (other.origin, other.life)
}

/// What `row` has above what the peer knows; counted as known then.
fn rise(link: &mut Link, row: &Row) -> Row {
    let known = link.rows_known.get(&row.region).filter(|known| is_same_life(known, row));
    let above =
        |origin: &Origin, sequence: u64| known.is_none_or(|known| known.durable.get(origin) < sequence);
    let durable: VersionVector = row
        .durable
        .iter()
        .filter(|dot| above(dot.actor, dot.counter))
        .map(|dot| crdts::Dot::new(*dot.actor, dot.counter))
        .collect();
    let risen = Row { durable, ..shell(row) };
    learn(link, &risen);
    risen
}

fn shell(row: &Row) -> Row {
    let Row { region, origin, life, beat, hlc, durable: _ } = *row;
    Row { region, origin, life, beat, hlc, durable: VersionVector::new() }
}

/// The peer knows `row`.
fn learn(link: &mut Link, row: &Row) {
    let known = link.rows_known.entry(row.region).or_insert_with(|| shell(row));
    if !is_same_life(known, row) {
        *known = shell(row);
    }
    (known.life, known.beat, known.hlc) = (row.life, known.beat.max(row.beat), row.hlc);
    merge(&mut known.durable, &row.durable);
}
