//! The collection types: per-element metadata, so that one element's change costs the same in a
//! collection of ten and of ten million.

pub mod expiry;
pub mod hash;
pub mod order;
pub mod set;
pub mod sorted_set;
mod table;

pub use expiry::{Deadline, Expiry};
pub use hash::Hash;
pub use set::Set;
pub use sorted_set::{Score, SortedSet};
pub use table::{ElementTable, TablePlace};
