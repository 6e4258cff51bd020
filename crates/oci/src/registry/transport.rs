//! HTTP: connections, redirects, timeouts, and when to try again.
//!
//! The HTTP library is asynchronous inside, on a thread of its own; this module is the only one that names its types.
//! Redirects are followed here and not there: credentials stay with the host that asked for them (CVE-2020-15157),
//! and what began under TLS goes on without it only where the caller says so.

use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, SystemTime};

use reqwest::blocking::{Body, Client, Request};
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RANGE, RETRY_AFTER,
};
use reqwest::{Method, StatusCode, Url};

use super::answer::{Answer, NoAnswer};
use super::error::{RegistryError, RegistryErrorKind as Kind};
use super::options::{Options, is_loopback};

/// Redirects that are followed for one request.
const MAX_REDIRECTS: usize = 10;
/// What is read of the body of an error.
const MAX_ERROR_BYTES: usize = 16 << 10;
/// Longest error text of a server that is shown.
const MAX_ERROR_TEXT: usize = 300;
/// A server that never refuses a connection is waited for this often.
const CONNECT_TRIES: u32 = 2;

/// One request without its credentials.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) accept: Option<&'static str>,
    pub(super) content_type: Option<String>,
    /// First byte that is wanted.
    pub(super) from: u64,
    /// A body that is held in memory.
    pub(super) body: Option<Vec<u8>>,
    /// Longest time for the whole request, where sending the body may take longer than a stall.
    pub(super) timeout: Option<Duration>,
    /// Conditions and the like.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether a redirect may leave TLS.
    pub(super) downgrade: bool,
}

impl Call {
    pub(super) fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            accept: None,
            content_type: None,
            from: 0,
            body: None,
            timeout: None,
            headers: Vec::new(),
            downgrade: false,
        }
    }
}

/// The connections of a client.
#[derive(Debug)]
pub(super) struct Transport {
    options: Options,
    /// Made when first used: reading the system's certificates takes longer than a small request on loopback.
    /// With and without TLS, and each with and without the proxies of the environment.
    clients: [Mutex<Option<Client>>; 4],
}

