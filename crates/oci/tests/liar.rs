//! The client against a registry that lies, stalls and hangs up. No real registry does that on request, so this one is
//! a few lines of HTTP in the test's own process.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test program"
)]

mod harness;

use std::collections::HashMap;
use std::error::Error as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use firebuild_oci::registry::{
    Credentials, Options, Registry, RegistryError, RegistryErrorKind as Kind,
};
use firebuild_oci::{Descriptor, Digest, Reference, media_type};
use harness::{image, layer, noise};

/// A request as the liar sees it.
#[derive(Clone, Debug)]
struct Seen {
    method: String,
    path: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Seen {
    fn from(&self) -> Option<usize> {
        self.headers
            .get("range")?
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse()
            .ok()
    }
}

/// What it does with the connection.
enum Reply {
    /// Raw bytes, then it hangs up.
    Bytes(Vec<u8>),
    /// Raw bytes, then nothing, without hanging up.
    Stall(Vec<u8>),
}

fn ok(headers: &str, body: &[u8]) -> Reply {
    status("200 OK", headers, body)
}

fn status(status: &str, headers: &str, body: &[u8]) -> Reply {
    let mut out = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n",
        body.len()
    )
    .into_bytes();
    out.extend_from_slice(body);
    Reply::Bytes(out)
}

struct Liar {
    address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Liar {
    /// Answers every request by `reply`, which is told how many came before. Ends with the process.
    fn start(reply: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, count, reply) = (
            Arc::clone(&seen),
            Arc::new(AtomicUsize::new(0)),
            Arc::new(reply),
        );
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, count, reply) =
                    (Arc::clone(&log), Arc::clone(&count), Arc::clone(&reply));
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let Some(request) = read_request(&stream) else {
                        return;
                    };
                    log.lock().unwrap().push(request.clone());
                    match reply(count.fetch_add(1, Ordering::SeqCst), &request) {
                        Reply::Bytes(bytes) => {
                            let _ = stream.write_all(&bytes);
                        }
                        Reply::Stall(bytes) => {
                            let _ = stream.write_all(&bytes);
                            std::thread::sleep(Duration::from_secs(60));
                        }
                    }
                });
            }
        });
        Self { address, seen }
    }

    fn reference(&self) -> Reference {
        format!("{}/o/n:1", self.address).parse().unwrap()
    }

    fn requests(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        let mut out = Vec::new();
        client()
            .blob(&self.reference(), descriptor, &mut out, &|_| {})
            .map(|()| out)
    }

    fn resolve_error(&self) -> RegistryError {
        client()
            .resolve(&self.reference(), &"linux/amd64".parse().unwrap())
            .unwrap_err()
    }
}

fn read_request(stream: &TcpStream) -> Option<Seen> {
    use std::io::Read as _;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let len = headers
        .get("content-length")
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    Some(Seen {
        method,
        path,
        headers,
        body,
    })
}

fn client() -> Registry {
    Registry::new(Options {
        credentials: Credentials::Anonymous,
        stall_timeout: Duration::from_millis(400),
        backoff: Duration::from_millis(5),
        max_backoff: Duration::from_millis(1500),
        ..Options::default()
    })
}

fn cause(error: &RegistryError) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}

#[test]
fn a_wrong_digest_is_named() {
    let content = noise(5000, 1);
    let wanted = Descriptor::new("", Digest::of("other"), 5000);
    let found = Digest::of(&content);
    let liar = Liar::start(move |_, _| ok("", &content));
    let error = liar.blob(&wanted).unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(
        error.to_string().contains(&wanted.digest.to_string()),
        "{error}"
    );
    assert!(error.to_string().contains("/o/n:1"), "{error}");
    assert!(
        cause(&error).contains(&found.to_string()),
        "{}",
        cause(&error)
    );
    assert_eq!(liar.requests().len(), 1, "a lie is not asked for again");
}

#[test]
fn a_wrong_length_is_seen_before_the_content() {
    for announced in [4999usize, 5001] {
        let content = noise(announced, 1);
        let liar = Liar::start(move |_, _| ok("", &content));
        let error = liar
            .blob(&Descriptor::new("", Digest::of("x"), 5000))
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
        assert!(cause(&error).contains("5000"), "{}", cause(&error));
    }
    // Without a length, the end comes too late.
    let liar = Liar::start(|_, _| {
        let mut out = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
        out.extend(noise(1 << 20, 1));
        Reply::Bytes(out)
    });
    let error = liar
        .blob(&Descriptor::new("", Digest::of("x"), 5000))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(
        cause(&error).contains("more than the 5000"),
        "{}",
        cause(&error)
    );
}

