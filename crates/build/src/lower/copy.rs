//! COPY and ADD.

use firebuild_dockerfile::{AddFiles, CopyFiles, Heredoc, Rule, Span, Transfer, expand_heredoc};
use firebuild_oci::Digest;

use super::plan::Origin;
use super::reach::{Source, find_source};
use super::stage::{Stepper, join_dir};
use super::{LowerError, LowerErrorKind};
use crate::copy::Chmod;
use crate::graph::{CopyOp, CopySource, GitOp, HttpOp, Op, Unpack, VertexId};
use crate::remote::{GitRef, parse_git, url_file_name};

/// What of a COPY or ADD is expanded.
struct Expanded {
    sources: Vec<String>,
    dest: String,
    chown: Option<String>,
    chmod: Option<String>,
}

/// The parts in which COPY and ADD differ.
struct Kind<'k> {
    name: &'static str,
    parents: bool,
    keep_owner: bool,
    unpack: Unpack,
    checksum: Option<&'k str>,
    keep_git_dir: Option<bool>,
}

impl Stepper<'_, '_> {
    pub(super) fn copy(&mut self, copy: &CopyFiles) -> Result<(), LowerError> {
        let (input, keep_owner) = match &copy.from {
            None => (None, false),
            Some(word) => match find_source(self.plan, word, true, &self.plan.platform)? {
                Source::Stage(index) => {
                    let stage = self.output.stages[index].as_ref();
                    let stage = stage.expect(
                        "a source stands above its user and is needed whenever the user is",
                    );
                    (Some(stage.vertex), true)
                }
                Source::Other(Origin::Scratch) => (Some(self.scratch()), true),
                Source::Other(Origin::Files(name)) => (Some(self.context(&name)), false),
                Source::Other(Origin::Image(request)) => (Some(self.image(&request, false)), true),
            },
        };
        let kind = Kind {
            name: "COPY",
            parents: copy.parents,
            keep_owner,
            unpack: Unpack::Never,
            checksum: None,
            keep_git_dir: None,
        };
        self.transfer(&copy.transfer, &kind, input)
    }

    pub(super) fn add(&mut self, add: &AddFiles) -> Result<(), LowerError> {
        let checksum = self
            .expand_maybe(add.checksum.as_ref())?
            .filter(|text| !text.is_empty());
        let kind = Kind {
            name: "ADD",
            parents: false,
            keep_owner: false,
            unpack: match add.unpack {
                None => Unpack::Local,
                Some(true) => Unpack::Always,
                Some(false) => Unpack::Never,
            },
            checksum: checksum.as_deref(),
            keep_git_dir: add.keep_git_dir,
        };
        self.transfer(&add.transfer, &kind, None)
    }

    fn transfer(
        &mut self,
        transfer: &Transfer,
        kind: &Kind<'_>,
        from: Option<VertexId>,
    ) -> Result<(), LowerError> {
        let expanded = self.expand_transfer(transfer)?;
        if kind.checksum.is_some() {
            check_checksum_use(&expanded.sources).map_err(|error| error.at(self.now.span))?;
        }
        let text = history_text(&expanded, transfer, kind);
        let mut inputs = vec![self.vertex];
        let mut sources = Vec::with_capacity(expanded.sources.len() + transfer.files.len());
        for (pattern, word) in expanded.sources.iter().zip(&transfer.sources) {
            let source = self
                .source(pattern, kind, from, &mut inputs)
                .map_err(|error| error.at(word.span))?;
            sources.push(source);
        }
        for heredoc in &transfer.files {
            sources.push(self.inline(heredoc)?);
        }
        let op = CopyOp {
            sources,
            dest: destination(self.directory(), &expanded.dest),
            chown: expanded.chown,
            chmod: expanded.chmod,
            parents: kind.parents,
            exclude: transfer
                .exclude
                .iter()
                .map(|word| word.text.clone())
                .collect(),
            keep_owner: kind.keep_owner,
            unpack: kind.unpack,
        };
        let shown = self.shown_expanded();
        let name = self.named(&shown);
        // With --chmod BuildKit makes an ordinary copy of it, and so do we.
        if transfer.link && op.chmod.is_none() {
            let below = std::mem::replace(&mut inputs[0], self.scratch());
            let copied = self.push(Op::Copy(op), inputs, name);
            let name = self.renamed(&format!("LINK {shown}"));
            self.vertex = self.push(Op::Merge, vec![below, copied], name);
        } else {
            self.vertex = self.push(Op::Copy(op), inputs, name);
        }
        self.commit(text, true);
        Ok(())
    }

