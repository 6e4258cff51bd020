//! Answers of the metadata service, with the words and codes of Firecracker's (`src/mmds` there).

use firebuild_guest_proto::metadata::Document;
use serde_json::Value;

use super::request::{Incoming, Request};
use super::tokens::{LONGEST_TTL, Tokens};

const TOKEN_PATH: &str = "/latest/api/token";
const TOKEN: [&str; 2] = ["x-metadata-token", "x-aws-ec2-metadata-token"];
const TTL: [&str; 2] = [
    "x-metadata-token-ttl-seconds",
    "x-aws-ec2-metadata-token-ttl-seconds",
];

struct Answer {
    status: &'static str,
    kind: &'static str,
    headers: String,
    body: String,
}

impl Answer {
    fn text(status: &'static str, body: impl Into<String>) -> Answer {
        Answer {
            status,
            kind: "text/plain",
            headers: String::new(),
            body: body.into(),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        format!(
            "HTTP/1.1 {}\r\nServer: firebuild\r\nConnection: close\r\nContent-Type: {}\r\n\
             Content-Length: {}\r\n{}\r\n{}",
            self.status,
            self.kind,
            self.body.len(),
            self.headers,
            self.body
        )
        .into_bytes()
    }
}

/// What requests are answered from.
pub(super) struct Answered<'a> {
    /// The tokens that were given out, where asking takes one.
    pub(super) tokens: &'a mut Option<Tokens>,
    /// Whether no answer is JSON, whatever the request accepts.
    pub(super) text_only: bool,
    /// The document.
    pub(super) document: &'a Document,
}

/// The whole answer, head and body.
pub(super) fn to(incoming: &Incoming, from: &mut Answered<'_>) -> Vec<u8> {
    let answer = match incoming {
        Incoming::Bad(problem) => Answer::text(BAD_REQUEST, *problem),
        Incoming::Request(request) => match request.method.as_str() {
            "GET" => get(request, from),
            "PUT" => put(request, from.tokens),
            _ => Answer {
                headers: "Allow: GET, PUT\r\n".to_owned(),
                ..Answer::text("405 Method Not Allowed", "Not allowed HTTP method.")
            },
        },
    };
    answer.bytes()
}

const OK: &str = "200 OK";
const BAD_REQUEST: &str = "400 Bad Request";
const UNAUTHORIZED: &str = "401 Unauthorized";
const NOT_FOUND: &str = "404 Not Found";

fn put(request: &Request, tokens: &mut Option<Tokens>) -> Answer {
    if request.path != TOKEN_PATH {
        return Answer::text(NOT_FOUND, format!("Resource not found: {}.", request.path));
    }
    // Sent on by a proxy: from outside.
    if request.header(&["x-forwarded-for"]).is_some() {
        return Answer::text(
            BAD_REQUEST,
            "Invalid header. Reason: Unsupported header name. Key: X-Forwarded-For",
        );
    }
    let Some(text) = request.header(&TTL) else {
        return Answer::text(
            BAD_REQUEST,
            "Token time to live value not found. Use `X-metadata-token-ttl-seconds` or \
             `X-aws-ec2-metadata-token-ttl-seconds` header to specify the token's lifetime.",
        );
    };
    let ttl = text
        .parse::<u32>()
        .ok()
        .filter(|ttl| (1..=LONGEST_TTL).contains(ttl));
    let Some(ttl) = ttl else {
        return Answer::text(
            BAD_REQUEST,
            format!(
                "Invalid time to live value provided for token: {text}. Please provide a value between 1 and {LONGEST_TTL}."
            ),
        );
    };
    // In version 1 a token is good for nothing and costs nothing: clients of version 2 work against both.
    let mut spare = Tokens::default();
    match tokens.as_mut().unwrap_or(&mut spare).issue(ttl) {
        Ok(token) => Answer {
            headers: format!("X-metadata-token-ttl-seconds: {ttl}\r\n"),
            ..Answer::text(OK, token)
        },
        Err(error) => Answer::text(
            "503 Service Unavailable",
            format!("There is no randomness for a token: {error}."),
        ),
    }
}

