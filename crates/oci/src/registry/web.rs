//! Any document over HTTP: what `ADD https://…` and contexts by address are fetched with.
//!
//! The same connections, redirects, time limits and tries as the registry client's; no credentials but those that the
//! address or the caller gives, and these go to the first host only. Compression is neither asked for nor taken off: the
//! bytes are those that a checksum is about.

use std::io::{self, Read};

use reqwest::header::{
    ETAG, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED,
};
use reqwest::{Method, StatusCode, Url};

use super::answer::Answer;
use super::auth::base64;
use super::download::lost;
use super::error::{RegistryError, RegistryErrorKind as Kind};
use super::options::Options;
use super::transport::{Call, Transport, Tries, base_name, check};

/// A client for documents.
#[derive(Debug)]
pub struct Web {
    transport: Transport,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'a> {
    /// An `http` or `https` address.
    pub url: &'a str,
    /// The `ETag` of what is there already.
    pub etag: Option<&'a str>,
    /// The `Last-Modified` of what is there already, as the server wrote it.
    pub last_modified: Option<&'a str>,
    /// Value of the `Authorization` header, before that of the address.
    pub authorization: Option<&'a str>,
}

/// What the server says.
#[derive(Debug)]
pub enum Reply {
    /// What is there already is still right.
    Unchanged,
    /// The document.
    Page(Box<Page>),
}

/// A document: its head, and its bytes as a reader.
#[derive(Debug)]
pub struct Page {
    /// The path of the address that answered, after redirects.
    pub path: String,
    /// `ETag`, as the server wrote it.
    pub etag: Option<String>,
    /// `Last-Modified`, as the server wrote it.
    pub last_modified: Option<String>,
    /// The same in seconds since the epoch, if it can be read.
    pub modified: Option<i64>,
    /// Bytes of the body, if the server tells.
    pub length: Option<u64>,
    host: String,
    answer: Answer,
    /// Bytes that were read.
    count: u64,
}

impl Web {
    /// A client.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            transport: Transport::new(options),
        }
    }

    /// Asks for a document and waits for its head. A status that is no success is an error.
    ///
    /// # Errors
    /// The text names the host; an answer that cannot be had twice may be had later, see [`Web::retries`].
    pub fn get(&self, wanted: &Wanted<'_>) -> Result<Reply, RegistryError> {
        let mut url = Url::parse(wanted.url).map_err(|error| {
            RegistryError::with(
                Kind::Protocol,
                format!("invalid address {:?}", wanted.url),
                error,
            )
        })?;
        let authorization = authorization(&mut url, wanted.authorization)?;
        url.set_fragment(None);
        let mut call = Call::new(Method::GET, url);
        // As every client for files does; a checksum is what protects.
        call.downgrade = true;
        for (name, value) in [
            (IF_NONE_MATCH, wanted.etag),
            (IF_MODIFIED_SINCE, wanted.last_modified),
        ] {
            if let Some(value) = value {
                call.headers.push((name, header(value)?));
            }
        }
        let answer = self.transport.send(&call, authorization.as_ref())?;
        let conditional = wanted.etag.is_some() || wanted.last_modified.is_some();
        if conditional && answer.status() == StatusCode::NOT_MODIFIED {
            return Ok(Reply::Unchanged);
        }
        let answer = check(answer)?;
        if answer.status() != StatusCode::OK {
            return Err(RegistryError::new(
                Kind::Protocol,
                format!("{} answers {}", base_name(answer.url()), answer.status()),
            ));
        }
        let last_modified = text(&answer, &LAST_MODIFIED);
        Ok(Reply::Page(Box::new(Page {
            path: answer.url().path().to_owned(),
            etag: text(&answer, &ETAG),
            modified: last_modified.as_deref().and_then(http_time),
            last_modified,
            length: answer.content_length(),
            host: base_name(answer.url()),
            answer,
            count: 0,
        })))
    }

    /// Counts the tries of one document.
    #[must_use]
    pub fn retries(&self) -> Retries<'_> {
        Retries(Tries::new(self.transport.options()))
    }
}

/// The tries of one document, and the pauses between them.
#[derive(Debug)]
pub struct Retries<'a>(Tries<'a>);

impl Retries<'_> {
    /// Pauses if `error` may pass and was not seen too often; else hands it back.
    ///
    /// # Errors
    /// `error` itself.
    pub fn again(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.0.again(error)
    }
}

impl Page {
    /// What a failed read of this page means.
    #[must_use]
    pub fn lost(&self, error: io::Error) -> RegistryError {
        lost(&self.host, error)
    }
}

impl Read for Page {
    /// A body that ends before its announced length is an error.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.answer.read(buffer)?;
        self.count += count as u64;
        match self.length {
            Some(length) if count == 0 && self.count < length && !buffer.is_empty() => {
                Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("it ended after {} of {length} bytes", self.count),
                ))
            }
            _ => Ok(count),
        }
    }
}

/// The header that the caller gave, else that of `user:password@` in the address, which is taken out of it.
fn authorization(url: &mut Url, given: Option<&str>) -> Result<Option<HeaderValue>, RegistryError> {
    let user = percent_decoded(url.username());
    let password = url.password().map(percent_decoded);
    // Neither can fail: an HTTP address has a host.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    let mut value = match (given, user.is_empty() && password.is_none()) {
        (Some(given), _) => header(given)?,
        (None, true) => return Ok(None),
        (None, false) => {
            let pair = format!("{user}:{}", password.unwrap_or_default());
            header(&format!("Basic {}", base64(pair.as_bytes())))?
        }
    };
    value.set_sensitive(true);
    Ok(Some(value))
}

fn header(text: &str) -> Result<HeaderValue, RegistryError> {
    HeaderValue::from_str(text).map_err(|_| {
        RegistryError::new(
            Kind::Protocol,
            "a header has characters that are not allowed",
        )
    })
}

/// Text with `%xx` escapes, as in the user names and passwords of addresses; what is no escape stays.
#[must_use]
pub fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escape = (first == b'%')
            .then(|| tail.get(..2))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escape {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn text(answer: &Answer, name: &HeaderName) -> Option<String> {
    let value = answer.headers().get(name)?.to_str().ok()?;
    Some(value.to_owned()).filter(|value| !value.is_empty())
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7) in seconds since the epoch.
fn http_time(text: &str) -> Option<i64> {
    let time = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(time.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::{authorization, http_time, percent_decoded};
    use reqwest::Url;

    #[test]
    fn times_of_servers() {
        for (text, seconds) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(http_time(text), seconds, "{text}");
        }
    }

    #[test]
    fn credentials_of_addresses_become_a_header_and_leave_the_address() {
        let mut url = Url::parse("http://u%40x:p@h/").unwrap();
        let value = authorization(&mut url, None).unwrap().unwrap();
        assert_eq!(value, "Basic dUB4OnA=");
        assert!(value.is_sensitive());
        assert_eq!(url.as_str(), "http://h/");
        let mut url = Url::parse("http://u@h/").unwrap();
        let value = authorization(&mut url, Some("Bearer t")).unwrap().unwrap();
        assert_eq!(value, "Bearer t");
        assert_eq!(percent_decoded("a%2fb%zz%"), "a/b%zz%");
    }
}
