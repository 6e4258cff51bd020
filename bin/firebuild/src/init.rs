//! The guest init, built beside this program and carried in it (`build.rs`).

/// The static program that is process 1 of every machine.
pub(crate) static VMINIT: &[u8] = include_bytes!(env!("VMINIT_PATH"));

#[cfg(test)]
mod tests {
    use super::VMINIT;

    #[test]
    fn it_is_a_static_program() {
        assert!(VMINIT.starts_with(b"\x7fELF"));
        // A dynamic one would name its loader, which no initrd has.
        assert!(
            !VMINIT.windows(8).any(|bytes| bytes == b"/ld-linu"),
            "it asks for a loader"
        );
        // A third of it is what runs steps; each guest unpacks it into its memory.
        assert!(VMINIT.len() < 5 << 19, "{} bytes", VMINIT.len());
    }
}