fn get(request: &Request, from: &Answered<'_>) -> Answer {
    let document = from.document;
    if let Some(tokens) = from.tokens.as_ref() {
        match request.header(&TOKEN) {
            None => {
                return Answer::text(
                    UNAUTHORIZED,
                    "No MMDS token provided. Use `X-metadata-token` or `X-aws-ec2-metadata-token` header to specify \
                     the session token.",
                );
            }
            Some(token) if !tokens.is_valid(token) => {
                return Answer::text(UNAUTHORIZED, "MMDS token not valid.");
            }
            Some(_) => {}
        }
    }
    if !request.path.starts_with('/') {
        return Answer::text(BAD_REQUEST, "Invalid URI.");
    }
    let Some(found) = find(document, &request.path) else {
        return Answer::text(NOT_FOUND, format!("Resource not found: {}.", request.path));
    };
    let wants_json = request.header(&["accept"]).is_some_and(|accept| {
        let kinds = accept.split(',').map(|kind| kind.split(';').next());
        kinds
            .flatten()
            .any(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
    });
    if wants_json && !from.text_only {
        let body = match found {
            Found::All => serde_json::to_string(document),
            Found::Value(value) => serde_json::to_string(value),
        };
        return Answer {
            kind: "application/json",
            ..Answer::text(OK, body.unwrap_or_default())
        };
    }
    match found {
        Found::All => Answer::text(OK, listing(document)),
        Found::Value(Value::Object(object)) => Answer::text(OK, listing(object)),
        Found::Value(Value::String(text)) => Answer::text(OK, text.clone()),
        Found::Value(_) => Answer::text(
            "501 Not Implemented",
            "Cannot retrieve value. The value has an unsupported type.",
        ),
    }
}

enum Found<'a> {
    All,
    Value(&'a Value),
}

/// What lies at a path; slashes that say nothing are passed over.
fn find<'a>(document: &'a Document, path: &str) -> Option<Found<'a>> {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let Some(first) = parts.next() else {
        return Some(Found::All);
    };
    let mut value = document.get(&decoded(first))?;
    for part in parts {
        value = match value {
            Value::Object(object) => object.get(&decoded(part))?,
            Value::Array(list) => list.get(part.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(Found::Value(value))
}

/// `%3a` as the byte it stands for; what is no such escape stays as it is.
fn decoded(part: &str) -> String {
    let bytes = part.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = bytes
            .get(at + 1..at + 3)
            .filter(|_| bytes[at] == b'%')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escape {
            Some(byte) => {
                plain.push(byte);
                at += 3;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// The keys of an object, a slash behind those that lead on.
fn listing(object: &Document) -> String {
    let lines: Vec<String> = object
        .iter()
        .map(|(key, value)| match value {
            Value::Object(_) => format!("{key}/"),
            _ => key.clone(),
        })
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use firebuild_guest_proto::metadata::Document;
    use serde_json::{Value, json};

    use super::super::request::parse;
    use super::super::tokens::Tokens;
    use super::{Answered, to};

    fn document() -> Document {
        let value = json!({
            "latest": {
                "meta-data": {
                    "VMMID": "abc",
                    "Env": {},
                    "Network": { "Interfaces": { "02:fb": { "IP": "10.0.2.15" } } },
                    "count": 3,
                    "list": ["a", "b"],
                },
                "user-data": "#cloud-config\n",
            }
        });
        match value {
            Value::Object(map) => map,
            _ => Document::new(),
        }
    }

    /// The status and the body.
    fn ask(text: &str, tokens: &mut Option<Tokens>) -> (u16, String) {
        ask_one(text, tokens, false)
    }

    fn ask_one(text: &str, tokens: &mut Option<Tokens>, text_only: bool) -> (u16, String) {
        let request = parse(text.as_bytes()).unwrap();
        let mut from = Answered {
            tokens,
            text_only,
            document: &document(),
        };
        let answer = String::from_utf8(to(&request, &mut from)).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    fn get(path: &str, headers: &str, tokens: &mut Option<Tokens>) -> (u16, String) {
        ask(&format!("GET {path} HTTP/1.1\r\n{headers}\r\n"), tokens)
    }

    #[test]
    fn version_1_answers_as_text_and_as_json() {
        let mut none = None;
        for (path, code, body) in [
            ("/", 200, "latest/"),
            ("/latest", 200, "meta-data/\nuser-data"),
            ("/latest/", 200, "meta-data/\nuser-data"),
            ("/latest//meta-data/VMMID", 200, "abc"),
            ("/latest/user-data", 200, "#cloud-config\n"),
            ("/latest/meta-data/Env", 200, ""),
            (
                "/latest/meta-data/Network/Interfaces/02%3Afb/IP",
                200,
                "10.0.2.15",
            ),
            ("/latest/meta-data/list/1", 200, "b"),
            (
                "/latest/meta-data/nothing",
                404,
                "Resource not found: /latest/meta-data/nothing.",
            ),
        ] {
            assert_eq!(get(path, "", &mut none), (code, body.to_owned()), "{path}");
        }
        assert_eq!(get("/latest/meta-data/count", "", &mut none).0, 501);
        let json = "Accept: application/json\r\n";
        assert_eq!(
            get("/latest/meta-data/count", json, &mut none),
            (200, "3".to_owned())
        );
        let (_, body) = get("/", json, &mut none);
        assert_eq!(serde_json::from_str::<Document>(&body).unwrap(), document());
        let request = format!("GET /latest/meta-data/VMMID HTTP/1.1\r\n{json}\r\n");
        let (code, body) = ask_one(&request, &mut none, true);
        assert_eq!((code, body.starts_with('"')), (200, false), "{body}");
        // A token is no harm.
        let (code, _) = get("/", "X-metadata-token: x\r\n", &mut none);
        assert_eq!(code, 200);
        assert_eq!(ask("POST / HTTP/1.1\r\n\r\n", &mut none).0, 405);
        assert_eq!(ask("PUT /x HTTP/1.1\r\n\r\n", &mut none).0, 404);
        let put = "PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: 9\r\n\r\n";
        assert_eq!(ask(put, &mut none).0, 200);
        assert_eq!(get("/", "", &mut none).0, 200);
    }

    #[test]
    fn version_2_wants_a_token() {
        let mut tokens = Some(Tokens::default());
        assert_eq!(get("/", "", &mut tokens).0, 401);
        assert_eq!(
            get("/", "X-Metadata-Token: nonsense\r\n", &mut tokens).0,
            401
        );
        let put = |header: &str, tokens: &mut Option<Tokens>| {
            ask(
                &format!("PUT /latest/api/token HTTP/1.1\r\n{header}\r\n"),
                tokens,
            )
        };
        for bad in [
            "",
            "X-metadata-token-ttl-seconds: 0\r\n",
            "X-metadata-token-ttl-seconds: 21601\r\n",
        ] {
            assert_eq!(put(bad, &mut tokens).0, 400, "{bad}");
        }
        let proxied = "X-metadata-token-ttl-seconds: 60\r\nX-Forwarded-For: 1.2.3.4\r\n";
        assert_eq!(put(proxied, &mut tokens).0, 400);
        for (set, show) in [
            ("X-metadata-token-ttl-seconds: 60\r\n", "X-metadata-token"),
            (
                "X-aws-ec2-metadata-token-ttl-seconds: 21600\r\n",
                "X-aws-ec2-metadata-token",
            ),
        ] {
            let (code, token) = put(set, &mut tokens);
            assert_eq!(code, 200);
            let header = format!("{show}: {token}\r\n");
            assert_eq!(
                get("/latest/meta-data/VMMID", &header, &mut tokens),
                (200, "abc".to_owned())
            );
        }
    }
}
