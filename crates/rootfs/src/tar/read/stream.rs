//! Going over an archive: headers with the extended headers before them.

use std::io::{BufReader, Read, Seek, SeekFrom};

use super::Limits;
use crate::tar::header::{self, Header, is_zero, until_nul};
use crate::tar::pax::Records;
use crate::tar::{BLOCK, TarError, TarErrorKind, padded};

/// An archive that is read.
pub(super) struct Archive<R> {
    reader: BufReader<R>,
    pub(super) position: u64,
    pub(super) len: u64,
    limits: Limits,
    pub(super) global: Records,
}

/// Most records that global headers may set; they are looked through for each entry.
const MAX_GLOBAL: usize = 256;

/// An entry's header with all that was before it.
pub(super) struct Raw {
    pub(super) start: u64,
    pub(super) header: Header,
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) records: Records,
}

impl<R: Read + Seek> Archive<R> {
    pub(super) fn new(mut reader: R, limits: Limits) -> Result<Self, TarError> {
        let len = reader
            .seek(SeekFrom::End(0))
            .map_err(|e| TarError::io(e, 0))?;
        reader.rewind().map_err(|e| TarError::io(e, 0))?;
        Ok(Self {
            reader: BufReader::with_capacity(64 << 10, reader),
            position: 0,
            len,
            limits,
            global: Records::default(),
        })
    }

    pub(super) fn read(&mut self, buf: &mut [u8]) -> Result<(), TarError> {
        self.reader
            .read_exact(buf)
            .map_err(|e| TarError::io(e, self.position))?;
        self.position += buf.len() as u64;
        Ok(())
    }

    pub(super) fn go_to(&mut self, position: u64) -> Result<(), TarError> {
        // The last entry's padding may be missing.
        let position = position.min(self.len);
        let (Ok(to), Ok(from)) = (i64::try_from(position), i64::try_from(self.position)) else {
            return Err(TarError::new(TarErrorKind::Number("size"), self.position));
        };
        self.reader
            .seek_relative(to - from)
            .map_err(|e| TarError::io(e, self.position))?;
        self.position = position;
        Ok(())
    }

    /// The next header block; `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>, TarError> {
        let start = self.position;
        if start == self.len {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        self.read(&mut block)?;
        if is_zero(&block) {
            if self.position == self.len {
                return Ok(None);
            }
            self.read(&mut block)?;
            if is_zero(&block) {
                return Ok(None);
            }
            return Err(TarError::new(TarErrorKind::Checksum, start));
        }
        let header = Header(block);
        if !header.checksum_holds() {
            return Err(TarError::new(TarErrorKind::Checksum, start));
        }
        Ok(Some(header))
    }

    /// The data of an extended header.
    fn extended(&mut self, header: &Header) -> Result<Vec<u8>, TarError> {
        let start = self.position;
        let size = header
            .unsigned(header::SIZE, "size")
            .map_err(|k| TarError::new(k, start))?;
        if size > self.limits.extended {
            return Err(TarError::new(TarErrorKind::PaxTooLarge, start));
        }
        if size > self.len - start {
            return Err(TarError::new(TarErrorKind::Truncated, start));
        }
        let mut data = vec![
            0;
            usize::try_from(size)
                .map_err(|_| TarError::new(TarErrorKind::PaxTooLarge, start))?
        ];
        self.read(&mut data)?;
        self.go_to(start + padded(size).unwrap_or(size))?;
        Ok(data)
    }

    pub(super) fn next(&mut self) -> Result<Option<Raw>, TarError> {
        let mut start = self.position;
        let mut begun = false;
        let (mut long_name, mut long_link) = (None, None);
        let mut records = Records::default();
        loop {
            let at = self.position;
            let Some(header) = self.header()? else {
                return if begun {
                    Err(TarError::new(TarErrorKind::Truncated, at))
                } else {
                    Ok(None)
                };
            };
            if !begun {
                start = at;
            }
            match header.kind() {
                b'x' | b'X' => {
                    let data = self.extended(&header)?;
                    records = Records::parse(&data)
                        .ok_or_else(|| TarError::new(TarErrorKind::Pax, at))?;
                    begun = true;
                }
                b'g' => {
                    let data = self.extended(&header)?;
                    let found = Records::parse(&data)
                        .ok_or_else(|| TarError::new(TarErrorKind::Pax, at))?;
                    self.merge_global(found).map_err(|k| TarError::new(k, at))?;
                }
                b'L' => {
                    long_name = Some(until_nul(&self.extended(&header)?).to_vec());
                    begun = true;
                }
                b'K' => {
                    long_link = Some(until_nul(&self.extended(&header)?).to_vec());
                    begun = true;
                }
                // A volume's label.
                b'V' => begun = false,
                _ => {
                    let pick = |key: &[u8]| records.get(key).map(<[u8]>::to_vec);
                    let path = pick(b"GNU.sparse.name")
                        .or_else(|| pick(b"path"))
                        .or(long_name);
                    let path = path.unwrap_or_else(|| header.path());
                    let link = pick(b"linkpath").or(long_link);
                    let link = link.unwrap_or_else(|| header.text(header::LINK).to_vec());
                    return Ok(Some(Raw {
                        start,
                        header,
                        path,
                        link,
                        records,
                    }));
                }
            }
        }
    }

    /// Later global records replace earlier ones. What names or measures one entry cannot be global.
    fn merge_global(&mut self, found: Records) -> Result<(), TarErrorKind> {
        for (key, value) in found.0 {
            if matches!(key.as_slice(), b"path" | b"linkpath" | b"size")
                || key.starts_with(b"GNU.sparse.")
            {
                continue;
            }
            self.global.0.retain(|(k, _)| *k != key);
            if self.global.0.len() >= MAX_GLOBAL {
                return Err(TarErrorKind::PaxTooLarge);
            }
            self.global.0.push((key, value));
        }
        Ok(())
    }
}
