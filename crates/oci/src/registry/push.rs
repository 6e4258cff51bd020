//! Uploads: blobs in one piece, manifests byte for byte.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use reqwest::blocking::Body;
use reqwest::{Method, StatusCode};

use super::Registry;
use super::auth::Action;
use super::error::{RegistryError, RegistryErrorKind as Kind};
use super::transport::{Call, Tries, check, location};
use crate::{Descriptor, Digest, Reference};

/// An upload that is slower than this, in bytes per second, is given up.
const SLOWEST: u64 = 16 << 10;

/// Called with the number of bytes that were sent so far.
pub type UploadProgress = Arc<dyn Fn(u64) + Send + Sync>;

impl Registry {
    /// Whether the repository of `reference` has a blob.
    ///
    /// # Errors
    /// The text names reference and digest.
    pub fn blob_exists(
        &self,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        let mut tries = Tries::new(self.transport.options());
        loop {
            match self.head_blob(reference, digest) {
                Ok(found) => return Ok(found),
                Err(error) => {
                    tries.again(error).map_err(|error| {
                        error.during(format!("cannot look for {digest} in {reference}"))
                    })?;
                }
            }
        }
    }

    fn head_blob(&self, reference: &Reference, digest: &Digest) -> Result<bool, RegistryError> {
        let call = Call::new(
            Method::HEAD,
            self.url(reference, &format!("blobs/{digest}"))?,
        );
        // With the rights that the upload will need, so that one token serves both.
        let response = self.request(reference, Action::Push, &call)?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        check(response).map(|_| true)
    }

    /// Uploads a blob, unless the repository has it. `open` gives the content from its beginning, once for each try.
    ///
    /// # Errors
    /// The text names reference and digest. The registry verifies the digest.
    pub fn push_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        open: &dyn Fn() -> io::Result<Box<dyn Read + Send>>,
        progress: &UploadProgress,
    ) -> Result<(), RegistryError> {
        if self.blob_exists(reference, &descriptor.digest)? {
            progress(descriptor.size);
            return Ok(());
        }
        let mut tries = Tries::new(self.transport.options());
        loop {
            match self.upload_once(reference, descriptor, open, progress) {
                Ok(()) => return Ok(()),
                Err(error) => tries.again(error).map_err(|error| {
                    error.during(format!("cannot push {} to {reference}", descriptor.digest))
                })?,
            }
        }
    }

    /// Has the registry take a blob from another of its repositories, `from`. Whether it did; if not, nothing happened,
    /// and an upload says what may be wrong: registries refuse to take what the caller may not read, each in its way.
    ///
    /// # Errors
    /// The text names reference and digest.
    pub fn mount_blob(
        &self,
        reference: &Reference,
        digest: &Digest,
        from: &str,
    ) -> Result<bool, RegistryError> {
        let mut tries = Tries::new(self.transport.options());
        loop {
            match self.mount_once(reference, digest, from) {
                Ok(taken) => return Ok(taken),
                Err(error)
                    if matches!(
                        error.kind(),
                        Kind::NotFound | Kind::Unauthorized | Kind::Refused
                    ) =>
                {
                    return Ok(false);
                }
                Err(error) => tries.again(error).map_err(|error| {
                    error.during(format!("cannot mount {digest} of {from} in {reference}"))
                })?,
            }
        }
    }

    fn mount_once(
        &self,
        reference: &Reference,
        digest: &Digest,
        from: &str,
    ) -> Result<bool, RegistryError> {
        let mut url = self.url(reference, "blobs/uploads/")?;
        url.query_pairs_mut()
            .append_pair("mount", &digest.to_string())
            .append_pair("from", from);
        let mut call = Call::new(Method::POST, url.clone());
        call.body = Some(Vec::new());
        let response = self.request(reference, Action::Push, &call)?;
        if response.status() == StatusCode::CREATED {
            return Ok(true);
        }
        // The registry began an upload instead: it is told that none will come. What it says to that does not matter.
        let response = check(response)?;
        if let Ok(upload) = location(&response, &url)
            && upload.origin() == url.origin()
        {
            let _ = self.request(reference, Action::Push, &Call::new(Method::DELETE, upload));
        }
        Ok(false)
    }

    fn upload_once(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        open: &dyn Fn() -> io::Result<Box<dyn Read + Send>>,
        progress: &UploadProgress,
    ) -> Result<(), RegistryError> {
        let base = self.url(reference, "blobs/uploads/")?;
        let mut call = Call::new(Method::POST, base.clone());
        call.body = Some(Vec::new());
        let response = check(self.request(reference, Action::Push, &call)?)?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(RegistryError::new(
                Kind::Protocol,
                format!(
                    "{} answers the begin of an upload with {}",
                    reference.registry(),
                    response.status()
                ),
            ));
        }
        let mut url = location(&response, &base)?;
        url.query_pairs_mut()
            .append_pair("digest", &descriptor.digest.to_string());
        // Credentials are for the registry, not for wherever it lets us upload to.
        let token = self
            .tokens
            .get(reference, Action::Push)
            .filter(|_| url.origin() == base.origin());
        let mut call = Call::new(Method::PUT, url);
        call.content_type = Some("application/octet-stream".to_owned());
        call.timeout = Some(
            self.transport.options().stall_timeout + Duration::from_secs(descriptor.size / SLOWEST),
        );
        let content = open().map_err(|error| {
            RegistryError::with(Kind::Local, "cannot read what to upload", error)
        })?;
        let counted = Counted {
            inner: content,
            count: 0,
            progress: Arc::clone(progress),
        };
        let body = Body::sized(counted, descriptor.size);
        check(self.transport.upload(&call, token.as_ref(), body)?)?;
        Ok(())
    }

    /// Uploads a manifest or an index, byte for byte, under the tag of `reference` (or its digest, if it has one).
    ///
    /// # Errors
    /// The text names the reference. Everything that the manifest names must be there already.
    pub fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        let digest = Digest::of(bytes);
        let name = match (reference.digest(), reference.tag()) {
            (Some(wanted), _) if *wanted != digest => {
                return Err(RegistryError::new(
                    Kind::Refused,
                    format!("cannot push a manifest with digest {digest} as {reference}"),
                ));
            }
            (Some(wanted), _) => wanted.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let mut tries = Tries::new(self.transport.options());
        loop {
            let result = self
                .url(reference, &format!("manifests/{name}"))
                .and_then(|url| {
                    let mut call = Call::new(Method::PUT, url);
                    call.content_type = Some(media_type.to_owned());
                    call.body = Some(bytes.to_vec());
                    check(self.request(reference, Action::Push, &call)?)
                });
            match result {
                Ok(_) => return Ok(digest),
                Err(error) => {
                    tries.again(error).map_err(|error| {
                        error.during(format!("cannot push the manifest of {reference}"))
                    })?;
                }
            }
        }
    }
}

/// Counts what is read.
struct Counted {
    inner: Box<dyn Read + Send>,
    count: u64,
    progress: UploadProgress,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        (self.progress)(self.count);
        Ok(count)
    }
}
