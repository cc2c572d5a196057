//! A merge hook for shopping carts, for values and for whole hashes.
//!
//! - A cart in a string (`merge`) is text, a line an item: its name, a space, its quantity. Every item of every
//!   sibling is in the merged cart, each with the greatest quantity.
//! - A cart in a hash (`merge_hash`) has a field for each item, whose value is the quantity, and a field `total`: the
//!   sum of them. Each item has the greatest of its quantities, and the total is what then is in the cart. Field by
//!   field that could not be had: no total that any region has written is the merged cart's.
//!
//! What is not of that form is declined, and the newest value shows.

use std::collections::BTreeMap;

/// The field of a hash that is no item.
const TOTAL: &str = "total";

/// Quantities by item.
type Cart<'a> = BTreeMap<&'a str, u32>;

/// A field of a hash with the values that are alive.
type Field<'a> = (&'a [u8], Vec<&'a [u8]>);

/// Merges carts that are strings; `None` when one of them is not a cart.
pub fn merge_carts(siblings: &[&[u8]]) -> Option<Vec<u8>> {
    let mut cart = Cart::new();
    for sibling in siblings {
        for line in std::str::from_utf8(sibling).ok()?.lines() {
            let (item, quantity) = line.rsplit_once(' ')?;
            put(&mut cart, item, quantity.parse().ok()?);
        }
    }
    Some(cart.iter().map(|(item, quantity)| format!("{item} {quantity}\n")).collect::<String>().into_bytes())
}

/// Merges a cart that is a hash: its fields with their new values, by rising name. `None` when it is not a cart.
pub fn merge_fields(fields: &[Field<'_>]) -> Option<BTreeMap<String, String>> {
    let mut cart = Cart::new();
    let mut has_total = false;
    for (name, siblings) in fields {
        let name = std::str::from_utf8(name).ok()?;
        if name == TOTAL {
            has_total = true;
            continue;
        }
        for sibling in siblings {
            put(&mut cart, name, std::str::from_utf8(sibling).ok()?.parse().ok()?);
        }
    }
    let mut merged: BTreeMap<String, String> =
        cart.iter().map(|(item, quantity)| ((*item).to_owned(), quantity.to_string())).collect();
    // A hook may not add fields.
    if has_total {
        let total: u64 = cart.values().map(|quantity| u64::from(*quantity)).sum();
        merged.insert(TOTAL.to_owned(), total.to_string());
    }
    Some(merged)
}

fn put<'a>(cart: &mut Cart<'a>, item: &'a str, quantity: u32) {
    let known = cart.entry(item).or_default();
    *known = quantity.max(*known);
}

/// The values of a call of `merge`, oldest first; `None` when it is not of ABI 1.
pub fn values(mut call: &[u8]) -> Option<Vec<&[u8]>> {
    const NO_FIELD: [u8; 4] = [0xff; 4];
    let _key = bytes(&mut call)?;
    if call.starts_with(&NO_FIELD) {
        number(&mut call)?;
    } else {
        let _field = bytes(&mut call)?;
    }
    siblings(&mut call)
}

/// The fields of a call of `merge_hash`, by rising name; `None` when it is not of ABI 1.
pub fn fields(mut call: &[u8]) -> Option<Vec<Field<'_>>> {
    let _key = bytes(&mut call)?;
    (0..number(&mut call)?).map(|_| Some((bytes(&mut call)?, siblings(&mut call)?))).collect()
}

/// The answer of `merge_hash`.
pub fn encode_fields(fields: &BTreeMap<String, String>) -> Vec<u8> {
    let mut answer = (fields.len() as u32).to_le_bytes().to_vec();
    for text in fields.iter().flat_map(|(name, value)| [name, value]) {
        answer.extend((text.len() as u32).to_le_bytes());
        answer.extend(text.as_bytes());
    }
    answer
}

fn siblings<'a>(call: &mut &'a [u8]) -> Option<Vec<&'a [u8]>> {
    // Origin, HLC and sequence of each.
    const STAMP_BYTES: usize = 24;
    let count = number(call)?;
    let sibling = |_| {
        take(call, STAMP_BYTES)?;
        bytes(call)
    };
    (0..count).map(sibling).collect()
}

