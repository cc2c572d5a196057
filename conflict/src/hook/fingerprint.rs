//! What regions compare of a hook: the same question must have had the same answer.
//!
//! A question is the hook, how often it was confined or released ([`Asker`]), key, field and siblings. Regions
//! that have other siblings have another question, so lag is never a difference; and what was answered before
//! a hook was released is never compared with what it answers afterwards.

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::{Call, Failure, HashCall, MergedHash, abi};

/// Begins the question about a string or a field.
const VALUES: u8 = 0;

/// Begins the question about a whole hash.
const HASH: u8 = 1;

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asker {
    /// The hook's identity.
    pub hook: [u8; 32],
    /// Its generation in the [quarantine](super::quarantine).
    pub generation: u64,
}

impl Asker {
    fn begin(&self, kind: u8) -> Vec<u8> {
        let mut text = vec![kind];
        text.extend_from_slice(&self.hook);
        text.extend_from_slice(&self.generation.to_le_bytes());
        text
    }

    /// The question about a string or a field.
    pub fn question(&self, call: &Call<'_>) -> u128 {
        let mut text = self.begin(VALUES);
        abi::encode_call(call, &mut text);
        xxh3_128(&text)
    }

    /// The question about a whole hash.
    pub fn hash_question(&self, call: &HashCall<'_>) -> u128 {
        let mut text = self.begin(HASH);
        abi::encode_hash_call(call, &mut text);
        xxh3_128(&text)
    }
}

fn digest<'a>(failure: Option<Failure>, parts: impl IntoIterator<Item = &'a [u8]>) -> u128 {
    let mut hasher = Xxh3::new();
    match failure {
        Some(failure) => {
            hasher.update(&[1]);
            hasher.update(failure.name().as_bytes());
        }
        None => hasher.update(&[0]),
    }
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.digest128()
}

/// An answer about a string or a field. Failures are answers, too: a hook that runs out of fuel does so everywhere.
pub fn answer(answer: &Result<Vec<u8>, Failure>) -> u128 {
    match answer {
        Ok(value) => digest(None, [value.as_slice()]),
        Err(failure) => digest(Some(*failure), []),
    }
}

/// An answer about a whole hash.
pub fn hash_answer(answer: &Result<MergedHash, Failure>) -> u128 {
    match answer {
        Ok(merged) => digest(None, merged.iter().flat_map(|(name, value)| [&**name, &**value])),
        Err(failure) => digest(Some(*failure), []),
    }
}
