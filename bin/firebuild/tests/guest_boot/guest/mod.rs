//! The guest init in real machines, driven without the product's host side.

pub(crate) mod initrd;
pub(crate) mod kernel;
pub(crate) mod machine;
