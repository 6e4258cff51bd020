//! `oci-layout://PATH[:TAG][@DIGEST]` as an image.

use std::path::Path;

use firebuild_build::cancel::Cancel;
use firebuild_build::event::Sink;
use firebuild_build::export::ImageRecord;
use firebuild_build::transfer::{ImportOptions, Limits, import_layout};
use firebuild_oci::{Platform, Reference};
use firebuild_store::Store;

use super::{BuildError, BuildErrorKind};

/// What such a context begins with.
pub(super) const SCHEME: &str = "oci-layout://";

/// Takes an image of a layout into the store, without a name there.
pub(super) fn image(
    store: &Store,
    place: &str,
    platform: &Platform,
    sink: Sink<'_>,
    cancel: &Cancel,
) -> Result<(Reference, ImageRecord), BuildError> {
    let (path, tag, digest) = parse(place);
    let options = ImportOptions {
        name: digest.or(tag).map(str::to_owned),
        platform: platform.clone(),
        limits: Limits::default(),
        named: false,
    };
    let reference = called(path, tag);
    let found = import_layout(store, Path::new(path), &reference, &options, sink, cancel);
    match found {
        Ok(found) => Ok((reference, found)),
        Err(error) => {
            let kind = if cancel.is_raised() {
                BuildErrorKind::Cancelled
            } else {
                BuildErrorKind::Image
            };
            let message = format!("cannot use {SCHEME}{place}");
            Err(BuildError::caused(kind, message, error))
        }
    }
}

/// Path, tag and digest. A colon is part of the path where something of that name is there.
fn parse(place: &str) -> (&str, Option<&str>, Option<&str>) {
    let (place, digest) = match place.rsplit_once("@sha256:") {
        Some((before, _)) => (before, Some(&place[before.len() + 1..])),
        None => (place, None),
    };
    if Path::new(place).exists() {
        return (place, None, digest);
    }
    match place.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag), digest),
        _ => (place, None, digest),
    }
}

/// What people see: the directory's name, as far as it can be one of an image.
fn called(path: &str, tag: Option<&str>) -> Reference {
    let base = Path::new(path).file_name().and_then(|name| name.to_str());
    let tag = tag.unwrap_or("latest");
    base.and_then(|base| format!("layout/{}:{tag}", base.to_lowercase()).parse().ok())
        .unwrap_or_else(|| "layout/image:latest".parse().expect("a constant"))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn places() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, expected) in [
            ("a/b".to_owned(), ("a/b", None, None)),
            ("a/b:v1".to_owned(), ("a/b", Some("v1"), None)),
            (
                format!("/x:y/b@{digest}"),
                ("/x:y/b", None, Some(digest.as_str())),
            ),
            (
                format!("b:1@{digest}"),
                ("b", Some("1"), Some(digest.as_str())),
            ),
        ] {
            assert_eq!(parse(&text), expected);
        }
    }
}