    fn expand_transfer(&mut self, transfer: &Transfer) -> Result<Expanded, LowerError> {
        let chown = self
            .expand_maybe(transfer.chown.as_ref())?
            .filter(|text| !text.is_empty());
        let chmod = self
            .expand_maybe(transfer.chmod.as_ref())?
            .filter(|text| !text.is_empty());
        if let (Some(text), Some(word)) = (&chmod, &transfer.chmod) {
            Chmod::parse(text).map_err(|error| {
                LowerError::new(LowerErrorKind::Copy, format!("cannot use --chmod={text}"))
                    .at(word.span)
                    .caused_by(error)
            })?;
        }
        let mut sources = Vec::with_capacity(transfer.sources.len());
        for word in &transfer.sources {
            sources.push(self.expand(word)?);
        }
        Ok(Expanded {
            sources,
            dest: self.expand(&transfer.destination)?,
            chown,
            chmod,
        })
    }

    /// One source that is no heredoc.
    fn source(
        &mut self,
        pattern: &str,
        kind: &Kind<'_>,
        from: Option<VertexId>,
        inputs: &mut Vec<VertexId>,
    ) -> Result<CopySource, LowerError> {
        let is_copy = kind.name == "COPY";
        if let Some(git) = parse_git(pattern).map_err(|message| {
            LowerError::new(
                LowerErrorKind::Copy,
                format!("cannot use the git source {pattern:?}: {message}"),
            )
        })? {
            if is_copy {
                return Err(remote_copy("source can't be a git ref for COPY"));
            }
            let vertex = self.git(git, kind)?;
            return Ok(CopySource::Paths {
                input: input_of(inputs, vertex),
                pattern: "/".to_owned(),
                remote: true,
            });
        }
        if pattern.starts_with("http://") || pattern.starts_with("https://") {
            if is_copy {
                return Err(remote_copy("source can't be a URL for COPY"));
            }
            let checksum = kind.checksum.map(check_digest).transpose()?;
            let file_name = url_file_name(pattern);
            let op = HttpOp {
                url: pattern.to_owned(),
                file_name: file_name.clone(),
                checksum,
                beside: false,
            };
            let span = Some(self.now.span);
            let vertex =
                self.output
                    .vertices
                    .source(Op::Http(op), || format!("ADD {pattern}"), span);
            return Ok(CopySource::Paths {
                input: input_of(inputs, vertex),
                pattern: literal(&file_name),
                remote: true,
            });
        }
        if from.is_none()
            && let Some(base) = &self.plan.options.beside
        {
            let op = beside(base, pattern)?;
            let (name, file_name) = (format!("GET {}", op.url), op.file_name.clone());
            let span = Some(self.now.span);
            let vertex = self.output.vertices.source(Op::Http(op), || name, span);
            return Ok(CopySource::Paths {
                input: input_of(inputs, vertex),
                pattern: literal(&file_name),
                remote: false,
            });
        }
        if from.is_none() {
            self.check_ignored(pattern, is_copy);
        }
        let vertex = match from {
            Some(vertex) => vertex,
            None => self.context(""),
        };
        Ok(CopySource::Paths {
            input: input_of(inputs, vertex),
            pattern: pattern.to_owned(),
            remote: false,
        })
    }

