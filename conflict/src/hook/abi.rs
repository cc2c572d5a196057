//! How a call travels into a hook that runs in a sandbox, and what comes back (ABI 1).
//!
//! Integers are little endian. *bytes* is a `u32` length and as many bytes.
//!
//! | call of `merge` | form |
//! |---|---|
//! | key | bytes |
//! | field | `u32` `FFFFFFFF` for a string, else bytes |
//! | count | `u32` siblings that follow, by rising stamp |
//! | each sibling | origin `u64`, HLC `u64` (48 bits of Unix milliseconds, 16 of counter), sequence `u64`, value bytes |
//!
//! `merge` returns the merged value's bytes.
//!
//! | call of `merge_hash` | form |
//! |---|---|
//! | key | bytes |
//! | count | `u32` fields that follow, by rising name |
//! | each field | name bytes, count `u32`, siblings as above |
//!
//! `merge_hash` returns: count `u32`, then for each field that is to show its name bytes and value bytes.

use super::{Call, Failure, HashCall, MergedHash, Sibling};

/// Stands for the field's length where there is no field.
const NO_FIELD: u32 = u32::MAX;

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    // Keys and values are limited far below 4 GiB.
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(NO_FIELD - 1).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_siblings(siblings: &[Sibling<'_>], out: &mut Vec<u8>) {
    out.extend_from_slice(&u32::try_from(siblings.len()).unwrap_or(u32::MAX).to_le_bytes());
    for Sibling { stamp, value } in siblings {
        for number in [stamp.dot.actor.0, stamp.hlc.0, stamp.dot.counter] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        put_bytes(value, out);
    }
}

/// Appends the input of `merge`.
pub fn encode_call(call: &Call<'_>, out: &mut Vec<u8>) {
    put_bytes(call.key, out);
    match call.field {
        Some(field) => put_bytes(field, out),
        None => out.extend_from_slice(&NO_FIELD.to_le_bytes()),
    }
    put_siblings(call.siblings, out);
}

/// Appends the input of `merge_hash`.
pub fn encode_hash_call(call: &HashCall<'_>, out: &mut Vec<u8>) {
    put_bytes(call.key, out);
    out.extend_from_slice(&u32::try_from(call.fields.len()).unwrap_or(u32::MAX).to_le_bytes());
    for field in call.fields {
        put_bytes(field.field, out);
        put_siblings(&field.siblings, out);
    }
}

fn take_u32(bytes: &mut &[u8]) -> Result<u32, Failure> {
    let (number, rest) = bytes.split_first_chunk::<4>().ok_or(Failure::BadOutput)?;
    *bytes = rest;
    Ok(u32::from_le_bytes(*number))
}

fn take_bytes(bytes: &mut &[u8]) -> Result<Box<[u8]>, Failure> {
    let length = usize::try_from(take_u32(bytes)?).map_err(|_| Failure::BadOutput)?;
    let (taken, rest) = bytes.split_at_checked(length).ok_or(Failure::BadOutput)?;
    *bytes = rest;
    Ok(taken.into())
}

/// Decodes what `merge_hash` returned.
///
/// # Errors
/// [`Failure::BadOutput`].
pub fn decode_merged_hash(mut bytes: &[u8]) -> Result<MergedHash, Failure> {
    let count = take_u32(&mut bytes)?;
    let mut merged = MergedHash::new();
    // Grows with what is there, never by the count alone.
    for _ in 0..count {
        merged.push((take_bytes(&mut bytes)?, take_bytes(&mut bytes)?));
    }
    if bytes.is_empty() { Ok(merged) } else { Err(Failure::BadOutput) }
}