/// Sends `len` bytes of `content` from where it is asked, but promises all of them.
fn cut(content: &[u8], seen: &Seen, len: usize) -> Reply {
    let from = seen.from().unwrap_or(0);
    let (status, range) = match seen.from() {
        Some(from) => (
            "206 Partial Content",
            format!(
                "Content-Range: bytes {from}-{}/{}\r\n",
                content.len() - 1,
                content.len()
            ),
        ),
        None => ("200 OK", String::new()),
    };
    let mut out = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{range}\r\n",
        content.len() - from
    )
    .into_bytes();
    out.extend_from_slice(&content[from..(from + len).min(content.len())]);
    Reply::Bytes(out)
}

#[test]
fn a_broken_download_goes_on_where_it_ended() {
    let content = noise(300_000, 7);
    let descriptor = Descriptor::of("", &content);
    let served = content.clone();
    let liar = Liar::start(move |_, seen| cut(&served, seen, 100_000));
    assert_eq!(liar.blob(&descriptor).unwrap(), content);
    let starts: Vec<_> = liar.requests().iter().map(Seen::from).collect();
    assert_eq!(starts, [None, Some(100_000), Some(200_000)]);
}

#[test]
fn a_server_without_ranges_sends_it_all_again() {
    let content = noise(300_000, 7);
    let descriptor = Descriptor::of("", &content);
    let served = content.clone();
    let liar = Liar::start(move |count, seen| {
        let whole = Seen {
            headers: HashMap::new(),
            ..seen.clone()
        };
        cut(&served, &whole, 150_000 * (count + 1))
    });
    assert_eq!(liar.blob(&descriptor).unwrap(), content);
    assert_eq!(liar.requests().len(), 2);
}

#[test]
fn another_range_than_asked_for_is_refused() {
    let content = noise(300_000, 7);
    let descriptor = Descriptor::of("", &content);
    let liar = Liar::start(move |count, seen| match count {
        0 => cut(&content, seen, 100_000),
        _ => status(
            "206 Partial Content",
            "Content-Range: bytes 0-9/300000\r\n",
            b"0123456789",
        ),
    });
    assert_eq!(liar.blob(&descriptor).unwrap_err().kind(), Kind::Protocol);
}

#[test]
fn a_server_that_always_hangs_up_is_left() {
    let content = noise(300_000, 7);
    let descriptor = Descriptor::of("", &content);
    let liar = Liar::start(move |_, seen| cut(&content, seen, 10));
    let error = liar.blob(&descriptor).unwrap_err();
    assert_eq!(error.kind(), Kind::Dropped);
    assert_eq!(liar.requests().len(), 6, "one try and five more");
}