    fn git(&mut self, git: GitRef, kind: &Kind<'_>) -> Result<VertexId, LowerError> {
        if let (Some(flag), Some(query)) = (kind.keep_git_dir, git.keep_git_dir)
            && flag != query
        {
            return Err(LowerError::new(
                LowerErrorKind::Copy,
                "inconsistent keep-git-dir configuration",
            ));
        }
        if let (Some(flag), Some(query)) = (kind.checksum, &git.checksum)
            && flag != query
        {
            return Err(LowerError::new(
                LowerErrorKind::Copy,
                format!("checksum mismatch {flag:?} != {query:?}"),
            ));
        }
        let name = format!("ADD {}", git.remote);
        let op = GitOp {
            remote: git.remote,
            reference: git.reference,
            subdir: git.subdir,
            keep_git_dir: git.keep_git_dir.or(kind.keep_git_dir).unwrap_or(false),
            checksum: git.checksum.or(kind.checksum.map(str::to_owned)),
            submodules: git.submodules,
            commit_times: git.commit_times,
            fetch_by_commit: git.fetch_by_commit,
        };
        Ok(self
            .output
            .vertices
            .source(Op::Git(op), || name, Some(self.now.span)))
    }

    fn inline(&mut self, heredoc: &Heredoc) -> Result<CopySource, LowerError> {
        let name = heredoc.name.trim_start_matches('/');
        if join_dir("/", name) != format!("/{name}") || name.contains('\0') {
            let message = format!("{:?} cannot be the name of a file", heredoc.name);
            return Err(LowerError::new(LowerErrorKind::Copy, message).at(heredoc.span));
        }
        let text = heredoc.text();
        let data = if heredoc.expand {
            let expanded = expand_heredoc(&text, |name| self.env.get(name)).map_err(|error| {
                // Without `<<-` the text lies in the file as it is.
                let offset = if heredoc.strip_tabs {
                    0
                } else {
                    error.offset()
                };
                let body = heredoc.body_span;
                LowerError::new(
                    LowerErrorKind::Expansion,
                    format!("cannot expand the heredoc {}", heredoc.name),
                )
                .at(Span::new((body.start + offset).min(body.end), body.end))
                .caused_by(error)
            })?;
            self.report_unset(&expanded.unset);
            expanded.text
        } else {
            text.into_owned()
        };
        self.output.bytes += data.len();
        Ok(CopySource::Inline {
            name: name.to_owned(),
            data: data.into_bytes(),
        })
    }

    /// Warns of a source that the ignore file leaves out. With exceptions in the file that cannot be told.
    fn check_ignored(&mut self, pattern: &str, is_copy: bool) {
        let Some(ignore) = &self.plan.options.ignore else {
            return;
        };
        if ignore.has_exceptions() {
            return;
        }
        let joined = join_dir("/", pattern);
        let shown = if pattern.starts_with('/') {
            joined.as_str()
        } else {
            &joined[1..]
        };
        let shown = if shown.is_empty() { "." } else { shown };
        let ignored = match shown {
            "." | "/" => ignore.ignores_all(),
            path => ignore.is_ignored(path.as_bytes()),
        };
        if ignored {
            let verb = if is_copy { "Copy" } else { "Add" };
            let message =
                format!("Attempting to {verb} file {shown:?} that is excluded by .dockerignore");
            self.warn(Rule::CopyIgnoredFile, message);
        }
    }
}

/// The position of a vertex among the inputs of a copy; 0 is what is copied onto.
fn input_of(inputs: &mut Vec<VertexId>, vertex: VertexId) -> usize {
    match inputs.iter().skip(1).position(|known| *known == vertex) {
        Some(at) => at + 1,
        None => {
            inputs.push(vertex);
            inputs.len() - 1
        }
    }
}

/// A source that lies beside a Dockerfile which was fetched from an address: one file.
fn beside(base: &str, pattern: &str) -> Result<HttpOp, LowerError> {
    let wrong = |what: &str| {
        let message = format!("cannot copy {pattern:?} from {base}: {what}");
        Err(LowerError::new(LowerErrorKind::Copy, message).with_hint(
            "the Dockerfile came from an address, where files can be fetched one by one only; build from a directory, an archive or a git repository instead",
        ))
    };
    if pattern.contains(['*', '?', '[']) {
        return wrong("an address has no list of files for a wildcard");
    }
    let path = join_dir("/", pattern);
    if path == "/" || pattern.ends_with('/') || pattern.ends_with("/.") {
        return wrong("it is a directory");
    }
    let mut url = base.trim_end_matches('/').to_owned();
    for byte in path.bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'~' => url.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => url.push(char::from(byte)),
            byte => url += &format!("%{byte:02X}"),
        }
    }
    let file_name = path.rsplit('/').next().unwrap_or_default().to_owned();
    Ok(HttpOp {
        url,
        file_name,
        checksum: None,
        beside: true,
    })
}

