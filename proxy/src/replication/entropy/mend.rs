//! Mending a key that has diverged, from the peer's state of it.

use meridian_conflict::clock::VersionVector;
use meridian_conflict::object::Object;
use meridian_topology::entropy::{Answer, Ask};
use meridian_topology::seed::{Assembler, Record};
use serde_bytes::ByteBuf;

use super::compare::{Comparison, shown};
use super::{
    EXCHANGE_WITHIN, EntropyError, OBJECT_MAX, RECORD_MAX, SETTLE_WITHIN, Wire, is_applied, judged_at,
};
use crate::keyspace::KeyRef;
use crate::keyspace::compare::Mended;
use crate::keyspace::load::facet_of;

impl<W: Wire> Comparison<'_, W> {
    /// Mends a divergent key, if something of it is missing here. Returns whether it did.
    pub(super) async fn mend(&mut self, database: u8, key: &[u8]) -> Result<bool, EntropyError> {
        let place = KeyRef::new(database, key);
        let durable = self.region.log().durable_lsn().0;
        let now_ms = judged_at(self.region);
        let Some(mine) = self.region.keyspace().observe(&place, now_ms, durable)? else { return Ok(false) };
        let asked = self.region.sequencer().applied();
        let question = Ask::Object { applied: asked.clone(), database, key: ByteBuf::from(key.to_vec()) };
        let (object, theirs) =
            match tokio::time::timeout(EXCHANGE_WITHIN, self.fetch(question, database, key)).await {
                Ok(Ok((object, Some(theirs)))) => (object, theirs),
                // It changed there, or is too large to be sent: it will be found again.
                Ok(Ok((_, None)) | Err(EntropyError::Refused(_))) => return Ok(false),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(EntropyError::Slow),
            };
        if !is_applied(self.region, &theirs, SETTLE_WITHIN).await {
            return Ok(false);
        }
        match self.region.keyspace().mend(&place, mine.mark, &object, &asked, now_ms) {
            Mended::Changed(conflicts) => {
                self.region.note_conflicts(conflicts);
                Ok(true)
            }
            Mended::Moved | Mended::Equal | Mended::Kept => Ok(false),
        }
    }

    async fn fetch(
        &self,
        question: Ask,
        database: u8,
        key: &[u8],
    ) -> Result<(Object, Option<VersionVector>), EntropyError> {
        let mut answers = self.ask(question).await?;
        let mut assembler = Assembler::new(RECORD_MAX);
        let mut object: Option<Object> = None;
        loop {
            let piece = match answers.next().await? {
                Answer::Rows(piece) => piece,
                Answer::End { applied } => {
                    self.count(&answers);
                    return Ok((object.unwrap_or_default(), applied));
                }
                _ => return Err(EntropyError::Protocol("neither rows nor their end")),
            };
            if answers.bytes > OBJECT_MAX as u64 {
                tracing::warn!(peer = self.peer, key = shown(key), "a divergent object is too large to mend");
                return Ok((Object::default(), None));
            }
            assembler.push(&piece);
            while let Some(record) = assembler.next_record()? {
                let malformed = |_| EntropyError::Protocol("a malformed row");
                match (record, &mut object) {
                    (Record::Object { database: of, key: name, head }, None)
                        if (of, name) == (database, key) =>
                    {
                        object = Some(Object::decode_head(head).map_err(malformed)?);
                    }
                    (Record::Element { facet, element, record }, Some(object)) => {
                        let facet = facet_of(facet).ok_or(EntropyError::Protocol("no such facet"))?;
                        object.restore_element(facet, element, record).map_err(malformed)?;
                    }
                    _ => return Err(EntropyError::Protocol("a row that cannot come here")),
                }
            }
        }
    }
}