#[test]
fn a_silent_server_is_left() {
    let descriptor = Descriptor::new("", Digest::of("x"), 5000);
    for reply in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nabc",
    ] {
        let liar = Liar::start(move |_, _| Reply::Stall(reply.to_vec()));
        let began = Instant::now();
        let error = liar.blob(&descriptor).unwrap_err();
        assert_eq!(error.kind(), Kind::Timeout, "{error}: {}", cause(&error));
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(liar.requests().len(), 2);
    }
    let liar = Liar::start(|_, _| {
        Reply::Stall(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{".to_vec())
    });
    assert_eq!(liar.resolve_error().kind(), Kind::Timeout);
}

#[test]
fn later_is_taken_at_its_word() {
    let descriptor = Descriptor::of("", b"hello");
    let liar = Liar::start(|count, _| match count {
        0 => status("429 Too Many Requests", "Retry-After: 1\r\n", b"{}"),
        1 => status("503 Service Unavailable", "", b""),
        2 => Reply::Bytes(Vec::new()),
        _ => ok("", b"hello"),
    });
    let began = Instant::now();
    assert_eq!(liar.blob(&descriptor).unwrap(), b"hello");
    assert!(began.elapsed() >= Duration::from_secs(1));
    let liar = Liar::start(|_, _| {
        status(
            "429 Too Many Requests",
            "",
            br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#,
        )
    });
    let error = liar.blob(&descriptor).unwrap_err();
    assert_eq!(error.kind(), Kind::RateLimited);
    assert!(cause(&error).contains("slow down"), "{}", cause(&error));
}

/// An upload waits as long as it is told to, whichever of its requests it was told by, and begins again.
#[test]
fn later_is_taken_at_its_word_by_uploads_too() {
    const LATER: &str = "429 Too Many Requests";
    let descriptor = Descriptor::of("", b"hello");
    let liar = Liar::start(|count, seen| {
        let begun = || status("202 Accepted", "Location: /v2/o/n/blobs/uploads/1\r\n", b"");
        match (count, seen.method.as_str()) {
            (0, "HEAD") => status(LATER, "Retry-After: 1\r\n", b""),
            (1, "HEAD") => status("404 Not Found", "", b""),
            (2, "POST") => status(LATER, "Retry-After: 1\r\n", b""),
            (3 | 5, "POST") => begun(),
            (4, "PUT") => status(LATER, "Retry-After: 1\r\n", b""),
            (6, "PUT") if seen.body == b"hello" => status("201 Created", "", b""),
            _ => status("400 Bad Request", "", b""),
        }
    });
    let began = Instant::now();
    let open = || -> std::io::Result<Box<dyn std::io::Read + Send>> { Ok(Box::new(&b"hello"[..])) };
    client()
        .push_blob(
            &liar.reference(),
            &descriptor,
            &open,
            &(Arc::new(|_| {}) as _),
        )
        .unwrap();
    assert!(began.elapsed() >= Duration::from_secs(3));
    assert_eq!(liar.requests().len(), 7);
}

/// A blob of another repository is asked for again after 429; where the registry refuses to take it, it is uploaded.
#[test]
fn mounts_that_are_put_off_and_refused() {
    let mount = |answers: Vec<&'static str>| {
        let liar = Liar::start(move |count, _| {
            let last = answers.len() - 1;
            status(answers[count.min(last)], "", b"")
        });
        let taken = client().mount_blob(&liar.reference(), &Digest::of("x"), "o/other");
        (taken.map_err(|error| error.kind()), liar.requests().len())
    };
    let later = "429 Too Many Requests";
    assert_eq!(
        mount(vec![later, "503 Service Unavailable", "201 Created"]),
        (Ok(true), 3)
    );
    for no in ["403 Forbidden", "404 Not Found", "405 Method Not Allowed"] {
        assert_eq!(mount(vec![no]), (Ok(false), 1), "{no}");
    }
    assert_eq!(mount(vec![later]).0, Err(Kind::RateLimited));
}

#[test]
fn manifests_are_bounded_and_verified() {
    let huge = Liar::start(|_, _| {
        let mut out = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
        out.resize(5 << 20, b' ');
        Reply::Bytes(out)
    });
    assert_eq!(huge.resolve_error().kind(), Kind::TooLarge);
    let announced = Liar::start(|_, _| {
        Reply::Stall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n".to_vec())
    });
    assert_eq!(announced.resolve_error().kind(), Kind::TooLarge);
    let lie = format!("Docker-Content-Digest: {}\r\n", Digest::of("other"));
    let image = image("linux/amd64", &[layer("a", b"x")]);
    let bytes = image.manifest_bytes.clone();
    let liar = Liar::start(move |_, _| ok(&lie, &bytes));
    assert_eq!(liar.resolve_error().kind(), Kind::Corrupt);
    let bytes = image.manifest_bytes.clone();
    let liar = Liar::start(move |_, _| ok("", &bytes));
    let pinned = liar.reference().with_digest(Digest::of("other"));
    let error = client()
        .resolve(&pinned, &"linux/amd64".parse().unwrap())
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Corrupt);
    assert!(cause(&error).contains(&Digest::of("other").to_string()));
    for body in ["", "{", "[]", r#"{"schemaVersion":1}"#, "<html>"] {
        let liar = Liar::start(move |_, _| ok("", body.as_bytes()));
        assert_eq!(liar.resolve_error().kind(), Kind::Document, "{body}");
    }
    let ring = Liar::start(|_, _| {
        let mut entry = Descriptor::new(media_type::OCI_INDEX, Digest::of("x"), 1);
        entry.platform = Some("linux/amd64".parse().unwrap());
        ok("", &firebuild_oci::Index::new(vec![entry]).to_bytes())
    });
    assert_eq!(ring.resolve_error().kind(), Kind::Corrupt);
}

