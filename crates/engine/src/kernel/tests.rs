//! Kernels of every wrapping, made on the spot around a small fake one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{
    Catalogue, Imported, KernelError, KernelErrorKind, Presence, Purpose, Request, Source, import,
    remove,
};
use crate::event::Event;
use crate::paths::Paths;
use crate::testing::{filter, have_tool};

const RELEASE: &str = "6.1.0-9-test";

/// An x86-64 ELF file: one segment that holds the banner and `filler`, and a PVH note.
fn elf_kernel(pvh: bool, filler: usize) -> Vec<u8> {
    let mut load =
        format!("Linux version %s\nLinux version {RELEASE} (b@h) (gcc) #1 SMP\n\0").into_bytes();
    load.extend_from_slice(b"virtio_blk\0EXT4-fs error\0");
    // Neither random nor constant, so that every codec has matches and literals.
    let mut state = 1_u32;
    load.extend((0..filler).map(|at| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if at % 4096 < 3000 {
            u8::try_from(at % 251).unwrap()
        } else {
            state.to_be_bytes()[0]
        }
    }));
    let mut note = Vec::new();
    for (kind, content) in [
        (1_u32, &b"linux\0\0\0"[..]),
        (if pvh { 18 } else { 6 }, &[0; 8]),
    ] {
        note.extend(4_u32.to_le_bytes());
        note.extend(u32::try_from(content.len()).unwrap().to_le_bytes());
        note.extend(kind.to_le_bytes());
        note.extend(b"Xen\0");
        note.extend(content);
    }
    let mut file = elf_header(2, 2);
    let note_at = 64 + 2 * 56;
    let load_at = note_at + note.len();
    for (kind, at, size) in [(1_u32, load_at, load.len()), (4, note_at, note.len())] {
        let mut header = vec![0; 56];
        header[..4].copy_from_slice(&kind.to_le_bytes());
        header[8..16].copy_from_slice(&(at as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
        file.extend(header);
    }
    file.extend(note);
    file.extend(load);
    file
}

fn elf_header(kind: u16, program_headers: u16) -> Vec<u8> {
    let mut header = vec![0; 64];
    header[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
    header[16..18].copy_from_slice(&kind.to_le_bytes());
    header[18..20].copy_from_slice(&62_u16.to_le_bytes());
    header[32..40].copy_from_slice(&64_u64.to_le_bytes());
    header[54..56].copy_from_slice(&56_u16.to_le_bytes());
    header[56..58].copy_from_slice(&program_headers.to_le_bytes());
    header[58..60].copy_from_slice(&64_u16.to_le_bytes());
    header
}

/// A bzImage around a payload.
fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut file = vec![0_u8; 2 * 512];
    file[0x1f1] = 1;
    file[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&0x020f_u16.to_le_bytes());
    file[0x248..0x24c].copy_from_slice(&100_u32.to_le_bytes());
    file[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
    file.extend([0x90; 100]);
    file.extend(payload);
    file.extend([0; 512]);
    file
}

/// A module with `.modinfo` records.
fn module(records: &str) -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let mut file = elf_header(1, 0);
    let records_at = file.len();
    file.extend(records.replace('\n', "\0").bytes());
    let names_at = file.len();
    file.extend(names);
    let table = file.len();
    for (name, at, size) in [
        (0_u32, 0, 0),
        (1, records_at, names_at - records_at),
        (10, names_at, names.len()),
    ] {
        let mut header = vec![0; 64];
        header[..4].copy_from_slice(&name.to_le_bytes());
        header[4..8].copy_from_slice(&1_u32.to_le_bytes());
        header[24..32].copy_from_slice(&(at as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
        file.extend(header);
    }
    file[40..48].copy_from_slice(&(table as u64).to_le_bytes());
    file[60..62].copy_from_slice(&3_u16.to_le_bytes());
    file[62..64].copy_from_slice(&2_u16.to_le_bytes());
    file
}

struct Home {
    dir: tempfile::TempDir,
    paths: Paths,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::under(&dir.path().join("home"));
        Self { dir, paths }
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(&path, content).unwrap();
        path
    }

    fn import(&self, files: &[PathBuf]) -> Result<Imported, KernelError> {
        self.import_as(files, None).0
    }

    fn import_as(
        &self,
        files: &[PathBuf],
        id: Option<&str>,
    ) -> (Result<Imported, KernelError>, Vec<String>) {
        let request = Request {
            source: Source::Files(files.to_vec()),
            id: id.map(str::to_owned),
        };
        let mut warnings = Vec::new();
        let result = import(&self.paths, &request, &mut |event| {
            if let Event::Warning(text) = event {
                warnings.push(text);
            }
        });
        (result, warnings)
    }

    fn nothing_left(&self) {
        let left: Vec<_> = fs_err::read_dir(self.paths.kernels())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["lock"]);
    }
}

#[test]
fn every_compression_gives_the_same_kernel() {
    let kernel = elf_kernel(true, 9 << 20);
    let cases: [(&str, &[&str], bool); 6] = [
        ("gzip", &["-n", "-9", "-c"], false),
        (
            "xz",
            &["--check=crc32", "--x86", "--lzma2=dict=32MiB", "-c"],
            true,
        ),
        ("zstd", &["-19", "-c"], true),
        ("lz4", &["-l", "-9", "-c"], true),
        ("bzip2", &["-9", "-c"], true),
        ("lzma", &["-6", "-c"], true),
    ];
    for (tool, arguments, append_length) in cases {
        if !have_tool("every_compression_gives_the_same_kernel", tool) {
            continue;
        }
        let bare = filter(tool, arguments, &kernel);
        let mut payload = bare.clone();
        if append_length {
            payload.extend(u32::try_from(kernel.len()).unwrap().to_le_bytes());
        }
        for (form, file) in [
            ("vmlinuz", bzimage(&payload)),
            ("vmlinux.bin", payload),
            ("vmlinux", bare),
        ] {
            let home = Home::new();
            let path = home.file(&format!("{form}.{tool}"), &file);
            let imported = home
                .import(&[path])
                .unwrap_or_else(|error| panic!("{form} {tool}: {error}: {:?}", error));
            let kept = fs_err::read(imported.kernel.vmlinux()).unwrap();
            assert!(kept == kernel, "{form} {tool}: another kernel came out");
            assert_eq!(imported.kernel.release, RELEASE);
            assert!(imported.kernel.pvh);
        }
    }
}

#[test]
fn a_bare_kernel_tells_what_it_shows() {
    let home = Home::new();
    let path = home.file("vmlinux", &elf_kernel(true, 0));
    let kernel = home.import(&[path]).unwrap().kernel;
    assert_eq!(kernel.presence(Purpose::Disk), Presence::Builtin);
    assert_eq!(kernel.presence(Purpose::Filesystem), Presence::Builtin);
    assert_eq!(kernel.presence(Purpose::Overlay), Presence::Unknown);
    assert_eq!(kernel.unfit(), None);
    assert_eq!(Catalogue::new(&home.paths).find(None).unwrap(), kernel);
}

#[test]
fn no_kernel_is_no_kernel() {
    let other_machine = {
        let mut file = elf_kernel(true, 0);
        file[18] = 183; // aarch64
        file
    };
    let module = module("license=GPL\n");
    let no_banner = elf_header(2, 0);
    let whole = elf_kernel(true, 0);
    let cut = &whole[..whole.len() - 10];
    let mut bad_gzip = bzimage(b"\x1f\x8b\x08\0garbage that is no gzip stream at all");
    bad_gzip.truncate(bad_gzip.len() - 512);
    let mut far_payload = bzimage(b"x");
    far_payload[0x248..0x24c].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut far_notes = elf_kernel(true, 0);
    far_notes[32..40].copy_from_slice(&u64::MAX.to_le_bytes());
    let cases: [(&str, &[u8], KernelErrorKind); 12] = [
        ("empty", b"", KernelErrorKind::NotAKernel),
        ("text", b"FROM scratch\n", KernelErrorKind::NotAKernel),
        ("archive", b"!<arch>\n", KernelErrorKind::NotAKernel),
        ("broken archive", b"!<arch>\nxxx", KernelErrorKind::Corrupt),
        ("module", &module, KernelErrorKind::NotAKernel),
        (
            "other machine",
            &other_machine,
            KernelErrorKind::Unsupported,
        ),
        ("no segments", &no_banner, KernelErrorKind::NotAKernel),
        ("cut", cut, KernelErrorKind::Corrupt),
        ("bad gzip", &bad_gzip, KernelErrorKind::Corrupt),
        ("payload outside", &far_payload, KernelErrorKind::Corrupt),
        ("headers outside", &far_notes, KernelErrorKind::Corrupt),
        (
            "unknown payload",
            &bzimage(b"what is this"),
            KernelErrorKind::Unsupported,
        ),
    ];
    for (name, content, kind) in cases {
        let home = Home::new();
        let path = home.file(name, content);
        let error = home.import(&[path]).unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert!(error.to_string().contains(name), "{name}: {error}");
        home.nothing_left();
    }
}

#[test]
fn a_kernel_without_pvh_is_kept_but_not_taken() {
    let home = Home::new();
    let path = home.file("vmlinux", &elf_kernel(false, 0));
    let (imported, warnings) = home.import_as(&[path], Some("old"));
    assert!(!imported.unwrap().kernel.pvh);
    assert!(warnings[0].contains("PVH"), "{warnings:?}");
    let catalogue = Catalogue::new(&home.paths);
    let error = catalogue.find(None).unwrap_err();
    assert_eq!(error.kind(), KernelErrorKind::NotFound);
    assert!(error.to_string().contains("old: it has no PVH"), "{error}");
    let error = catalogue.find(Some("old")).unwrap_err();
    assert_eq!(error.kind(), KernelErrorKind::Unsupported);
}

#[test]
fn importing_again_replaces_and_removing_removes() {
    let home = Home::new();
    let small = home.file("vmlinux", &elf_kernel(true, 0));
    let large = home.file("vmlinux-large", &elf_kernel(true, 1000));
    assert!(!home.import(&[small]).unwrap().replaced);
    let again = home.import(&[large]).unwrap();
    assert!(again.replaced);
    let catalogue = Catalogue::new(&home.paths);
    assert_eq!(catalogue.list().unwrap().kernels, [again.kernel]);

    let error = remove(&home.paths, &["other".to_owned()]).unwrap_err();
    assert!(error.to_string().contains(RELEASE), "{error}");
    for bad in ["../x", ".tmp-a", "lock", ""] {
        let error = remove(&home.paths, &[bad.to_owned()]).unwrap_err();
        assert_eq!(error.kind(), KernelErrorKind::BadId, "{bad}");
    }
    remove(&home.paths, &[RELEASE.to_owned()]).unwrap();
    home.nothing_left();
}

#[test]
fn the_newest_kernel_is_taken_by_its_numbers() {
    use super::record::compare_releases;
    use std::cmp::Ordering;
    for (older, newer) in [
        ("6.1.0-9-amd64", "6.1.0-56-amd64"),
        ("5.10.0", "6.1.0"),
        ("6.1", "6.1.1"),
        ("6.9.99999999999999999999", "6.10"),
    ] {
        assert_eq!(compare_releases(older, newer), Ordering::Less, "{older}");
        assert_eq!(compare_releases(newer, older), Ordering::Greater);
    }
    assert_eq!(compare_releases("6.1", "6.1"), Ordering::Equal);
}

#[test]
fn what_a_crash_left_is_swept_and_damage_is_told() {
    let home = Home::new();
    let path = home.file("vmlinux", &elf_kernel(true, 0));
    fs_err::create_dir_all(home.paths.kernels().join(".tmp-half/modules")).unwrap();
    fs_err::create_dir_all(home.paths.kernels().join("damaged")).unwrap();
    home.import(&[path]).unwrap();
    assert!(!home.paths.kernels().join(".tmp-half").exists());
    let listing = Catalogue::new(&home.paths).list().unwrap();
    assert_eq!(listing.kernels.len(), 1);
    assert_eq!(listing.broken.len(), 1);
    assert!(listing.broken[0].to_string().contains("damaged"));
}

#[test]
fn a_kernel_that_a_machine_is_about_to_open_stays() {
    let home = Home::new();
    let file = home.file("vmlinux", &elf_kernel(true, 0));
    let kernel = home.import(&[file]).unwrap().kernel;
    let catalogue = Catalogue::new(&home.paths);
    // Two starts at once do not wait for each other.
    let holds = [catalogue.hold().unwrap(), catalogue.hold().unwrap()];
    std::thread::scope(|scope| {
        let removal = scope.spawn(|| remove(&home.paths, &[RELEASE.to_owned()]));
        std::thread::sleep(std::time::Duration::from_millis(200));
        assert!(!removal.is_finished() && kernel.vmlinux().exists());
        drop(holds);
        removal.join().unwrap().unwrap();
    });
    assert!(!kernel.dir().exists());
    home.nothing_left();
}

/// Packs a directory into a Debian package with the host's tools.
fn deb(home: &Home, name: &str, control: &str, tree: &BTreeMap<String, Vec<u8>>) -> PathBuf {
    let root = home.dir.path().join(format!("{name}-tree"));
    for (path, content) in tree {
        let path = root.join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, content).unwrap();
    }
    fs_err::create_dir_all(root.join("DEBIAN")).unwrap();
    let control = format!(
        "Package: {name}\nVersion: 1\nArchitecture: amd64\nMaintainer: t <t@t>\n{control}\
         Description: d\n"
    );
    fs_err::write(root.join("DEBIAN/control"), control).unwrap();
    let out = home.dir.path().join(format!("{name}.deb"));
    filter(
        "dpkg-deb",
        &[
            "-Zgzip",
            "-b",
            root.to_str().unwrap(),
            out.to_str().unwrap(),
        ],
        b"",
    );
    out
}

