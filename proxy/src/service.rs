//! To come.
pub mod link_state;
pub use link_state::{LinkState, LinkStates};
