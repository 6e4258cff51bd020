//! Image layouts on disk.
