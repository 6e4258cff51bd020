//! The `.modinfo` records of a kernel module: `key=value` strings, each ended by a zero byte.
//!
//! `depends` names modules that must be loaded before; `softdep` ("pre: a b post: c") names modules or
//! aliases that should be. depmod makes `modules.dep`, `modules.softdep` and `modules.alias` from the
//! same records (kmod, `tools/depmod.c`).

use super::drivers::normalise;
use super::elf;

/// What a module says about its neighbours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Modinfo {
    pub(crate) depends: Vec<String>,
    pub(crate) soft_before: Vec<String>,
    pub(crate) soft_after: Vec<String>,
    pub(crate) aliases: Vec<String>,
}

/// Reads the records of a decompressed module; `None` when it is no module.
pub(crate) fn read(module: &[u8]) -> Option<Modinfo> {
    Some(parse(elf::section(module, ".modinfo")?))
}

fn parse(section: &[u8]) -> Modinfo {
    let mut info = Modinfo::default();
    for record in section.split(|&byte| byte == 0) {
        let Some((key, value)) = std::str::from_utf8(record)
            .ok()
            .and_then(|record| record.split_once('='))
        else {
            continue;
        };
        match key {
            "depends" => info.depends.extend(
                value
                    .split(',')
                    .filter(|name| !name.is_empty())
                    .map(normalise),
            ),
            "alias" => info.aliases.push(value.to_owned()),
            "softdep" => {
                let mut target = None;
                for word in value.split_ascii_whitespace() {
                    match word {
                        "pre:" => target = Some(&mut info.soft_before),
                        "post:" => target = Some(&mut info.soft_after),
                        name => {
                            if let Some(target) = target.as_mut() {
                                target.push(name.to_owned());
                            }
                        }
                    }
                }
            }
            _ => {}
        }
    }
    info
}

/// The aliases of what is built in, from `modules.builtin.modinfo`: records `module.key=value`.
/// Gives pairs of alias and module name.
pub(crate) fn builtin_aliases(records: &[u8]) -> Vec<(String, String)> {
    records
        .split(|&byte| byte == 0)
        .filter_map(|record| {
            let (key, value) = std::str::from_utf8(record).ok()?.split_once('=')?;
            let module = key.strip_suffix(".alias")?;
            Some((value.to_owned(), normalise(module)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{Modinfo, builtin_aliases, parse};

    #[test]
    fn records_are_sorted_by_their_kind() {
        let info = parse(
            b"license=GPL\0depends=virtio,virtio-ring\0softdep=pre: crc32c a-b post: late\0\
              alias=fs-x\0softdep=stray\0depends=\0\xff=\0broken",
        );
        let strings = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>();
        assert_eq!(
            info,
            Modinfo {
                depends: strings(&["virtio", "virtio_ring"]),
                soft_before: strings(&["crc32c", "a-b"]),
                soft_after: strings(&["late"]),
                aliases: strings(&["fs-x"]),
            }
        );
    }

    #[test]
    fn builtin_records_name_their_module() {
        assert_eq!(
            builtin_aliases(b"ext4.alias=fs-ext4\0ext4.license=GPL\0"),
            [("fs-ext4".to_owned(), "ext4".to_owned())]
        );
    }
}
