//! Documents over HTTP.
//!
//! A document that was fetched before is asked for with its `ETag` and `Last-Modified`, so that an unchanged one costs a
//! question. With a checksum, what is there already and matches needs not even that.

use std::io::{Read, Write};
use std::sync::Arc;

use firebuild_oci::Digest;
use firebuild_oci::registry::{Page, RegistryError, RegistryErrorKind, Reply, Wanted};
use firebuild_rootfs::tree::{Content, Inode, InodeId, Kind, Meta, Source, Time, Tree};
use serde::{Deserialize, Serialize};

use super::{Fetched, Remote, RemoteError, RemoteErrorKind as Failed};
use crate::event::Event;
use crate::graph::HttpOp;
use crate::key::KeyWriter;

/// Bytes that are copied at once.
const CHUNK: usize = 128 << 10;

/// A fetched document.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Document {
    /// What a person knows it by.
    name: String,
    /// Its content, a blob of the store.
    pub blob: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// `Last-Modified` in seconds since the epoch.
    pub modified: Option<i64>,
    /// The path of the address that answered, after redirects.
    pub path: String,
    etag: Option<String>,
    last_modified: Option<String>,
}

/// Why one try failed.
enum Tried {
    /// Perhaps not the next time.
    Server(RegistryError),
    Final(RemoteError),
}

impl Remote<'_> {
    /// Fetches a document. The flag says that it was there already.
    ///
    /// # Errors
    /// The text names the address, without credentials.
    pub fn document(
        &self,
        url: &str,
        checksum: Option<&Digest>,
    ) -> Result<(Document, bool), RemoteError> {
        let shown = redacted(url);
        let mut name = KeyWriter::new("http/1");
        name.text(url);
        let key = name.finish();
        let _lock = self.lock(&format!("key-{key}"))?;
        let known: Option<Document> = self
            .store
            .cache_get::<Document>(&key.0)
            .filter(|known| self.store.has_blob(&known.blob));
        if let (Some(known), Some(wanted)) = (&known, checksum)
            && known.blob == *wanted
        {
            return Ok((known.clone(), true));
        }
        let mut tries = self.web.retries();
        let fetched = loop {
            match self.attempt(url, &shown, known.as_ref()) {
                Ok(fetched) => break fetched,
                Err(Tried::Final(error)) => return Err(error),
                Err(Tried::Server(error)) => tries
                    .again(error)
                    .map_err(|error| refused(&shown, url, error))?,
            }
            self.check_cancel()?;
        };
        let (document, cached) = match (fetched, known) {
            (None, Some(known)) => (known, true),
            (None, None) => {
                let message = format!("cannot fetch {shown}: the server says it is unchanged");
                return Err(RemoteError::new(Failed::Server, message));
            }
            (Some(document), known) => {
                let same = known.is_some_and(|known| known.blob == document.blob);
                (document, same)
            }
        };
        if let Some(wanted) = checksum
            && *wanted != document.blob
        {
            let found = document.blob;
            let message = format!("digest mismatch for {shown}: it is {found}, not {wanted}");
            return Err(RemoteError::new(Failed::Checksum, message)
                .hint("the file was changed, or --checksum is that of another version"));
        }
        self.store
            .cache_put(&key.0, &document)
            .map_err(RemoteError::store)?;
        Ok((document, cached))
    }

    /// One request; nothing when what is known is still right.
    fn attempt(
        &self,
        url: &str,
        shown: &str,
        known: Option<&Document>,
    ) -> Result<Option<Document>, Tried> {
        let authorization = self.http_authorization(url);
        let wanted = Wanted {
            url,
            etag: known.and_then(|known| known.etag.as_deref()),
            last_modified: known.and_then(|known| known.last_modified.as_deref()),
            authorization: authorization.as_deref(),
        };
        match self.web.get(&wanted).map_err(Tried::Server)? {
            Reply::Unchanged => Ok(None),
            Reply::Page(page) => self.take(*page, shown).map(Some),
        }
    }

    /// Reads a document into a blob.
    fn take(&self, mut page: Page, shown: &str) -> Result<Document, Tried> {
        let limit = self.limits.document;
        let too_large = || {
            let message = format!("{shown} is larger than {limit} bytes");
            Tried::Final(RemoteError::new(Failed::TooLarge, message))
        };
        let store = |error| Tried::Final(RemoteError::store(error));
        if page.length.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut writer = self.store.blob_writer().map_err(store)?;
        let mut buffer = vec![0; CHUNK];
        let mut size = 0;
        loop {
            let count = match page.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => return Err(Tried::Server(page.lost(error))),
            };
            size += count as u64;
            if size > limit {
                return Err(too_large());
            }
            writer.write_all(&buffer[..count]).map_err(|error| {
                let message = format!("cannot store {shown}");
                Tried::Final(RemoteError::caused(Failed::Store, message, error))
            })?;
            self.progress(shown, size, page.length, false);
        }
        self.progress(shown, size, page.length, true);
        let blob = writer.commit(None).map_err(store)?;
        Ok(Document {
            name: format!("GET {shown}"),
            blob,
            size,
            modified: page.modified,
            path: page.path,
            etag: page.etag,
            last_modified: page.last_modified,
        })
    }

    fn progress(&self, item: &str, current: u64, total: Option<u64>, done: bool) {
        (self.sink.0)(Event::Progress {
            item: item.to_owned(),
            current,
            total,
            done,
        });
    }

    /// A document as a tree of one file.
    ///
    /// # Errors
    /// As [`Remote::document`].
    pub fn http(&self, op: &HttpOp) -> Result<Fetched, RemoteError> {
        let checksum = match &op.checksum {
            None => None,
            Some(text) => Some(text.parse::<Digest>().map_err(|error| {
                RemoteError::caused(Failed::Address, format!("invalid checksum {text:?}"), error)
            })?),
        };
        let (document, cached) = self.document(&op.url, checksum.as_ref())?;
        if op.beside && document.path.ends_with('/') {
            let message = format!("{} is a directory", redacted(&op.url));
            return Err(RemoteError::new(Failed::Address, message).hint(
                "beside a Dockerfile that was fetched by its address, files can be copied one by one only",
            ));
        }
        let mode = if op.beside { 0o644 } else { 0o600 };
        let mut key = KeyWriter::new("http-file/1");
        key.text(&op.file_name).number(mode).digest(&document.blob);
        Ok(Fetched {
            tree: Arc::new(one_file(&op.file_name, mode, &document)),
            id: Digest::from_bytes(key.finish().0),
            time: document.modified,
            cached,
        })
    }

    /// What goes into `Authorization`, from the secrets for the host of an address.
    fn http_authorization(&self, url: &str) -> Option<String> {
        let names = |prefix: &str| -> Vec<String> {
            let authority = authority(url);
            let host = authority
                .rsplit_once(':')
                .map_or(authority, |(host, _)| host);
            [authority, host]
                .map(|host| format!("{prefix}{host}"))
                .to_vec()
        };
        self.secret(&names("HTTP_AUTH_HEADER_")).or_else(|| {
            let token = self.secret(&names("HTTP_AUTH_TOKEN_"))?;
            Some(format!("Bearer {token}"))
        })
    }
}