fn remote_copy(message: &str) -> LowerError {
    LowerError::new(LowerErrorKind::Copy, message).with_hint("use ADD")
}

fn check_checksum_use(sources: &[String]) -> Result<(), LowerError> {
    let wrong = |message: &str| Err(LowerError::new(LowerErrorKind::Copy, message));
    let [source] = sources else {
        return wrong("checksum can't be specified for multiple sources");
    };
    let is_http = source.starts_with("http://") || source.starts_with("https://");
    if !is_http && !matches!(parse_git(source), Ok(Some(_))) {
        return wrong("checksum requires HTTP(S) or Git sources");
    }
    Ok(())
}

fn check_digest(text: &str) -> Result<String, LowerError> {
    match text.parse::<Digest>() {
        Ok(digest) => Ok(digest.to_string()),
        Err(error) => {
            let message = format!("invalid checksum {text:?}");
            Err(LowerError::new(LowerErrorKind::Copy, message).caused_by(error))
        }
    }
}

/// Absolute and clean; a slash at the end stays, since it says that files go inside.
fn destination(directory: &str, dest: &str) -> String {
    let is_dir = dest.is_empty() || dest == "." || dest.ends_with('/') || dest.ends_with("/.");
    let joined = join_dir(directory, dest);
    if is_dir && joined != "/" {
        joined + "/"
    } else {
        joined
    }
}

/// `COPY [--parents] [--chown=…] [--chmod=…] src… dst # buildkit`
fn history_text(expanded: &Expanded, transfer: &Transfer, kind: &Kind<'_>) -> String {
    let mut text = kind.name.to_owned();
    if kind.parents {
        text += " --parents";
    }
    for (flag, value) in [("chown", &expanded.chown), ("chmod", &expanded.chmod)] {
        if let Some(value) = value {
            text += &format!(" --{flag}={value}");
        }
    }
    for source in &expanded.sources {
        text += &format!(" {source}");
    }
    for heredoc in &transfer.files {
        text += &format!(" <<{}", heredoc.name);
    }
    text + &format!(" {} # buildkit", expanded.dest)
}

/// A name as a pattern that matches it and nothing else.
fn literal(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len());
    for character in name.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::{beside, destination, literal};

    #[test]
    fn files_beside_a_dockerfile_of_an_address() {
        for (pattern, url, name) in [
            ("a.txt", "http://h/d/a.txt", "a.txt"),
            ("./x/../b c", "http://h/d/b%20c", "b c"),
            ("/s/é?.t", "", ""),
            ("../../etc/passwd", "http://h/d/etc/passwd", "passwd"),
            ("a#b", "http://h/d/a%23b", "a#b"),
        ] {
            match beside("http://h/d/", pattern) {
                Ok(op) => assert_eq!((op.url.as_str(), op.file_name.as_str()), (url, name)),
                Err(_) => assert_eq!(url, "", "{pattern}"),
            }
        }
        for pattern in [".", "/", "dir/", "dir/.", "*.txt", "", ".."] {
            let error = beside("http://h/d/", pattern).unwrap_err().to_string();
            assert!(error.contains("http://h/d/"), "{error}");
        }
    }

    #[test]
    fn destinations() {
        for (directory, dest, expected) in [
            ("/", "/a", "/a"),
            ("/w", "a", "/w/a"),
            ("/w", "a/", "/w/a/"),
            ("/w", ".", "/w/"),
            ("/w", "", "/w/"),
            ("/w", "./", "/w/"),
            ("/w", "a/.", "/w/a/"),
            ("/w", "../../x", "/x"),
            ("/", ".", "/"),
            ("/w", "/", "/"),
        ] {
            assert_eq!(destination(directory, dest), expected, "{directory} {dest}");
        }
    }

    #[test]
    fn names_with_the_characters_of_patterns() {
        assert_eq!(literal("a[1]*.t"), "a\\[1\\]\\*.t");
    }
}
