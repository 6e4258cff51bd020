//! The ext4 writer, from a directory and from a tar layer, beside `mke2fs -d` and `cp -a` of the same tree.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use firebuild_rootfs::ext4::{self, Options};
use firebuild_rootfs::tar::{Output, ReadOptions, WriteOptions, read_layer, write_tree};
use firebuild_rootfs::tree::{Content, Contents, Opened, Tree};
use firebuild_rootfs::walk::{DirContents, WalkOptions, open_root, walk};

use super::stats::{Candidate, alternate, ratio, shown};
use super::{Plan, Section};
use crate::Fallible;

const FROM_DIRECTORY: &str = "firebuild, directory";
const FROM_LAYER: &str = "firebuild, tar layer";
const MKE2FS: &str = "mke2fs -d";
const CP: &str = "cp -a";

/// Makes the source trees, times the candidates on each, and says what came out.
pub(super) fn run(plan: Plan<'_>) -> Fallible<Section> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| plan.root.join("target"), PathBuf::from);
    fs_err::create_dir_all(&target)?;
    let temp = tempfile::tempdir_in(&target)?;
    let mut text = format!(
        "## ext4 images\n\nWall time of a process, medians of {} alternating rounds, caches warm, nothing synced. {}\n\n\
         | source | {FROM_DIRECTORY} | {FROM_LAYER} | {MKE2FS} | {CP} | directory / mke2fs | layer / mke2fs | directory / cp | layer / cp |\n\
         |---|---|---|---|---|---|---|---|---|\n",
        plan.rounds,
        machine()
    );
    for (title, make) in SOURCES {
        let work = temp.path().join("work");
        fs_err::create_dir(&work)?;
        let tree = work.join("tree");
        if !make(&tree)? {
            writeln!(
                text,
                "| {title} | not measured: mmdebstrap is missing | | | | | | | |"
            )?;
            fs_err::remove_dir_all(&work)?;
            continue;
        }
        eprintln!("measuring: {title}");
        let row = measure(plan.rounds, &work, &tree)?;
        writeln!(text, "| {title} | {row} |")?;
        fs_err::remove_dir_all(&work)?;
    }
    text.push_str(
        "\nAims: at most a quarter of the time of `mke2fs -d`, and no longer than `cp -a`.\n",
    );
    Ok(Section { name: "ext4", text })
}

/// Cores, kernel, tools: what the figures depend on.
fn machine() -> String {
    let first_line = |command: &str, arg: &str| {
        let output = Command::new(command).arg(arg).output();
        let text = output
            .map(|o| [o.stdout, o.stderr].concat())
            .unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.lines().next().unwrap_or_default().to_owned()
    };
    format!(
        "{}, {}, {}.",
        super::host(),
        first_line("mke2fs", "-V"),
        first_line("cp", "--version")
    )
}

type Make = fn(&Path) -> Fallible<bool>;

const SOURCES: [(&str, Make); 3] = [
    ("Debian, `mmdebstrap --variant=minbase bookworm`", debian),
    ("a directory of 20,000 small files", many),
    ("one dense file of 2 GiB", dense),
];

