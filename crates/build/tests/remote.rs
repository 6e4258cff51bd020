//! Documents and archives from elsewhere, against a server that does what it is told: what a real one does seldom and badly.

#![allow(clippy::unwrap_used, reason = "a test program")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Cursor, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use firebuild_build::cancel::Cancel;
use firebuild_build::remote::{Limits, Remote, RemoteErrorKind as Kind, Stream};
use firebuild_build::solve::Secret;
use firebuild_oci::Digest;
use firebuild_store::Store;

/// A server that answers with these bytes, one answer a connection, and keeps what it was asked.
struct Script {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Script {
    fn new(answers: Vec<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&asked);
        std::thread::spawn(move || {
            for answer in answers {
                let (stream, _) = listener.accept().unwrap();
                let mut head = String::new();
                let mut reader = BufReader::new(&stream);
                while reader.read_line(&mut head).unwrap() > 2 {}
                kept.lock().unwrap().push(head);
                let _ = (&stream).write_all(answer.as_bytes());
            }
        });
        Self { port, asked }
    }

    fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/dir/file", self.port)
    }

    fn asked(&self, number: usize) -> String {
        self.asked.lock().unwrap()[number].to_lowercase()
    }

    fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn answer(head: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

struct World {
    _dir: tempfile::TempDir,
    store: Store,
    secrets: BTreeMap<String, Secret>,
    cancel: Cancel,
    none: BTreeMap<String, std::path::PathBuf>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            store: Store::open(dir.path()).unwrap(),
            _dir: dir,
            secrets: BTreeMap::new(),
            cancel: Cancel::new().unwrap(),
            none: BTreeMap::new(),
        }
    }

    fn remote(&self) -> Remote<'_> {
        Remote::new(
            &self.store,
            &self.secrets,
            &self.none,
            &|_| {},
            &self.cancel,
        )
        .with_limits(Limits {
            document: 1000,
            ..Limits::default()
        })
    }
}

#[test]
fn what_is_unchanged_is_not_sent_again() {
    let world = World::new();
    let dated = "200 OK\r\nETag: \"one\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT";
    let server = Script::new(vec![
        answer(dated, "first"),
        answer("304 Not Modified", ""),
        answer("200 OK", "second"),
        answer("200 OK", "second"),
    ]);
    let (url, remote) = (server.url("127.0.0.1"), world.remote());
    let (first, cached) = remote.document(&url, None).unwrap();
    assert_eq!(
        (first.blob, first.modified, cached),
        (Digest::of(b"first"), Some(784_111_777), false)
    );
    let (again, cached) = remote.document(&url, None).unwrap();
    assert_eq!((again, cached), (first, true));
    let asked = server.asked(1);
    assert!(
        asked.contains("if-none-match: \"one\"")
            && asked.contains("if-modified-since: sun, 06 nov"),
        "{asked}"
    );
    let (second, cached) = remote.document(&url, None).unwrap();
    assert_eq!(
        (second.blob, second.modified, cached),
        (Digest::of(b"second"), None, false)
    );
    // Without validators it comes again; the same bytes are the same result.
    let (_, cached) = remote.document(&url, None).unwrap();
    assert!(cached && !server.asked(3).contains("if-none-match"));
    // With its digest nobody is asked.
    let (_, cached) = remote.document(&url, Some(&second.blob)).unwrap();
    assert!(cached);
    assert_eq!(server.count(), 4);
}