#[test]
fn credentials_stay_with_their_host() {
    // The blob is elsewhere; elsewhere must not see the password.
    let elsewhere = Liar::start(|_, _| ok("", b"hello"));
    let target = format!("Location: http://{}/away\r\n", elsewhere.address);
    let liar = Liar::start(move |_, seen| {
        if seen.headers.contains_key("authorization") {
            status("307 Temporary Redirect", &target, b"")
        } else {
            status(
                "401 Unauthorized",
                "WWW-Authenticate: Basic realm=\"x\"\r\n",
                b"",
            )
        }
    });
    let registry = Registry::new(Options {
        credentials: Credentials::Fixed {
            username: "joe".to_owned(),
            password: "secret".to_owned(),
        },
        ..Options::default()
    });
    let mut out = Vec::new();
    registry
        .blob(
            &liar.reference(),
            &Descriptor::of("", b"hello"),
            &mut out,
            &|_| {},
        )
        .unwrap();
    assert_eq!(out, b"hello");
    assert_eq!(
        liar.requests()[1].headers["authorization"],
        "Basic am9lOnNlY3JldA=="
    );
    assert!(
        !elsewhere.requests()[0]
            .headers
            .contains_key("authorization")
    );
}

#[test]
fn tokens_are_fetched_once_and_used() {
    let tokens = Liar::start(|_, _| ok("", br#"{"access_token":"t0k","expires_in":300}"#));
    let challenge = format!(
        "WWW-Authenticate: Bearer realm=\"http://{}/token\",service=\"s\"\r\n",
        tokens.address
    );
    let liar = Liar::start(move |_, seen| match seen.headers.get("authorization") {
        Some(value) if value == "Bearer t0k" => ok("", b"hello"),
        _ => status("401 Unauthorized", &challenge, b""),
    });
    let registry = client();
    for _ in 0..3 {
        let mut out = Vec::new();
        registry
            .blob(
                &liar.reference(),
                &Descriptor::of("", b"hello"),
                &mut out,
                &|_| {},
            )
            .unwrap();
    }
    assert_eq!(liar.requests().len(), 4);
    let asked = tokens.requests();
    assert_eq!(asked.len(), 1);
    assert_eq!(
        asked[0].path,
        "/token?service=s&scope=repository%3Ao%2Fn%3Apull"
    );
}

#[test]
fn a_ring_of_redirects_ends() {
    let liar =
        Liar::start(|count, _| status("302 Found", &format!("Location: /v2/{count}\r\n"), b""));
    let error = liar.blob(&Descriptor::of("", b"hello")).unwrap_err();
    assert_eq!(error.kind(), Kind::Protocol);
    let liar = Liar::start(|_, _| status("302 Found", "Location: file:///etc/passwd\r\n", b""));
    assert_eq!(
        liar.blob(&Descriptor::of("", b"hello")).unwrap_err().kind(),
        Kind::Protocol
    );
}

#[test]
fn nobody_there_is_said_soon() {
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let reference: Reference = format!("{address}/o/n:1").parse().unwrap();
    let error = client()
        .resolve(&reference, &"linux/amd64".parse().unwrap())
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Connect);
    assert!(cause(&error).contains(&address), "{}", cause(&error));
}

#[test]
fn an_upload_is_tried_again_and_its_location_followed() {
    let liar = Liar::start(|count, seen| match (seen.method.as_str(), count) {
        ("HEAD", _) => status("404 Not Found", "", b""),
        ("POST", _) => status("202 Accepted", "Location: /up/1?state=a\r\n", b""),
        (_, 2) => status("503 Service Unavailable", "", b""),
        _ => status("201 Created", "", b""),
    });
    let descriptor = Descriptor::of("", b"hello");
    client()
        .push_blob(
            &liar.reference(),
            &descriptor,
            &|| Ok(Box::new(&b"hello"[..])),
            &(Arc::new(|_| {}) as _),
        )
        .unwrap();
    let requests = liar.requests();
    let last = requests.last().unwrap();
    assert!(
        last.path.starts_with("/up/1?state=a&digest=sha256%3A"),
        "{}",
        last.path
    );
    assert_eq!(last.body, b"hello");
    assert_eq!(
        requests.iter().filter(|seen| seen.method == "PUT").count(),
        2
    );
}
