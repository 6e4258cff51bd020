//! A store, a tiny base system, and running steps on it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use firebuild_build::cancel::Cancel;
use firebuild_build::chain::{Chain, ChainLayer};
use firebuild_build::content::{NoPaths, StoreContents, store_layer};
use firebuild_build::event::Stream;
use firebuild_build::exec::{ExecError, Executed, Executor, Exit, Step};
use firebuild_rootfs::dump::{layer_to_text, parse_layer};
use firebuild_rootfs::layer::{Change, Layer};
use firebuild_rootfs::tree::{Content, Inode, Kind, Meta};
use firebuild_store::Store;

use crate::subject::{self, Subject};

/// A busybox that needs nothing else.
pub(crate) fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.is_file())
}

/// The commands that the base has.
const COMMANDS: &str = "sh cat ls id mkdir rmdir rm mv ln chmod chown touch echo sleep env pwd hostname stat mount umount \
     mkfifo mknod true false kill seq dd ps find wc sort unshare ip setsid grep test readlink cp sync head nc tr";

/// Files of the base, besides busybox and its links.
const FILES: &str = "\
/ dir 0755 0:0 1000
/bin dir 0755 0:0 1000
/etc dir 0755 0:0 1000
/etc/passwd file 0644 0:0 1000 70 data:root:x:0:0:root:/root:/bin/sh\\x0aapp:x:1000:1001:App:/srv/app:/bin/sh\\x0abig:x:70000:70000::/:\\x0a
/etc/group file 0644 0:0 1000 43 data:root:x:0:\\x0aapp:x:1001:\\x0awheel:x:10:app\\x0adisk:x:6:app\\x0a
/root dir 0700 0:0 1000
/srv dir 0755 0:0 1000
/srv/app dir 0755 1000:1001 1000
/srv/app/mine file 0640 1000:1001 1000 4 data:mine
/srv/node char 0666 0:0 1000 1:3
/srv/opaque dir 0755 0:0 1000
/srv/opaque/a file 0644 0:0 1000 1 data:a
/srv/opaque/b file 0644 0:0 1000 1 data:b
/srv/tree/x/y dir 0755 0:0 1000
/srv/tree/x/y/z file 0644 0:0 1000 1 data:z
/srv/file file 0644 0:0 1000 5 data:first xattr:user.kept=6b
/srv/one file 0644 0:0 1000 4 data:both
/srv/two link /srv/one
/tmp dir 1777 0:0 1000
";

/// A store with a base in it.
pub(crate) struct Base {
    pub(crate) directory: PathBuf,
    pub(crate) store: &'static Store,
    pub(crate) chain: Arc<Chain>,
}

/// What a step came to.
pub(crate) struct Ran {
    pub(crate) done: Executed,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Base {
    pub(crate) fn new(directory: &Path) -> Self {
        let store = subject::store(directory);
        let mut text = FILES.to_owned();
        for command in COMMANDS.split_whitespace() {
            text.push_str(&format!(
                "/bin/{command} symlink 0777 0:0 1000 -> busybox\n"
            ));
        }
        // Sizes are counted here rather than by hand.
        let text: String = text.lines().map(sized).collect();
        let mut layer = parse_layer(&text).unwrap();
        let program = fs_err::read(busybox().unwrap()).unwrap();
        let meta = Meta {
            mode: 0o755,
            ..Meta::default()
        };
        layer.push(
            *b"bin/busybox",
            Change::Node(Inode::new(meta, Kind::File(Content::from_bytes(program)))),
        );
        layer.sort();
        let chain = push(store, &Chain::scratch(), &layer);
        Self {
            directory: directory.to_owned(),
            store,
            chain,
        }
    }

    /// A chain with one more layer, given as text.
    pub(crate) fn layer(&self, below: &Arc<Chain>, text: &str) -> Arc<Chain> {
        let text: String = text.lines().map(sized).collect();
        push(self.store, below, &parse_layer(&text).unwrap())
    }

    /// The executor that is tested.
    pub(crate) fn sandbox(&self) -> Subject {
        subject::executor(self.store)
    }

    /// Runs a shell script on the base.
    pub(crate) fn sh(&self, script: &str) -> Ran {
        run(&self.sandbox(), &self.chain, &shell(script)).unwrap()
    }

    /// The chain that a step has made.
    pub(crate) fn after(&self, below: &Arc<Chain>, ran: &Ran) -> Arc<Chain> {
        let diff_id = ran
            .done
            .layer
            .as_ref()
            .expect("a step that succeeded")
            .diff_id;
        below.push(ChainLayer {
            diff_id,
            created: None,
        })
    }

    /// What is left in the store that is no finished snapshot.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let names = |directory: &str| {
            fs_err::read_dir(self.store.root().join(directory))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .collect::<Vec<_>>()
        };
        let mut left = names("tmp");
        left.extend(
            names("snapshots")
                .into_iter()
                .filter(|name| name.starts_with("active-")),
        );
        left
    }
}

pub(crate) fn push(store: &Store, below: &Arc<Chain>, layer: &Layer) -> Arc<Chain> {
    let stored = store_layer(store, layer, &StoreContents::with_paths(store, &NoPaths)).unwrap();
    below.push(ChainLayer {
        diff_id: stored.diff_id,
        created: None,
    })
}

/// A line of a dump with the size of its data.
fn sized(line: &str) -> String {
    let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    if words.get(1).is_some_and(|word| word == "file") {
        let data = words[6].strip_prefix("data:").unwrap();
        words[5] = firebuild_rootfs::path::unescape(data)
            .unwrap()
            .len()
            .to_string();
    }
    words.join(" ") + "\n"
}

/// `sh -c SCRIPT` with an environment like Docker's.
pub(crate) fn shell(script: &str) -> Step {
    Step {
        argv: ["/bin/sh", "-c", script].map(str::to_owned).into(),
        env: vec![("PATH".into(), "/bin".into())],
        cwd: "/".into(),
        ..Step::default()
    }
}

pub(crate) fn run(
    executor: &dyn Executor,
    base: &Arc<Chain>,
    step: &Step,
) -> Result<Ran, ExecError> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut output = |stream: Stream, data: &[u8]| match stream {
        Stream::Stdout => stdout.extend_from_slice(data),
        Stream::Stderr => stderr.extend_from_slice(data),
    };
    let done = executor.run(base, step, &mut output, &Cancel::new().unwrap())?;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ok(Ran {
        done,
        stdout: text(stdout),
        stderr: text(stderr),
    })
}

impl Ran {
    /// The output of a step that has to succeed.
    #[track_caller]
    pub(crate) fn ok(&self) -> &str {
        assert_eq!(
            self.done.status,
            Exit::Code(0),
            "stdout: {}\nstderr: {}",
            self.stdout,
            self.stderr
        );
        assert_eq!(self.done.notices, Vec::<String>::new());
        &self.stdout
    }

    /// The layer as text; times that are not the base's are `now`, places in blobs are left out.
    pub(crate) fn changes(&self) -> String {
        let mut text = String::new();
        for line in layer_to_text(
            &self
                .done
                .layer
                .as_ref()
                .expect("a step that succeeded")
                .layer,
        )
        .lines()
        {
            let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            if words.len() > 4 && words[4] != "1000" {
                words[4] = "now".into();
            }
            for word in &mut words {
                if word.starts_with("blob:") {
                    *word = "blob".into();
                }
            }
            text.push_str(&words.join(" "));
            text.push('\n');
        }
        text
    }
}
