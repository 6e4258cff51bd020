//! guest-proto