/// False when the tool is not there. `FIREBUILD_BENCH_TREE` names a tree that is copied instead.
fn debian(tree: &Path) -> Fallible<bool> {
    if let Some(source) = std::env::var_os("FIREBUILD_BENCH_TREE") {
        return Ok(Command::new("cp")
            .arg("-a")
            .arg(source)
            .arg(tree)
            .status()?
            .success());
    }
    let made = Command::new("mmdebstrap")
        .args(["--quiet", "--variant=minbase", "bookworm"])
        .arg(tree)
        .stderr(Stdio::null())
        .status();
    match made {
        Ok(status) if status.success() => Ok(true),
        Ok(status) => Err(format!("mmdebstrap: {status}").into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn many(tree: &Path) -> Fallible<bool> {
    let directory = tree.join("many");
    fs_err::create_dir_all(&directory)?;
    for number in 0..20_000 {
        fs_err::write(
            directory.join(format!("file-{number}")),
            format!("content {number}\n"),
        )?;
    }
    Ok(true)
}

fn dense(tree: &Path) -> Fallible<bool> {
    fs_err::create_dir_all(tree)?;
    let mut file = File::create(tree.join("dense"))?;
    let mut noise = super::Noise::default();
    let mut block = vec![0u8; 1 << 20];
    for _ in 0..2048 {
        noise.fill(&mut block);
        io::Write::write_all(&mut file, &block)?;
    }
    Ok(true)
}

fn measure(rounds: usize, work: &Path, tree: &Path) -> Fallible<String> {
    let layer = work.join("layer.tar");
    let (read, contents) = scan(tree)?;
    write_tree(
        &read,
        &contents,
        Output::File(&File::create(&layer)?),
        &WriteOptions::default(),
    )?;
    // mke2fs has to be told a size; the same for all, with room for its own tables.
    let size = (ext4::size_bound(&read, &Options::default())? * 5 / 4).next_multiple_of(1 << 20);
    let blocks = (size / 4096).to_string();
    let (image, copy) = (work.join("image"), work.join("copy"));
    let own = std::env::current_exe()?;
    let remove_image = || -> Fallible<()> {
        match fs_err::remove_file(&image) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    };
    let ours = |kind: &'static str, source: PathBuf| {
        let (own, image) = (own.clone(), image.clone());
        Box::new(move || {
            let mut command = Command::new(&own);
            command
                .args(["bench", "ext4-write", kind])
                .arg(&source)
                .arg(&image);
            command
        })
    };
    let candidates = [
        Candidate {
            name: FROM_DIRECTORY,
            prepare: Box::new(remove_image),
            command: ours("directory", tree.to_path_buf()),
        },
        Candidate {
            name: FROM_LAYER,
            prepare: Box::new(remove_image),
            command: ours("layer", layer.clone()),
        },
        Candidate {
            name: MKE2FS,
            prepare: Box::new(remove_image),
            command: Box::new(|| {
                let mut command = Command::new("mke2fs");
                command.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-d"]);
                command
                    .arg(tree)
                    .arg(&image)
                    .arg(&blocks)
                    .stderr(Stdio::null());
                command
            }),
        },
        Candidate {
            name: CP,
            prepare: Box::new(|| match fs_err::remove_dir_all(&copy) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
                _ => Ok(()),
            }),
            command: Box::new(|| {
                let mut command = Command::new("cp");
                command.arg("-a").arg(tree).arg(&copy);
                command
            }),
        },
    ];
    let medians = alternate(rounds, &candidates)?;
    let times: Vec<String> = medians.iter().map(|median| shown(median.time)).collect();
    let (directory, layer) = (medians[0].time, medians[1].time);
    let ratios = [
        ratio(&medians, directory, MKE2FS),
        ratio(&medians, layer, MKE2FS),
        ratio(&medians, directory, CP),
        ratio(&medians, layer, CP),
    ];
    Ok(format!("{} | {}", times.join(" | "), ratios.join(" | ")))
}

fn scan(tree: &Path) -> Fallible<(Tree, DirContents)> {
    let root = open_root(tree)?;
    let read = walk(root.as_fd(), WalkOptions::default())?;
    Ok((read, DirContents::new(root)))
}

/// The content of one layer.
struct Layer(Arc<File>);

impl Contents for Layer {
    fn open(&self, content: &Content) -> io::Result<Opened> {
        content
            .opened_in(&self.0)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// What is timed: `ext4-write directory|layer SOURCE IMAGE`.
pub(super) fn write(args: &[&str]) -> Fallible<()> {
    let [kind, source, image] = args else {
        return Err("ext4-write directory|layer SOURCE IMAGE".into());
    };
    let image = File::create(image)?;
    if *kind == "directory" {
        let (tree, contents) = scan(Path::new(source))?;
        ext4::write(&tree, &contents, &image, &Options::default())?;
    } else {
        let file = Arc::new(File::open(source)?);
        let layer = read_layer(
            BufReader::new(file.as_ref()),
            [0; 32],
            &ReadOptions::default(),
        )?;
        let mut tree = Tree::new();
        tree.apply(&layer)?;
        ext4::write(&tree, &Layer(file), &image, &Options::default())?;
    }
    Ok(())
}