fn module_tree() -> BTreeMap<String, Vec<u8>> {
    let zst = zstd::encode_all(
        &module("name=virtio_blk\ndepends=virtio,virtio_ring\n")[..],
        1,
    );
    [
        (
            "drivers/virtio/virtio.ko",
            module("name=virtio\ndepends=virtio_ring\n"),
        ),
        ("drivers/virtio/virtio_ring.ko", module("depends=\n")),
        (
            "drivers/virtio/virtio_pci.ko",
            module("depends=virtio_ring,virtio\n"),
        ),
        ("drivers/block/virtio_blk.ko.zst", zst.unwrap()),
        (
            "drivers/char/virtio_console.ko",
            module("depends=virtio\nsoftdep=pre: crypto-crc32c loop post: virtio-rng\n"),
        ),
        ("drivers/char/virtio-rng.ko", module("depends=virtio\n")),
        (
            "crypto/crc32c-generic.ko",
            module("alias=crypto-crc32c\ndepends=\nsoftdep=pre: virtio_console\n"),
        ),
        (
            "drivers/net/virtio_net.ko",
            module("depends=net_failover\n"),
        ),
        ("fs/overlayfs/overlay.ko", module("alias=fs-overlay\n")),
    ]
    .into_iter()
    .map(|(name, content)| (format!("lib/modules/{RELEASE}/kernel/{name}"), content))
    .chain([(
        format!("lib/modules/{RELEASE}/modules.builtin"),
        b"kernel/fs/ext4/ext4.ko\n".to_vec(),
    )])
    .collect()
}

