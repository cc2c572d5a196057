//! The part of Meridian that touches the world: sockets, disks, clocks and processes.
//!
//! `meridian-conflict` says what wins, `meridian-topology` says how operations travel; this crate
//! speaks RESP to applications, keeps the op log and the embedded store, and carries ops over QUIC.

pub mod admin;
pub mod cert;
pub mod cli;
pub mod command;
pub mod config;
pub mod homes;
pub mod hook;
pub mod inbox;
pub mod keyspace;
pub mod link;
pub mod metrics;
pub mod oplog;
pub mod policies;
pub mod region;
pub mod replication;
pub mod resp;
pub mod sequencer;
pub mod service;
pub mod session;
pub mod store;
