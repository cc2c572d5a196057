//! Planted bugs: each leaves out one rule, to see whether its absence is found.

/// A rule left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// Nothing is wrong.
    None,
    /// What was applied is applied again when it comes again.
    NoDedupe,
    /// Deps are not looked at.
    NoCausalGate,
    /// Clients get their reply before the flush.
    AcknowledgeBeforeDurable,
    /// Peers get an acknowledgement before the flush.
    PeerAckBeforeDurable,
    /// Ops leave before they are durable, under `always`.
    ReplicateBeforeDurable,
    /// After losing the tail of the log, numbering goes on where it broke off.
    IncarnationKept,
    /// A region whose disk is empty goes on under its former incarnation.
    IdentityOutlivesDisk,
    /// The clock starts from the wall clock after a restart.
    ClockNotRestored,
    /// Ops of others are not passed on.
    ForwardOwnOnly,
    /// Of two writes at the same time each region prefers its own.
    NoTieBreak,
    /// A feed goes on where it was, whatever the subscriber asks for.
    CursorSurvives,
    /// A store commit carries the position of its end, not of its beginning.
    PositionAfterRows,
    /// The store is written ahead of the log.
    StoreBeforeLog,
    /// The position is stored without the contexts.
    ContextsForgotten,
    /// Removals and overwrites take along what their writer had not seen.
    SeenEverything,
    /// Nobody is ever seen to be ahead.
    GradientOff,
    /// Links beyond those of the topology are not dialled.
    DialsIgnored,
    /// Feeders that come back seem to live on what we give them.
    NoReturn,
    /// Links that nobody needs are not closed.
    LinksKept,
    /// Of who has applied what, only the neighbours' own word is taken.
    RowsNotRelayed,
    /// Region 0 is taken to have applied whatever we have.
    StableIgnoresOne,
    /// Rows tell what is applied, durable or not.
    RowsOfApplied,
    /// A dead region is waited for for ever.
    FenceNever,
    /// One member does not hear that another was removed.
    RemovalIgnored,
    /// A takeover replaces what is there.
    SeedNotMerged,
    /// What a takeover brings is counted as applied before it is there.
    VectorBeforeState,
    /// A log is taken to reach back over what a takeover has jumped.
    FloorIgnored,
    /// A region tells a later clock than it will stamp with.
    ClockToldAhead,
}

impl Mutant {
    /// All that have to be found.
    pub const ALL: [Mutant; 28] = [
        Mutant::NoDedupe,
        Mutant::NoCausalGate,
        Mutant::AcknowledgeBeforeDurable,
        Mutant::PeerAckBeforeDurable,
        Mutant::ReplicateBeforeDurable,
        Mutant::IncarnationKept,
        Mutant::IdentityOutlivesDisk,
        Mutant::ClockNotRestored,
        Mutant::ForwardOwnOnly,
        Mutant::NoTieBreak,
        Mutant::CursorSurvives,
        Mutant::PositionAfterRows,
        Mutant::StoreBeforeLog,
        Mutant::ContextsForgotten,
        Mutant::SeenEverything,
        Mutant::GradientOff,
        Mutant::DialsIgnored,
        Mutant::NoReturn,
        Mutant::LinksKept,
        Mutant::RowsNotRelayed,
        Mutant::StableIgnoresOne,
        Mutant::RowsOfApplied,
        Mutant::FenceNever,
        Mutant::RemovalIgnored,
        Mutant::SeedNotMerged,
        Mutant::VectorBeforeState,
        Mutant::FloorIgnored,
        Mutant::ClockToldAhead,
    ];
}