#[test]
fn a_package_brings_its_modules_in_an_order_that_works() {
    if !have_tool(
        "a_package_brings_its_modules_in_an_order_that_works",
        "dpkg-deb",
    ) {
        return;
    }
    let home = Home::new();
    let mut tree = module_tree();
    tree.insert(format!("boot/vmlinuz-{RELEASE}"), elf_kernel(true, 0));
    let path = deb(&home, "linux-image-test", "", &tree);
    let (imported, warnings) = home.import_as(&[path], None);
    let kernel = imported.unwrap().kernel;
    let order: Vec<&str> = kernel.modules.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(
        order,
        [
            "virtio_ring",
            "virtio",
            "virtio_pci",
            "virtio_blk",
            "overlay",
            "crc32c_generic",
            "virtio_console",
            "virtio_rng",
        ]
    );
    assert_eq!(kernel.modules[0].file, "00-virtio_ring.ko");
    assert_eq!(kernel.presence(Purpose::Filesystem), Presence::Builtin);
    assert_eq!(kernel.presence(Purpose::Network), Presence::Missing);
    assert_eq!(kernel.presence(Purpose::Mmio), Presence::Missing);
    assert!(warnings[0].contains("net_failover"), "{warnings:?}");
    assert_eq!(kernel.origin.package.as_deref(), Some("linux-image-test 1"));
    assert_eq!(kernel.unfit(), None);

    let disk = kernel.modules_for(&[Purpose::Disk, Purpose::Pci]);
    let names: Vec<&str> = disk.iter().map(|(m, _)| m.name.as_str()).collect();
    assert_eq!(names, ["virtio_ring", "virtio", "virtio_pci", "virtio_blk"]);
    let stored = fs_err::read(&disk[3].1).unwrap();
    assert!(
        stored.starts_with(b"\x7fELF"),
        "modules are kept decompressed"
    );
}