fn one_file(name: &str, mode: u64, document: &Document) -> Tree {
    let time = Time {
        secs: document.modified.unwrap_or(0),
        nanos: 0,
    };
    let meta = Meta {
        mode: u16::try_from(mode).unwrap_or(0o600),
        mtime: time,
        ..Meta::default()
    };
    let content = Content {
        size: document.size,
        source: Source::Blob {
            id: *document.blob.as_bytes(),
            offset: 0,
        },
    };
    let mut tree = Tree::new();
    tree.insert(
        InodeId::ROOT,
        name.as_bytes(),
        Inode::new(meta, Kind::File(content)),
    )
    .expect("the name of a file of an address is one name, and the tree is empty");
    tree
}

fn refused(shown: &str, url: &str, error: RegistryError) -> RemoteError {
    let kind = error.kind();
    let error = RemoteError::web(shown, error);
    if kind == RegistryErrorKind::Unauthorized {
        let host = authority(url);
        return error.hint(format!(
            "give a token with --secret id=HTTP_AUTH_TOKEN_{host},env=VARIABLE"
        ));
    }
    error
}

/// `host[:port]` of an address.
pub(super) fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host)
}

/// An address without credentials, for people.
pub(super) fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}{}", &rest[end..]),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{authority, redacted};

    #[test]
    fn addresses_for_people_have_no_credentials() {
        for (url, shown, host) in [
            ("http://u:p@h:1/x@y", "http://h:1/x@y", "h:1"),
            ("http://h/x?a=b@c", "http://h/x?a=b@c", "h"),
            ("http://u:p@h", "http://h", "h"),
        ] {
            assert_eq!(redacted(url), shown);
            assert_eq!(authority(url), host);
        }
    }
}
