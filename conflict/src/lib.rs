//! What wins: stamps, operations and conflict-free types, without any I/O.
//!
//! A region's state is a fold of operations ([`op::Op`]) over objects ([`object::Object`], a key's
//! whole state). Delivered in any causal order, with any duplicates, the fold ends in the same
//! state; merging two states gives what delivering the union of their ops would give.
//!
//! | module | room of |
//! |---|---|
//! | [`clock`] | origin, dot, version vector, hybrid logical clock, stamp |
//! | [`op`] | what travels: header and encoded effects |
//! | [`amount`] | exact decimal sums for counters and scores |
//! | [`scalar`] | the resettable register-with-deltas under strings, fields and scores |
//! | [`crdt`] | hash, set, sorted set, expiry |
//! | [`object`] | facets of a key, what shows, apply and merge |
//! | [`edit`] | turns a local command into effects |
//! | [`outcome`] | what applying an op did, and the conflicts it met |
//! | [`digest`] | order-independent digest of what shows |
//! | [`repair`] | when two replicas of a key have diverged, and what mends it |
//! | [`replicated`] | the same types under the traits of the `crdts` crate |

pub mod amount;
pub mod clock;
pub mod crdt;
pub mod digest;
pub mod edit;
pub mod object;
pub mod op;
pub mod outcome;
pub mod repair;
pub mod replicated;
pub mod scalar;