#[test]
fn split_packages_and_packages_without_a_kernel() {
    if !have_tool("split_packages_and_packages_without_a_kernel", "dpkg-deb") {
        return;
    }
    let home = Home::new();
    let meta = deb(
        &home,
        "linux-image-meta",
        "Depends: linux-image-6.1.0-9-test (= 1)\n",
        &BTreeMap::new(),
    );
    let error = home.import(&[meta]).unwrap_err();
    assert_eq!(error.kind(), KernelErrorKind::NotAKernel);
    assert!(
        error.to_string().contains("linux-image-6.1.0-9-test"),
        "{error}"
    );

    let image = [(format!("boot/vmlinuz-{RELEASE}"), elf_kernel(true, 0))];
    let image = deb(
        &home,
        "linux-image-split",
        "Depends: linux-modules-split\n",
        &image.into(),
    );
    let (_, warnings) = home.import_as(std::slice::from_ref(&image), None);
    assert!(
        warnings.iter().any(|w| w.contains("linux-modules-split")),
        "{warnings:?}"
    );
    let modules = deb(&home, "linux-modules-split", "", &module_tree());
    let (imported, warnings) = home.import_as(&[image.clone(), modules.clone()], None);
    assert_eq!(imported.unwrap().kernel.modules.len(), 8);
    assert!(!warnings.iter().any(|w| w.contains("cannot run a VM")));

    // An image of one's own beside the modules that were built with it.
    let elf = home.file("vmlinux", &elf_kernel(true, 0));
    let kernel = home.import(&[elf.clone(), modules]).unwrap().kernel;
    assert_eq!(kernel.modules.len(), 8);
    let error = home.import(&[image, elf]).unwrap_err();
    assert!(error.to_string().contains("several kernels"), "{error}");
}

#[test]
fn the_host_gives_its_kernel_where_it_is_on_disk() {
    let home = Home::new();
    let release = rustix::system::uname()
        .release()
        .to_str()
        .unwrap()
        .to_owned();
    let root = home.dir.path().join("root");
    let take = |root: &Path| {
        let request = Request {
            source: Source::Host(root.to_owned()),
            id: None,
        };
        import(&home.paths, &request, &mut |_| {})
    };
    fs_err::create_dir_all(&root).unwrap();
    let error = take(&root).unwrap_err();
    assert_eq!(error.kind(), KernelErrorKind::NotFound);
    assert!(error.to_string().contains("apt-get download"), "{error}");

    home.file(
        &format!("root/boot/vmlinuz-{release}"),
        &elf_kernel(true, 0),
    );
    home.file(
        &format!("root/lib/modules/{release}/kernel/virtio_blk.ko"),
        &module("depends=\n"),
    );
    let kernel = take(&root).unwrap().kernel;
    // The fake kernel is of another release than the host, so its modules are not taken for its own.
    assert_eq!(kernel.id, RELEASE);
    assert!(kernel.modules.is_empty());
    assert_eq!(kernel.origin.files, ["host"]);
}
