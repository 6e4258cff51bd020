//! `firebuild mmds`: the metadata document of a running guest.

use firebuild_guest_proto::metadata::{Document, MAX_METADATA_BYTES, fits};

use crate::error::Error;
use crate::instance::{InstanceError, InstanceErrorKind, Instances};
use crate::monitor::control::{Answer, Request, ask};
use crate::paths::Paths;

/// The document that the guest finds now.
///
/// # Errors
/// `NotFound`, `Ambiguous`; `NotRunning`; `Control` when it has no metadata service.
pub fn get(paths: &Paths, wanted: &str) -> Result<Document, InstanceError> {
    let answer = tell(paths, wanted, &Request::MmdsGet)?;
    answer.document.ok_or_else(|| {
        Error::new(
            InstanceErrorKind::Control,
            format!("the monitor of the VM {wanted} gives no document"),
        )
    })
}

/// Puts another document in the place of the one that is there.
///
/// # Errors
/// As [`get`]; `Control` for a document that is too large.
pub fn put(paths: &Paths, wanted: &str, document: Document) -> Result<(), InstanceError> {
    check(&document)?;
    tell(paths, wanted, &Request::MmdsPut { document }).map(|_| ())
}

/// Changes members of the document: a JSON merge patch (RFC 7396).
///
/// # Errors
/// As [`put`].
pub fn patch(paths: &Paths, wanted: &str, document: Document) -> Result<(), InstanceError> {
    check(&document)?;
    tell(paths, wanted, &Request::MmdsPatch { document }).map(|_| ())
}

fn check(document: &Document) -> Result<(), InstanceError> {
    if fits(document) {
        Ok(())
    } else {
        Err(Error::new(
            InstanceErrorKind::Control,
            format!("the document is larger than {MAX_METADATA_BYTES} bytes"),
        ))
    }
}

fn tell(paths: &Paths, wanted: &str, request: &Request) -> Result<Answer, InstanceError> {
    let instance = Instances::new(paths).find(wanted)?;
    match ask(&instance, request)? {
        Some(answer) if answer.done => Ok(answer),
        Some(answer) => Err(Error::new(
            InstanceErrorKind::Control,
            format!(
                "the VM {wanted} refuses: {}",
                answer.problem.unwrap_or_default()
            ),
        )),
        None => Err(Error::new(
            InstanceErrorKind::NotRunning,
            format!("the VM {wanted} does not run"),
        )),
    }
}
