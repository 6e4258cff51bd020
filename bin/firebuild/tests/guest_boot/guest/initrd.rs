//! A small writer of initrds, independent of the product's: cpio archives in the `newc` format.

/// One archive.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    inode: u32,
}

impl Archive {
    pub(crate) fn directory(&mut self, path: &str) -> &mut Archive {
        self.entry(path, 0o040_755, (0, 0), b"")
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> &mut Archive {
        self.entry(path, 0o100_000 | mode, (0, 0), content)
    }

    pub(crate) fn device(&mut self, path: &str, mode: u32, number: (u32, u32)) -> &mut Archive {
        self.entry(path, 0o020_000 | mode, number, b"")
    }

    pub(crate) fn symlink(&mut self, path: &str, target: &str) -> &mut Archive {
        self.entry(path, 0o120_777, (0, 0), target.as_bytes())
    }

    /// The archive's bytes, padded so that another can follow.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        self.entry("/TRAILER!!!", 0, (0, 0), b"");
        self.pad(512);
        std::mem::take(&mut self.bytes)
    }

    fn entry(
        &mut self,
        path: &str,
        mode: u32,
        (major, minor): (u32, u32),
        content: &[u8],
    ) -> &mut Archive {
        let name = path.trim_start_matches('/');
        self.inode += 1;
        let size = u32::try_from(content.len()).unwrap();
        let name_size = u32::try_from(name.len() + 1).unwrap();
        let fields = [
            self.inode, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad(4);
        self.bytes.extend_from_slice(content);
        self.pad(4);
        self
    }

    fn pad(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }
}
