//! What wins.
