//! The guest init in real machines, driven without the product's host side.

pub mod initrd;
pub mod kernel;
pub mod machine;
