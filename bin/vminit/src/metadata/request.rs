//! Requests of the metadata service: as much of HTTP/1.1 as its clients speak.

/// The longest request, in bytes.
pub(super) const MAX_REQUEST_BYTES: usize = 8 * 1024;
/// More header lines than any client sends.
const MAX_HEADERS: usize = 64;

/// What has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A request.
    Request(Request),
    /// Something else; what is wrong with it.
    Bad(&'static str),
}

/// A request without its body, which none of them has a use for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    /// The path of the target, as it was sent.
    pub(super) path: String,
    /// Names in lower case, values without the space around them.
    headers: Vec<(String, String)>,
}

impl Request {
    /// The value of the first of these headers that is there.
    pub(super) fn header(&self, names: &[&str]) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers
            .find(|(name, _)| names.contains(&name.as_str()))
            .map(|(_, value)| value.as_str())
    }
}

/// Reads a request; `None` while its end has not come.
pub(super) fn parse(bytes: &[u8]) -> Option<Incoming> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let Ok(head) = std::str::from_utf8(&bytes[..end]) else {
        return Some(Incoming::Bad("the request is not valid UTF-8"));
    };
    let request = match read(head) {
        Ok(request) => request,
        Err(problem) => return Some(Incoming::Bad(problem)),
    };
    // The body is waited for, so that the client has sent all when the connection closes.
    let length = match request.header(&["content-length"]).map(str::parse) {
        None => 0,
        Some(Ok(length)) if length <= MAX_REQUEST_BYTES => length,
        Some(_) => {
            return Some(Incoming::Bad(
                "the request has a bad or too large content-length",
            ));
        }
    };
    (bytes.len() >= end + 4 + length).then_some(Incoming::Request(request))
}

fn read(head: &str) -> Result<Request, &'static str> {
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("the request line is none");
    };
    if !version.starts_with("HTTP/1.") {
        return Err("the request is not HTTP/1");
    }
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or("a header line has no colon")?;
        if headers.len() == MAX_HEADERS {
            return Err("the request has too many headers");
        }
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    // `http://169.254.169.254/path`, as proxies get it, is the path too.
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => target,
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    Ok(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        headers,
    })
}

#[cfg(test)]
mod tests {
    use super::{Incoming, Request, parse};

    fn request(text: &str) -> Request {
        match parse(text.as_bytes()) {
            Some(Incoming::Request(request)) => request,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn requests_are_read_when_they_are_whole() {
        let text =
            "GET /latest/meta-data?x=1 HTTP/1.1\r\nHost: x\r\nX-Metadata-Token:  abc \r\n\r\n";
        let read = request(text);
        assert_eq!(
            (read.method.as_str(), read.path.as_str()),
            ("GET", "/latest/meta-data")
        );
        assert_eq!(read.header(&["x-other", "x-metadata-token"]), Some("abc"));
        assert_eq!(read.header(&["accept"]), None);
        for end in 0..text.len() {
            assert_eq!(parse(&text.as_bytes()[..end]), None);
        }
        assert_eq!(request("GET http://h/a/b HTTP/1.0\r\n\r\n").path, "/a/b");
        assert_eq!(request("GET http://h HTTP/1.0\r\n\r\n").path, "/");
        let body = "PUT /t HTTP/1.1\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(parse(body.as_bytes()), None);
        assert_eq!(request(&format!("{body}xy")).method, "PUT");
    }

    #[test]
    fn what_is_no_request_is_told() {
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65));
        for text in [
            "\r\n\r\n",
            "GET /\r\n\r\n",
            "GET / x HTTP/1.1\r\n\r\n",
            "GET / SMTP\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: 99999\r\n\r\n",
            &many,
        ] {
            let parsed = parse(text.as_bytes());
            assert!(matches!(parsed, Some(Incoming::Bad(_))), "{text:?}");
        }
        assert!(matches!(
            parse(b"GET /\xff HTTP/1.1\r\n\r\n"),
            Some(Incoming::Bad(_))
        ));
    }
}
