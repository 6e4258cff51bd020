//! The package sources of this host, as apt reads them: `sources.list(5)`.
//!
//! Two formats: one line each (`deb [options] URI SUITE COMPONENT…`) in `*.list`, and stanzas of
//! fields in `*.sources`. What this program has no use for (source packages, other architectures,
//! disabled stanzas) is left out here.

use std::path::Path;

use super::error::{BaseOsError, io};

/// One repository that apt would ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) uri: String,
    pub(crate) suite: String,
    pub(crate) components: Vec<String>,
    pub(crate) signed_by: SignedBy,
}

/// Which keys may sign a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SignedBy {
    /// Any that apt trusts.
    Any,
    /// Those in these keyrings; also fingerprints.
    Files(Vec<String>),
    /// A key written in the stanza itself.
    Embedded,
}

/// The architecture that is bootstrapped.
const ARCHITECTURE: &str = "amd64";
/// No administrator writes more than this.
const LARGEST_FILE: u64 = 4 << 20;

/// Reads all sources below `etc` (the host's `/etc/apt`), in apt's order. Files that are not there
/// are no error; one that cannot be read is.
pub(crate) fn read(etc: &Path) -> Result<Vec<Source>, BaseOsError> {
    let mut sources = Vec::new();
    let list = etc.join("sources.list");
    if let Some(text) = read_text(&list)? {
        sources.extend(parse_list(&text));
    }
    let parts = etc.join("sources.list.d");
    let mut files = match fs_err::read_dir(&parts) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        entries => entries
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| io("list", &parts, error))?
            .into_iter()
            .map(|entry| entry.path())
            .collect(),
    };
    files.sort();
    for file in files {
        let stanzas = match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => false,
            Some("sources") => true,
            _ => continue,
        };
        let Some(text) = read_text(&file)? else {
            continue;
        };
        if stanzas {
            sources.extend(parse_stanzas(&text));
        } else {
            sources.extend(parse_list(&text));
        }
    }
    Ok(sources)
}

fn read_text(path: &Path) -> Result<Option<String>, BaseOsError> {
    use std::io::Read;
    let file = match fs_err::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|error| io("read", path, error))?,
    };
    let mut text = Vec::new();
    file.take(LARGEST_FILE)
        .read_to_end(&mut text)
        .map_err(|error| io("read", path, error))?;
    Ok(Some(String::from_utf8_lossy(&text).into_owned()))
}

/// Reads the one-line format.
fn parse_list(text: &str) -> Vec<Source> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Source> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let mut rest = line.strip_prefix("deb")?;
    if !rest.starts_with([' ', '\t']) {
        return None; // deb-src
    }
    rest = rest.trim_start();
    let mut signed_by = SignedBy::Any;
    if let Some(options) = rest.strip_prefix('[') {
        let (options, after) = options.split_once(']')?;
        rest = after;
        for option in options.split_ascii_whitespace() {
            match option.split_once('=') {
                Some(("signed-by", value)) => {
                    signed_by = SignedBy::Files(value.split(',').map(str::to_owned).collect());
                }
                Some(("arch", value)) if !value.split(',').any(|arch| arch == ARCHITECTURE) => {
                    return None;
                }
                _ => {}
            }
        }
    }
    let mut words = rest.split_ascii_whitespace().map(str::to_owned);
    Some(Source {
        uri: words.next()?,
        suite: words.next()?,
        components: words.collect(),
        signed_by,
    })
}

/// Reads the stanza format: one source for each URI and suite of each stanza.
fn parse_stanzas(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            sources.extend(stanza(&fields));
            fields.clear();
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    sources
}

