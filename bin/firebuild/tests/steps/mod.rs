//! What the cases of the sandbox find here in place of the sandbox.

pub(crate) mod subject;

/// In a VM everybody is its root.
pub(crate) mod user {
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Who {
        Root,
        Ranges,
        Single,
    }
}
