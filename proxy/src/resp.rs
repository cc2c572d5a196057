//! RESP, the Redis serialization protocol: what applications send, and what they get back.
//!
//! | module | direction | what it does |
//! |---|---|---|
//! | [`request`] | application to Meridian | finds one command in a receive buffer, as ranges, without copying |
//! | [`args`] | | the arguments of one command, borrowed or owned |
//! | [`reply`] | Meridian to application | appends replies in RESP2 or RESP3 |
//! | [`scan`] | as a client | finds where a reply ends, within limits |
//! | [`value`] | as a client | decodes one reply into an owned value |
//! | [`fmt`] | | integers and doubles as Redis reads and prints them |
//!
//! Everything that comes from the network is parsed iteratively, never panics, and never makes us
//! allocate for a length that was declared but not received.

pub mod args;
pub mod fmt;
mod inline;
pub mod reply;
pub mod request;
pub mod scan;
pub mod value;

pub use args::{Args, OwnedArgs};
pub use reply::Reply;
pub use request::{Limits, Parsed, Parser, ProtocolError};
pub use value::Value;

/// The protocol version of a connection: RESP2 until the client says `HELLO 3`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Strings, errors, integers, bulks and arrays.
    #[default]
    Resp2,
    /// Adds maps, sets, doubles, booleans, null, verbatim strings, big numbers and pushes.
    Resp3,
}
