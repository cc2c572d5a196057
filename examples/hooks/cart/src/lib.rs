//! A merge hook for shopping carts, for values and for whole hashes.
//!
//! - A cart in a string (`merge`) is text, a line an item: its name, a space, its quantity. Every item of every
//!   sibling is in the merged cart, each with the greatest quantity.
//! - A cart in a hash (`merge_hash`) has a field for each item, whose value is the quantity, and a field `total`: the
//!   sum of them. Each item has the greatest of its quantities, and the total is what then is in the cart. Field by
//!   field that could not be had: no total that any region has written is the merged cart's.
//!
//! What is not of that form is declined, and the newest value shows. So it does where the carts are too long for the fuel
//! of a call: that suffices for some four hundred lines of each.

/// The field of a hash that is no item.
const TOTAL: &[u8] = b"total";

/// Items with their quantities. A call has fuel for some hundred simple instructions a line, so this is a list that is
/// sorted once and no tree, and numbers are read and written without Rust's formatting.
type Cart<'a> = Vec<(&'a [u8], u32)>;

/// A field of a hash with the values that are alive.
type Field<'a> = (&'a [u8], Vec<&'a [u8]>);

/// Fields of a merged hash with their values.
type Fields<'a> = Vec<(&'a [u8], Vec<u8>)>;

/// Merges carts that are strings; `None` when one of them is not a cart.
pub fn merge_carts(siblings: &[&[u8]]) -> Option<Vec<u8>> {
    let mut cart = Cart::new();
    for sibling in siblings {
        for line in sibling.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let space = line.iter().rposition(|byte| *byte == b' ')?;
            cart.push((&line[..space], quantity(&line[space + 1..])?));
        }
    }
    let mut merged = Vec::new();
    for (item, quantity) in greatest(cart) {
        merged.extend_from_slice(item);
        merged.push(b' ');
        put_number(quantity.into(), &mut merged);
        merged.push(b'\n');
    }
    Some(merged)
}

/// Merges a cart that is a hash: its fields with their new values. `None` when it is not a cart.
pub fn merge_fields<'a>(fields: &[Field<'a>]) -> Option<Fields<'a>> {
    let mut cart = Cart::new();
    for (item, siblings) in fields.iter().filter(|(name, _)| *name != TOTAL) {
        for sibling in siblings {
            cart.push((item, quantity(sibling)?));
        }
    }
    let cart = greatest(cart);
    let text = |number| {
        let mut text = Vec::new();
        put_number(number, &mut text);
        text
    };
    let mut merged: Fields<'a> =
        cart.iter().map(|(item, quantity)| (*item, text((*quantity).into()))).collect();
    // A hook may not add fields.
    if fields.iter().any(|(name, _)| *name == TOTAL) {
        merged.push((TOTAL, text(cart.iter().map(|(_, quantity)| u64::from(*quantity)).sum())));
    }
    Some(merged)
}

/// Each item once, with its greatest quantity, by rising name.
fn greatest(mut cart: Cart<'_>) -> Cart<'_> {
    // Merged carts are sorted already: the stable sort makes use of that.
    cart.sort_by(|one, other| one.0.cmp(other.0));
    cart.dedup_by(|again, kept| {
        let same = again.0 == kept.0;
        if same {
            kept.1 = kept.1.max(again.1);
        }
        same
    });
    cart
}

fn quantity(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u32, |number, byte| match byte {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add((byte - b'0').into()),
        _ => None,
    })
}

fn put_number(mut number: u64, out: &mut Vec<u8>) {
    let start = out.len();
    loop {
        out.push(b'0' + (number % 10) as u8);
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out[start..].reverse();
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
pub fn encode_fields(fields: &[(&[u8], Vec<u8>)]) -> Vec<u8> {
    let mut answer = (fields.len() as u32).to_le_bytes().to_vec();
    for (name, value) in fields {
        for bytes in [*name, value] {
            answer.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            answer.extend_from_slice(bytes);
        }
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
        assert_eq!(merged(&[(b"tea", vec![b""])]), None);
        assert_eq!(merged(&[(b"tea", vec![b"4294967296"])]), None);
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
