//! The text form of a [`Graph`]: for people, for golden tests, and for `--print=graph`.
//!
//! ```text
//! 0 image docker.io/library/debian:bookworm@sha256:…
//!   layer sha256:…
//! 1 context ""
//! # [1/1] COPY app /srv/
//! 2 copy 0
//!   from 1 "app"
//!   dest "/srv/"
//! target 2
//! ```
//!
//! A line without indentation begins a vertex: its number, what it is, and the number of what it is made on. Lines below
//! it are its parts, in a fixed order; what has its default value is left out. Texts are quoted as in Rust. Lines with `#`
//! are names for people; the rest is what a cache key is made of, so a change of it is a change of keys.

use std::fmt::Write as _;

use crate::graph::{
    CopyOp, CopySource, ExecOp, Graph, Mount, MountKind, NetworkMode, Op, SecurityMode, Sharing,
    Unpack, Vertex, VertexId,
};

/// Bytes of a heredoc that are shown in full.
const SHOWN_DATA: usize = 4096;

/// Writes a graph as text.
#[must_use]
pub fn graph_to_text(graph: &Graph) -> String {
    let mut text = Text(String::new());
    for (number, vertex) in graph.vertices.iter().enumerate() {
        text.vertex(number, vertex);
    }
    text.line(format_args!("target {}", graph.target.0));
    text.0
}

struct Text(String);