#[test]
fn broken_answers() {
    let world = World::new();
    let short = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 10\r\n\r\nabc".to_owned();
    let server = Script::new(vec![short, answer("200 OK", "whole")]);
    let (document, _) = world
        .remote()
        .document(&server.url("127.0.0.1"), None)
        .unwrap();
    assert_eq!((document.blob, server.count()), (Digest::of(b"whole"), 2));

    let long = "x".repeat(1001);
    let endless = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{long}");
    for (text, kind, words) in [
        (answer("200 OK", &long), Kind::TooLarge, "larger than 1000"),
        (endless, Kind::TooLarge, "larger than 1000"),
        (
            answer("404 Not Found", "no"),
            Kind::NotFound,
            "cannot fetch http://127.0.0.1",
        ),
        (answer("403 Forbidden", "no"), Kind::Server, "cannot fetch"),
        (answer("204 No Content", ""), Kind::Server, "cannot fetch"),
        (answer("304 Not Modified", ""), Kind::Server, "cannot fetch"),
        (
            answer("302 Found\r\nLocation: ftp://x/", ""),
            Kind::Server,
            "cannot fetch",
        ),
    ] {
        let server = Script::new(vec![text]);
        let error = world
            .remote()
            .document(&server.url("u:hunter2@127.0.0.1"), None)
            .unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let shown = format!("{error} {:?}", error.hints());
        assert!(
            shown.contains(words) && !shown.contains("hunter2"),
            "{shown}"
        );
    }
    let server = Script::new(vec![answer("200 OK", "other")]);
    let wanted = Digest::of(b"wanted");
    let error = world
        .remote()
        .document(&server.url("127.0.0.1"), Some(&wanted))
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Checksum);
    assert!(error.to_string().contains("digest mismatch"));
}

#[test]
fn a_token_goes_to_its_host_and_no_further() {
    let mut world = World::new();
    let there = Script::new(vec![answer("200 OK", "x")]);
    let target = there.url("localhost");
    let here = Script::new(vec![answer(
        &format!("302 Found\r\nLocation: {target}"),
        "",
    )]);
    let secret = Secret(b"t0k\n".to_vec());
    world
        .secrets
        .insert("HTTP_AUTH_TOKEN_127.0.0.1".to_owned(), secret);
    world
        .remote()
        .document(&here.url("127.0.0.1"), None)
        .unwrap();
    assert!(
        here.asked(0).contains("authorization: bearer t0k\r\n"),
        "{}",
        here.asked(0)
    );
    assert!(
        !there.asked(0).contains("authorization"),
        "{}",
        there.asked(0)
    );
}

/// A tar of entries by name, kind and size; files are of zeros.
fn tar(entries: &[(&str, tar::EntryType, u64)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, size) in entries {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(*size);
        if *kind == tar::EntryType::Symlink {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        builder
            .append(&header, std::io::Read::take(std::io::repeat(0), *size))
            .unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn archives_that_mean_harm() {
    use tar::EntryType::{Regular, Symlink};
    let world = World::new();
    let remote = world.remote();
    let read = |bytes: Vec<u8>| remote.stream(Cursor::new(bytes), "it", 1000);
    for (bytes, words) in [
        (tar(&[("../out", Regular, 1)]), "it"),
        (gzip(b"no archive"), "no tar archive inside"),
        (vec![b'x'; 1001], "too large for a Dockerfile"),
        (tar(&[("a", Regular, 5000)])[..2000].to_vec(), "it"),
    ] {
        let error = read(bytes).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    // A link leads to a place in the context, never out of it.
    let Stream::Files(files) = read(tar(&[("a", Symlink, 0), ("a/b", Regular, 1)])).unwrap() else {
        panic!("it is an archive");
    };
    assert!(files.tree.find(b"etc/passwd/b").is_some());
    // A bomb of zeros takes no room: what is all zeros is a hole.
    let bomb = gzip(&tar(&[("zeros", Regular, 256 << 20)]));
    assert!(bomb.len() < 4 << 20);
    assert!(matches!(read(bomb).unwrap(), Stream::Files(_)));
    let blobs = world.store.root().join("blobs/sha256");
    let taken: u64 = fs_err::read_dir(blobs)
        .unwrap()
        .map(|entry| {
            std::os::unix::fs::MetadataExt::blocks(&entry.unwrap().metadata().unwrap()) * 512
        })
        .sum();
    assert!(taken < 8 << 20, "{taken} bytes on the disk");
}
