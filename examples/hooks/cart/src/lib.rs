//! A merge hook for shopping carts: every item of every sibling, each with the greatest quantity.
//!
//! A cart is text, a line an item: its name, a space, its quantity. What is not of that form is
//! declined, and the newest value shows.

use std::collections::BTreeMap;

/// Merges carts; `None` when one of them is not a cart.
pub fn merge_carts(siblings: &[&[u8]]) -> Option<Vec<u8>> {
    let mut cart: BTreeMap<&str, u32> = BTreeMap::new();
    for sibling in siblings {
        for line in std::str::from_utf8(sibling).ok()?.lines() {
            let (item, quantity) = line.rsplit_once(' ')?;
            let quantity: u32 = quantity.parse().ok()?;
            let known = cart.entry(item).or_default();
            *known = quantity.max(*known);
        }
    }
    Some(cart.iter().map(|(item, quantity)| format!("{item} {quantity}\n")).collect::<String>().into_bytes())
}

/// The values of a call, oldest first; `None` when it is not of ABI 1.
pub fn values(mut call: &[u8]) -> Option<Vec<&[u8]>> {
    const NO_FIELD: u32 = u32::MAX;
    let _key = bytes(&mut call)?;
    if u32::from_le_bytes(*call.first_chunk()?) == NO_FIELD {
        number(&mut call)?;
    } else {
        let _field = bytes(&mut call)?;
    }
    let count = number(&mut call)?;
    let mut values = Vec::new();
    for _ in 0..count {
        // Origin, HLC and sequence.
        call = call.get(24..)?;
        values.push(bytes(&mut call)?);
    }
    Some(values)
}

fn number(call: &mut &[u8]) -> Option<u32> {
    let (number, rest) = call.split_first_chunk::<4>()?;
    *call = rest;
    Some(u32::from_le_bytes(*number))
}

fn bytes<'a>(call: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = number(call)?;
    let (bytes, rest) = call.split_at_checked(length as usize)?;
    *call = rest;
    Some(bytes)
}

#[cfg(target_arch = "wasm32")]
mod export {
    /// Room for a call. Never given back: an instance serves one call.
    #[unsafe(no_mangle)]
    extern "C" fn alloc(bytes: usize) -> *mut u8 {
        vec![0; bytes].leak().as_mut_ptr()
    }

    /// Merges the call at `at`; the answer's address stands in the high half, its length in the low
    /// half, and -1 declines.
    #[unsafe(no_mangle)]
    extern "C" fn merge(at: *const u8, bytes: usize) -> i64 {
        // SAFETY: the proxy wrote `bytes` bytes to the address that `alloc` gave it for as many.
        let call = unsafe { std::slice::from_raw_parts(at, bytes) };
        match super::values(call).and_then(|values| super::merge_carts(&values)) {
            Some(merged) => {
                let merged = merged.leak();
                ((merged.as_ptr() as i64) << 32) | merged.len() as i64
            }
            None => -1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_with_its_greatest_quantity() {
        let merged = merge_carts(&[b"tea 2\nrice 1\n", b"tea 3\nmilk 1\n"]).unwrap();
        assert_eq!(merged, b"milk 1\nrice 1\ntea 3\n");
        assert_eq!(merge_carts(&[b"", b""]).unwrap(), b"");
        assert_eq!(merge_carts(&[b"tea 2", b"what?"]), None);
    }

    #[test]
    fn a_call_is_read_as_the_abi_says() {
        let mut call = Vec::new();
        call.extend([1, 0, 0, 0, b'k', 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0]);
        for value in [&b"tea 2"[..], b""] {
            call.extend([0; 24]);
            call.extend((value.len() as u32).to_le_bytes());
            call.extend(value);
        }
        assert_eq!(values(&call).unwrap(), [&b"tea 2"[..], b""]);
        for length in 0..call.len() {
            assert_eq!(values(&call[..length]), None);
        }
    }
}