impl Text {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{line}");
    }

    fn part(&mut self, name: &str, value: std::fmt::Arguments<'_>) {
        self.line(format_args!("  {name} {value}"));
    }

    fn flag(&mut self, name: &str, given: bool) {
        if given {
            self.line(format_args!("  {name}"));
        }
    }

    fn vertex(&mut self, number: usize, vertex: &Vertex) {
        let input = |position: usize| {
            vertex
                .inputs
                .get(position)
                .map_or(u32::MAX, |VertexId(id)| *id)
        };
        if !matches!(vertex.op, Op::Scratch | Op::Context(_) | Op::Image(_)) {
            self.line(format_args!("# {}", vertex.name.replace('\n', " ")));
        }
        match &vertex.op {
            Op::Scratch => self.line(format_args!("{number} scratch")),
            Op::Image(image) => {
                self.line(format_args!("{number} image {}", image.reference));
                for layer in &image.layers {
                    self.part("layer", format_args!("{layer}"));
                }
            }
            Op::Context(context) => self.line(format_args!("{number} context {:?}", context.name)),
            Op::Http(http) => {
                self.line(format_args!("{number} http {:?}", http.url));
                self.part("name", format_args!("{:?}", http.file_name));
                if let Some(checksum) = &http.checksum {
                    self.part("checksum", format_args!("{checksum}"));
                }
                self.flag("beside", http.beside);
            }
            Op::Git(git) => {
                self.line(format_args!("{number} git {:?}", git.remote));
                for (name, value) in [("reference", &git.reference), ("subdir", &git.subdir)] {
                    if !value.is_empty() {
                        self.part(name, format_args!("{value:?}"));
                    }
                }
                if let Some(checksum) = &git.checksum {
                    self.part("checksum", format_args!("{checksum}"));
                }
                self.flag("keep-git-dir", git.keep_git_dir);
                self.flag("no-submodules", !git.submodules);
                self.flag("commit-times", git.commit_times);
                self.flag("fetch-by-commit", git.fetch_by_commit);
            }
            Op::Exec(exec) => {
                self.line(format_args!("{number} exec {}", input(0)));
                self.exec(exec, &vertex.inputs);
            }
            Op::Copy(copy) => {
                self.line(format_args!("{number} copy {}", input(0)));
                self.copy(copy, &vertex.inputs);
            }
            Op::Mkdir(mkdir) => {
                self.line(format_args!("{number} mkdir {}", input(0)));
                self.part("path", format_args!("{:?}", mkdir.path));
                if !mkdir.user.is_empty() {
                    self.part("user", format_args!("{:?}", mkdir.user));
                }
            }
            Op::Merge => {
                self.line(format_args!("{number} merge {}", input(0)));
                self.part("above", format_args!("{}", input(1)));
            }
        }
    }

    fn exec(&mut self, exec: &ExecOp, inputs: &[VertexId]) {
        self.part("argv", format_args!("{:?}", exec.argv));
        for (name, value) in &exec.env {
            self.part("env", format_args!("{name}={value:?}"));
        }
        for (name, value) in &exec.proxy_env {
            self.part("proxy", format_args!("{name}={value:?}"));
        }
        self.part("cwd", format_args!("{:?}", exec.cwd));
        if !exec.user.is_empty() {
            self.part("user", format_args!("{:?}", exec.user));
        }
        self.part("hostname", format_args!("{:?}", exec.hostname));
        match exec.network {
            NetworkMode::Default => {}
            NetworkMode::None => self.part("network", format_args!("none")),
            NetworkMode::Host => self.part("network", format_args!("host")),
        }
        self.flag("security insecure", exec.security == SecurityMode::Insecure);
        for (address, name) in &exec.extra_hosts {
            self.part("host", format_args!("{address} {name:?}"));
        }
        for mount in &exec.mounts {
            self.mount(mount, inputs);
        }
        for file in &exec.files {
            self.part(
                "file",
                format_args!("{:?} {:04o} {}", file.path, file.mode, data(&file.data)),
            );
        }
    }

    fn mount(&mut self, mount: &Mount, inputs: &[VertexId]) {
        let from = |input: usize| inputs.get(input).map_or(u32::MAX, |VertexId(id)| *id);
        let access = if mount.read_only { "ro" } else { "rw" };
        let owned = |mode: u32, uid: u32, gid: u32| format!("{mode:04o} {uid}:{gid}");
        let wanted = |required: bool| if required { " required" } else { "" };
        let shown = match &mount.kind {
            MountKind::Bind { input, source } => format!("bind {} {source:?}", from(*input)),
            MountKind::Cache {
                id,
                sharing,
                seed,
                mode,
                uid,
                gid,
            } => {
                let sharing = match sharing {
                    Sharing::Shared => "shared",
                    Sharing::Private => "private",
                    Sharing::Locked => "locked",
                };
                let seed = seed
                    .as_ref()
                    .map(|(input, source)| format!(" seed {} {source:?}", from(*input)));
                format!(
                    "cache {id:?} {sharing} {}{}",
                    owned(*mode, *uid, *gid),
                    seed.unwrap_or_default()
                )
            }
            MountKind::Tmpfs { size } => match size {
                Some(size) => format!("tmpfs {size}"),
                None => "tmpfs".to_owned(),
            },
            MountKind::Secret {
                id,
                required,
                mode,
                uid,
                gid,
            } => {
                format!(
                    "secret {id:?} {}{}",
                    owned(*mode, *uid, *gid),
                    wanted(*required)
                )
            }
            MountKind::SecretEnv {
                id,
                required,
                variable,
            } => {
                format!("secret-env {id:?} {variable}{}", wanted(*required))
            }
            MountKind::Ssh {
                id,
                required,
                mode,
                uid,
                gid,
            } => {
                format!(
                    "ssh {id:?} {}{}",
                    owned(*mode, *uid, *gid),
                    wanted(*required)
                )
            }
        };
        if mount.target.is_empty() {
            self.part("mount", format_args!("{shown}"));
        } else {
            self.part("mount", format_args!("{:?} {access} {shown}", mount.target));
        }
    }

    fn copy(&mut self, copy: &CopyOp, inputs: &[VertexId]) {
        for source in &copy.sources {
            match source {
                CopySource::Paths {
                    input,
                    pattern,
                    remote,
                } => {
                    let from = inputs.get(*input).map_or(u32::MAX, |VertexId(id)| *id);
                    let remote = if *remote { " remote" } else { "" };
                    self.part("from", format_args!("{from} {pattern:?}{remote}"));
                }
                CopySource::Inline { name, data: bytes } => {
                    self.part("inline", format_args!("{name:?} {}", data(bytes)));
                }
            }
        }
        self.part("dest", format_args!("{:?}", copy.dest));
        if let Some(chown) = &copy.chown {
            self.part("chown", format_args!("{chown:?}"));
        }
        if let Some(chmod) = &copy.chmod {
            self.part("chmod", format_args!("{chmod:?}"));
        }
        for pattern in &copy.exclude {
            self.part("exclude", format_args!("{pattern:?}"));
        }
        self.flag("parents", copy.parents);
        self.flag("keep-owner", copy.keep_owner);
        match copy.unpack {
            Unpack::Never => {}
            Unpack::Local => self.part("unpack", format_args!("local")),
            Unpack::Always => self.part("unpack", format_args!("always")),
        }
    }
}

/// Bytes as quoted text; of many only how many and their digest.
fn data(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.len() <= SHOWN_DATA => format!("{text:?}"),
        _ => format!("{} bytes {}", bytes.len(), firebuild_oci::Digest::of(bytes)),
    }
}