fn stanza(fields: &[(String, String)]) -> Vec<Source> {
    let field = |name: &str| {
        fields
            .iter()
            .find(|(field, _)| field == name)
            .map_or("", |(_, value)| value.as_str())
    };
    let words = |name: &str| -> Vec<String> {
        field(name)
            .split_ascii_whitespace()
            .map(str::to_owned)
            .collect()
    };
    let off = matches!(
        field("enabled").to_ascii_lowercase().as_str(),
        "no" | "false" | "without" | "off" | "disable"
    );
    let architectures = words("architectures");
    let other_machine =
        !architectures.is_empty() && !architectures.iter().any(|arch| arch == ARCHITECTURE);
    if off || other_machine || !words("types").iter().any(|kind| kind == "deb") {
        return Vec::new();
    }
    let signed_by = match field("signed-by") {
        "" => SignedBy::Any,
        key if key.contains("-----BEGIN PGP") => SignedBy::Embedded,
        _ => SignedBy::Files(words("signed-by")),
    };
    let suites = words("suites");
    words("uris")
        .into_iter()
        .flat_map(|uri| suites.iter().map(move |suite| (uri.clone(), suite.clone())))
        .map(|(uri, suite)| Source {
            uri,
            suite,
            components: words("components"),
            signed_by: signed_by.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{SignedBy, Source, parse_list, parse_stanzas, read};

    fn source(uri: &str, suite: &str, components: &[&str]) -> Source {
        Source {
            uri: uri.to_owned(),
            suite: suite.to_owned(),
            components: components.iter().map(|&c| c.to_owned()).collect(),
            signed_by: SignedBy::Any,
        }
    }

    #[test]
    fn lines() {
        let sources = parse_list(
            "# comment\n\
             deb http://m/debian bookworm main contrib # the rest\n\
             deb-src http://m/debian bookworm main\n\
             deb [ arch=amd64,i386 signed-by=/k.gpg ] http://m/x bookworm main\n\
             deb [arch=arm64] http://m/x bookworm main\n\
             deb [broken http://m/x bookworm main\n\
             deb http://m/only-a-uri\n\
             debug\n",
        );
        let mut signed = source("http://m/x", "bookworm", &["main"]);
        signed.signed_by = SignedBy::Files(vec!["/k.gpg".to_owned()]);
        assert_eq!(
            sources,
            [
                source("http://m/debian", "bookworm", &["main", "contrib"]),
                signed
            ]
        );
    }

    #[test]
    fn stanzas() {
        let sources = parse_stanzas(
            "Types: deb deb-src\n# a comment inside\nURIs: http://a/debian\n  http://b/debian\n\
             Suites: bookworm bookworm-updates\nComponents: main\nSigned-By: /k.gpg\n\n\
             Types: deb\nURIs: http://c\nSuites: x\nComponents: main\nEnabled: no\n\n\
             Types: deb\nURIs: http://d\nSuites: y\nComponents: main\nArchitectures: arm64\n\n\
             types: deb\nuris: http://e\nsuites: z/\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n",
        );
        let found: Vec<(&str, &str)> = sources
            .iter()
            .map(|s| (s.uri.as_str(), s.suite.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("http://a/debian", "bookworm"),
                ("http://a/debian", "bookworm-updates"),
                ("http://b/debian", "bookworm"),
                ("http://b/debian", "bookworm-updates"),
                ("http://e", "z/"),
            ]
        );
        assert_eq!(
            sources[0].signed_by,
            SignedBy::Files(vec!["/k.gpg".to_owned()])
        );
        assert_eq!(sources[4].signed_by, SignedBy::Embedded);
    }

    #[test]
    fn files_come_in_apts_order_and_none_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), []);
        let parts = dir.path().join("sources.list.d");
        fs_err::create_dir(&parts).unwrap();
        for (name, text) in [
            ("b.list", "deb http://b b main\n"),
            ("a.sources", "Types: deb\nURIs: http://a\nSuites: a\n"),
            ("c.list.save", "deb http://c c main\n"),
        ] {
            fs_err::write(parts.join(name), text).unwrap();
        }
        fs_err::write(dir.path().join("sources.list"), "deb http://0 x main\n").unwrap();
        let uris: Vec<String> = read(dir.path())
            .unwrap()
            .into_iter()
            .map(|s| s.uri)
            .collect();
        assert_eq!(uris, ["http://0", "http://a", "http://b"]);
    }
}