impl Transport {
    pub(super) fn new(options: Options) -> Self {
        Self {
            options,
            clients: Default::default(),
        }
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// Sends a request and follows its redirects. `authorization` goes to the first host only.
    ///
    /// Any status is a success here.
    pub(super) fn send(
        &self,
        call: &Call,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, RegistryError> {
        let origin = call.url.origin();
        let mut url = call.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::new(call.method.clone(), url.clone());
            self.fill(&mut request, call)?;
            if let Some(value) = authorization.filter(|_| url.origin() == origin) {
                request.headers_mut().insert(AUTHORIZATION, value.clone());
            }
            let response = self.execute(request)?;
            let redirect = matches!(
                response.status(),
                StatusCode::MOVED_PERMANENTLY
                    | StatusCode::FOUND
                    | StatusCode::SEE_OTHER
                    | StatusCode::TEMPORARY_REDIRECT
                    | StatusCode::PERMANENT_REDIRECT
            );
            if !redirect || !matches!(call.method, Method::GET | Method::HEAD) {
                return Ok(response);
            }
            url = next(&response, &url, call.downgrade)?;
        }
        Err(RegistryError::new(
            Kind::Protocol,
            format!("{} redirects more than {MAX_REDIRECTS} times", call.url),
        ))
    }

    /// Sends a request whose body is read from a stream; no redirects.
    pub(super) fn upload(
        &self,
        call: &Call,
        authorization: Option<&HeaderValue>,
        body: Body,
    ) -> Result<Answer, RegistryError> {
        let mut request = Request::new(call.method.clone(), call.url.clone());
        self.fill(&mut request, call)?;
        if let Some(value) = authorization {
            request.headers_mut().insert(AUTHORIZATION, value.clone());
        }
        *request.body_mut() = Some(body);
        self.execute(request)
    }

    fn fill(&self, request: &mut Request, call: &Call) -> Result<(), RegistryError> {
        if let Some(accept) = call.accept {
            request
                .headers_mut()
                .insert(ACCEPT, HeaderValue::from_static(accept));
        }
        if let Some(kind) = &call.content_type {
            let value = HeaderValue::from_str(kind).map_err(|error| {
                RegistryError::with(Kind::Protocol, format!("media type {kind:?}"), error)
            })?;
            request.headers_mut().insert(CONTENT_TYPE, value);
        }
        if call.from > 0 {
            let value = HeaderValue::from_str(&format!("bytes={}-", call.from))
                .expect("digits are a header value");
            request.headers_mut().insert(RANGE, value);
        }
        if let Some(body) = &call.body {
            *request.body_mut() = Some(Body::from(body.clone()));
        }
        for (name, value) in &call.headers {
            request.headers_mut().insert(name, value.clone());
        }
        *request.timeout_mut() = call.timeout;
        Ok(())
    }

    fn execute(&self, request: Request) -> Result<Answer, RegistryError> {
        let host = request.url().host_str().unwrap_or_default().to_owned();
        let port = request
            .url()
            .port()
            .map(|port| format!(":{port}"))
            .unwrap_or_default();
        let client = self.client(request.url())?;
        Answer::of(client, request, &self.options.stop).map_err(|error| match error {
            NoAnswer::Stopped => stopped(),
            NoAnswer::Thread(error) => {
                RegistryError::with(Kind::Local, "cannot start a request", error)
            }
            NoAnswer::Failed(error) => failed(error, &format!("{host}{port}")),
        })
    }

    fn client(&self, url: &Url) -> Result<Client, RegistryError> {
        let tls = match url.scheme() {
            "https" => true,
            "http" => false,
            other => {
                return Err(RegistryError::new(
                    Kind::Protocol,
                    format!("scheme {other:?} is not HTTP"),
                ));
            }
        };
        // What listens on this machine is not behind a proxy.
        let direct = is_loopback(url.host_str().unwrap_or_default());
        let slot = &self.clients[usize::from(tls) * 2 + usize::from(direct)];
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = slot.as_ref() {
            return Ok(client.clone());
        }
        install_tls_provider();
        let mut builder = Client::builder()
            .user_agent(&self.options.user_agent)
            .connect_timeout(self.options.connect_timeout)
            // For an answer this is the time without a byte, not the time in all.
            .timeout(self.options.stall_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .tcp_keepalive(Duration::from_secs(30));
        if direct {
            builder = builder.no_proxy();
        }
        if !tls {
            // Without TLS there is nothing to verify.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|error| {
            RegistryError::with(
                Kind::Connect,
                "cannot prepare TLS: does this machine have root certificates (package ca-certificates)?",
                error.without_url(),
            )
        })?;
        *slot = Some(client.clone());
        Ok(client)
    }
}

/// A request that got no answer.
fn failed(error: reqwest::Error, host: &str) -> RegistryError {
    // The address is named here, and once is enough.
    let error = error.without_url();
    let (kind, what) = if error.is_connect() {
        (Kind::Connect, "cannot connect to")
    } else if error.is_timeout() {
        (Kind::Timeout, "no answer from")
    } else if error.is_builder() {
        (Kind::Protocol, "cannot send a request to")
    } else {
        (Kind::Dropped, "lost the connection to")
    };
    RegistryError::with(kind, format!("{what} {host}"), error)
}

/// What a call ends with when somebody asked for a stop.
pub(super) fn stopped() -> RegistryError {
    RegistryError::new(Kind::Stopped, "it was asked to stop")
}

/// rustls is built without a cryptography provider of its own; the process gets one, once.
fn install_tls_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Fails if the program has installed one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// Where a redirect or an upload goes on, resolved against where we are.
pub(super) fn location(response: &Answer, base: &Url) -> Result<Url, RegistryError> {
    next(response, base, false)
}

/// The same; with `downgrade` also from HTTPS to plain HTTP.
fn next(response: &Answer, base: &Url, downgrade: bool) -> Result<Url, RegistryError> {
    let bad = || {
        RegistryError::new(
            Kind::Protocol,
            format!("{} answers without a usable Location", base_name(base)),
        )
    };
    let text = response
        .headers()
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
        .ok_or_else(bad)?;
    let url = base.join(text).map_err(|_| bad())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad());
    }
    if base.scheme() == "https" && url.scheme() != "https" && !downgrade {
        return Err(RegistryError::new(
            Kind::Protocol,
            format!(
                "{} redirects from HTTPS to plain HTTP ({})",
                base_name(base),
                base_name(&url)
            ),
        ));
    }
    Ok(url)
}

pub(super) fn base_name(url: &Url) -> String {
    let port = url
        .port()
        .map(|port| format!(":{port}"))
        .unwrap_or_default();
    format!("{}{port}", url.host_str().unwrap_or_default())
}