fn number(call: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(take(call, 4)?.try_into().ok()?))
}

fn bytes<'a>(call: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = number(call)?;
    take(call, length as usize)
}

fn take<'a>(call: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = (call.get(..length)?, call.get(length..)?);
    *call = rest;
    Some(taken)
}

#[cfg(target_arch = "wasm32")]
mod export {
    /// Room for a call. Never given back: an instance serves one call.
    #[no_mangle]
    extern "C" fn alloc(bytes: usize) -> *mut u8 {
        vec![0; bytes].leak().as_mut_ptr()
    }

    #[no_mangle]
    extern "C" fn merge(at: *const u8, bytes: usize) -> i64 {
        let values = super::values(call(at, bytes));
        answer(values.and_then(|values| super::merge_carts(&values)))
    }

    #[no_mangle]
    extern "C" fn merge_hash(at: *const u8, bytes: usize) -> i64 {
        let merged = super::fields(call(at, bytes)).and_then(|fields| super::merge_fields(&fields));
        answer(merged.map(|fields| super::encode_fields(&fields)))
    }

    fn call(at: *const u8, bytes: usize) -> &'static [u8] {
        // SAFETY: the proxy wrote `bytes` bytes to the address that `alloc` gave it for as many.
        unsafe { std::slice::from_raw_parts(at, bytes) }
    }

    /// The answer's address in the high half, its length in the low half; -1 declines.
    fn answer(merged: Option<Vec<u8>>) -> i64 {
        match merged {
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
    fn a_hash_s_total_is_that_of_what_is_in_it() {
        let merged = |fields: &[Field<'_>]| merge_fields(fields).map(|fields| encode_fields(&fields));
        let cart: [Field<'_>; 3] =
            [(b"rice", vec![b"1"]), (b"tea", vec![b"2", b"3"]), (b"total", vec![b"3", b"3"])];
        assert_eq!(
            merged(&cart).unwrap(),
            b"\x03\0\0\0\x04\0\0\0rice\x01\0\0\x001\x03\0\0\0tea\x01\0\0\x003\x05\0\0\0total\x01\0\0\x004"
        );
        assert_eq!(merged(&cart[1..2]).unwrap(), b"\x01\0\0\0\x03\0\0\0tea\x01\0\0\x003");
        assert_eq!(merged(&[(b"tea", vec![b"2", b"many"])]), None);
        assert_eq!(merged(&[(b"\xff", vec![b"2"])]), None);
    }

    fn put_bytes(bytes: &[u8], call: &mut Vec<u8>) {
        call.extend((bytes.len() as u32).to_le_bytes());
        call.extend(bytes);
    }

    fn put_siblings(values: &[&[u8]], call: &mut Vec<u8>) {
        call.extend((values.len() as u32).to_le_bytes());
        for value in values {
            call.extend([0; 24]);
            put_bytes(value, call);
        }
    }

    #[test]
    fn a_call_is_read_as_the_abi_says() {
        let (mut of_string, mut of_field) = (Vec::new(), Vec::new());
        put_bytes(b"k", &mut of_string);
        of_string.extend([0xff; 4]);
        put_bytes(b"k", &mut of_field);
        put_bytes(b"field", &mut of_field);
        for mut call in [of_string, of_field] {
            put_siblings(&[b"tea 2", b""], &mut call);
            assert_eq!(values(&call).unwrap(), [&b"tea 2"[..], b""]);
            for length in 0..call.len() {
                assert_eq!(values(&call[..length]), None);
            }
        }
    }

    #[test]
    fn a_call_for_a_whole_hash_is_read_as_the_abi_says() {
        let mut call = Vec::new();
        put_bytes(b"k", &mut call);
        call.extend(2_u32.to_le_bytes());
        put_bytes(b"tea", &mut call);
        put_siblings(&[b"2", b"3"], &mut call);
        put_bytes(b"total", &mut call);
        put_siblings(&[b"2"], &mut call);
        let expected: [Field<'_>; 2] = [(b"tea", vec![b"2", b"3"]), (b"total", vec![b"2"])];
        assert_eq!(fields(&call).unwrap(), expected);
        for length in 0..call.len() {
            assert_eq!(fields(&call[..length]), None);
        }
    }
}