/// Turns a status that is no success into an error, with what the server says about it.
pub(super) fn check(response: Answer) -> Result<Answer, RegistryError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let kind = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Kind::Unauthorized,
        StatusCode::NOT_FOUND => Kind::NotFound,
        StatusCode::TOO_MANY_REQUESTS => Kind::RateLimited,
        StatusCode::REQUEST_TIMEOUT => Kind::Server,
        status if status.is_server_error() => Kind::Server,
        status if status.is_client_error() => Kind::Refused,
        _ => Kind::Protocol,
    };
    let retry_after = response.headers().get(RETRY_AFTER).and_then(seconds);
    let host = base_name(response.url());
    let said = match read_limited(response, MAX_ERROR_BYTES) {
        Ok(body) => server_text(&body),
        Err(_) => String::new(),
    };
    let mut error = RegistryError::new(kind, format!("{host} answers {status}{said}"));
    error.retry_after = retry_after;
    Err(error)
}

/// `Retry-After` in its common form; as a date it is left to our own back-off.
fn seconds(value: &HeaderValue) -> Option<Duration> {
    value
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
        .map(Duration::from_secs)
}

/// The `message` of the distribution specification's error document, else the text itself, tamed and cut.
fn server_text(body: &[u8]) -> String {
    let document: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let text = match &document {
        Some(value) => {
            let first = &value["errors"][0];
            first["message"]
                .as_str()
                .or(first["code"].as_str())
                .or(value["details"].as_str())
                .unwrap_or_default()
        }
        None => std::str::from_utf8(body).unwrap_or_default(),
    };
    // A page for browsers says nothing in a terminal.
    if text.trim_start().starts_with('<') {
        return String::new();
    }
    let tame: String = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_ERROR_TEXT)
        .collect();
    if tame.is_empty() {
        tame
    } else {
        format!(": {tame}")
    }
}

/// Reads a body that must not be longer than `limit` bytes; more is cut after one byte.
pub(super) fn read_limited(response: Answer, limit: usize) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut body = Vec::new();
    response.take(limit as u64 + 1).read_to_end(&mut body)?;
    Ok(body)
}

/// Counts the tries of one operation, and pauses between them.
#[derive(Debug)]
pub(super) struct Tries<'a> {
    options: &'a Options,
    transient: u32,
    connect: u32,
    stalls: u32,
}

impl<'a> Tries<'a> {
    pub(super) fn new(options: &'a Options) -> Self {
        Self {
            options,
            transient: 0,
            connect: 0,
            stalls: 0,
        }
    }

    /// The operation went on since the last failure.
    pub(super) fn progressed(&mut self) {
        (self.transient, self.connect, self.stalls) = (0, 0, 0);
    }

    /// Pauses if `error` may pass and was not seen too often; else hands it back.
    pub(super) fn again(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        let (count, limit) = match error.kind() {
            Kind::RateLimited | Kind::Server | Kind::Dropped => {
                (&mut self.transient, self.options.retries)
            }
            Kind::Connect => (&mut self.connect, self.options.retries.min(CONNECT_TRIES)),
            // A silent server has cost the whole timeout already.
            Kind::Timeout => (&mut self.stalls, self.options.retries.min(1)),
            _ => return Err(error),
        };
        if *count >= limit {
            return Err(error);
        }
        let own = self.options.backoff.saturating_mul(1 << (*count).min(16));
        *count += 1;
        let pause = error
            .retry_after
            .unwrap_or(own)
            .max(own)
            .min(self.options.max_backoff);
        self.options.stop.pause(pause + jitter(pause));
        Ok(())
    }
}

/// Up to a quarter more, so that many clients that failed at once do not come back at once.
fn jitter(pause: Duration) -> Duration {
    let nanos = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |time| time.subsec_nanos());
    pause / 4 * (nanos % 1000) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_say() {
        for (body, text) in [
            (
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
                ": manifest unknown",
            ),
            (r#"{"errors":[{"code":"DENIED"}]}"#, ": DENIED"),
            (r#"{"details":"no"}"#, ": no"),
            ("{}", ""),
            ("", ""),
            ("<html>x</html>", ""),
            ("a\u{1b}[31mb\n", ": a [31mb"),
        ] {
            assert_eq!(server_text(body.as_bytes()), text, "{body}");
        }
        assert_eq!(server_text(&[b'x'; 5000]).len(), MAX_ERROR_TEXT + 2);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let options = Options {
            backoff: Duration::ZERO,
            max_backoff: Duration::ZERO,
            retries: 3,
            ..Options::default()
        };
        for (kind, times) in [
            (Kind::Server, 3),
            (Kind::RateLimited, 3),
            (Kind::Dropped, 3),
            (Kind::Connect, 2),
            (Kind::Timeout, 1),
            (Kind::NotFound, 0),
            (Kind::Corrupt, 0),
        ] {
            let mut tries = Tries::new(&options);
            let mut count = 0;
            while tries.again(RegistryError::new(kind, "x")).is_ok() {
                count += 1;
            }
            assert_eq!(count, times, "{kind:?}");
        }
    }
}
