//! Checking a mount once its values are expanded.

use super::{Mount, MountError, MountSharing, MountType, ResolvedMount};
use crate::suggest::nearest;

const TYPES: [(&str, MountType); 5] = [
    ("bind", MountType::Bind),
    ("cache", MountType::Cache),
    ("tmpfs", MountType::Tmpfs),
    ("secret", MountType::Secret),
    ("ssh", MountType::Ssh),
];

const SHARING: [(&str, MountSharing); 3] = [
    ("shared", MountSharing::Shared),
    ("private", MountSharing::Private),
    ("locked", MountSharing::Locked),
];

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "env",
];

impl MountType {
    /// The word of the language.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }

    fn has_owner(self) -> bool {
        matches!(self, Self::Cache | Self::Secret | Self::Ssh)
    }
}

impl Mount {
    /// Expands the values with `expand` and checks keys and values.
    ///
    /// # Errors
    ///
    /// The outer error is that of `expand`; the inner one says what is wrong with the mount.
    pub fn resolve<E>(
        &self,
        mut expand: impl FnMut(&str) -> Result<String, E>,
    ) -> Result<Result<ResolvedMount, MountError>, E> {
        let mut values = Vec::with_capacity(self.fields.len());
        for field in &self.fields {
            let value = match &field.value {
                Some(value) if field.key == "from" => Some(value.clone()),
                Some(value) => Some(expand(value)?),
                None => None,
            };
            values.push((field.key.as_str(), value));
        }
        Ok(check(&values))
    }
}

fn check(fields: &[(&str, Option<String>)]) -> Result<ResolvedMount, MountError> {
    let mut mount = ResolvedMount::default();
    let mut read_only = None;
    for (key, value) in fields {
        let Some(value) = value else {
            bare_field(key, &mut mount, &mut read_only)?;
            continue;
        };
        let invalid = || MountError::new(format!("invalid value for {key}: {value}"));
        match *key {
            "type" => mount.kind = one_of(value, &TYPES, "mount type")?,
            "from" => mount.from.clone_from(value),
            "source" | "src" => mount.source.clone_from(value),
            "target" | "dst" | "destination" => mount.target.clone_from(value),
            "readonly" | "ro" => read_only = Some(parse_bool(value).ok_or_else(invalid)?),
            "readwrite" | "rw" => read_only = Some(!parse_bool(value).ok_or_else(invalid)?),
            "required" => {
                needs_type(key, &mount, &[MountType::Secret, MountType::Ssh])?;
                mount.required = parse_bool(value).ok_or_else(invalid)?;
            }
            "size" => {
                needs_type(key, &mount, &[MountType::Tmpfs])?;
                mount.size = parse_bytes(value).ok_or_else(invalid)?;
            }
            "id" => mount.id.clone_from(value),
            "sharing" => mount.sharing = Some(one_of(value, &SHARING, "sharing value")?),
            "mode" => {
                let mode = plain_number(value, 8).filter(|mode| *mode <= 0o7777);
                mount.mode = Some(mode.ok_or_else(|| {
                    MountError::new(format!(
                        "invalid value {value} for mode, expected octal up to 07777"
                    ))
                })?);
            }
            "uid" | "gid" => {
                let id = plain_number(value, 10)
                    .ok_or_else(|| MountError::new(format!("invalid value {value} for {key}")))?;
                *(if *key == "uid" {
                    &mut mount.uid
                } else {
                    &mut mount.gid
                }) = Some(id);
            }
            "env" => mount.env = Some(value.clone()),
            _ => {
                return Err(
                    MountError::new(format!("unexpected key '{key}' in '{key}={value}'"))
                        .with_suggestion(nearest(key, KEYS)),
                );
            }
        }
    }
    combination(&mount)?;
    mount.read_only =
        read_only.unwrap_or(!matches!(mount.kind, MountType::Cache | MountType::Tmpfs));
    Ok(mount)
}

fn bare_field(
    key: &str,
    mount: &mut ResolvedMount,
    read_only: &mut Option<bool>,
) -> Result<(), MountError> {
    match key {
        "readonly" | "ro" => *read_only = Some(true),
        "readwrite" | "rw" => *read_only = Some(false),
        "required" => {
            needs_type(key, mount, &[MountType::Secret, MountType::Ssh])?;
            mount.required = true;
        }
        _ => {
            return Err(
                MountError::new(format!("invalid field '{key}' must be a key=value pair"))
                    .with_suggestion(nearest(key, KEYS)),
            );
        }
    }
    Ok(())
}

/// Some keys are refused unless the type, which must stand in front of them, is one of these.
fn needs_type(key: &str, mount: &ResolvedMount, types: &[MountType]) -> Result<(), MountError> {
    if types.contains(&mount.kind) {
        return Ok(());
    }
    Err(MountError::new(format!(
        "unexpected key '{key}' for mount type '{}'",
        mount.kind.as_str()
    )))
}

/// Rules about several fields together.
fn combination(mount: &ResolvedMount) -> Result<(), MountError> {
    let kind = mount.kind.as_str();
    if !mount.kind.has_owner() {
        for (key, given) in [
            ("mode", mount.mode.is_some()),
            ("uid", mount.uid.is_some()),
            ("gid", mount.gid.is_some()),
        ] {
            if given {
                return Err(MountError::new(format!(
                    "{key} not allowed for \"{kind}\" type mounts"
                )));
            }
        }
    }
    if mount.kind == MountType::Secret {
        if !mount.from.is_empty() {
            return Err(MountError::new("secret mount should not have a from"));
        }
        if mount.sharing.is_some() {
            return Err(MountError::new("secret mount should not define sharing"));
        }
        if mount.source.is_empty() && mount.target.is_empty() && mount.id.is_empty() {
            return Err(MountError::new(
                "invalid secret mount. one of source, target required",
            ));
        }
        if !mount.source.is_empty() && !mount.id.is_empty() {
            return Err(MountError::new("both source and id can't be set"));
        }
    }
    if mount.sharing.is_some() && mount.kind != MountType::Cache {
        return Err(MountError::new(format!(
            "invalid cache sharing set for {kind} mount"
        )));
    }
    Ok(())
}

fn one_of<T: Copy>(value: &str, names: &[(&str, T)], what: &str) -> Result<T, MountError> {
    let lower = value.to_lowercase();
    names
        .iter()
        .find(|(name, _)| *name == lower)
        .map(|&(_, found)| found)
        .ok_or_else(|| {
            MountError::new(format!("unsupported {what} {value:?}"))
                .with_suggestion(nearest(value, names.iter().map(|(name, _)| *name)))
        })
}

/// The spellings of Go's `strconv.ParseBool`.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Digits only: no sign.
fn plain_number(text: &str, radix: u32) -> Option<u32> {
    if text.starts_with('+') {
        return None;
    }
    u32::from_str_radix(text, radix).ok()
}

/// Sizes as people write them: `64m`, `1.5GiB`, `100`; units are powers of 1024.
fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let unit = unit.strip_suffix('i').unwrap_or(unit);
    let shift: u32 = match unit {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return None,
    };
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) => (whole, fraction),
        None => (number, ""),
    };
    if whole.is_empty() || (number.contains('.') && fraction.is_empty()) || fraction.len() > 9 {
        return None;
    }
    let scale = 1u128 << shift;
    let mut bytes = u128::from(whole.parse::<u64>().ok()?).checked_mul(scale)?;
    if !fraction.is_empty() {
        let numerator: u128 = fraction.parse().ok()?;
        let digits = u32::try_from(fraction.len()).ok()?;
        bytes += numerator * scale / 10u128.pow(digits);
    }
    i64::try_from(bytes)
        .ok()
        .and_then(|bytes| u64::try_from(bytes).ok())
}

#[cfg(test)]
mod tests {
    use super::{parse_bool, parse_bytes};

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("100", Some(100)),
            ("1k", Some(1024)),
            ("2MB", Some(2 << 20)),
            ("2 MiB", Some(2 << 20)),
            ("1.5g", Some(3 << 29)),
            ("", None),
            (".5g", None),
            ("1.g", None),
            ("1x", None),
            ("-1", None),
            ("99999999999999999999", None),
            ("9999999p", None),
        ] {
            assert_eq!(parse_bytes(text), bytes, "{text}");
        }
        assert_eq!(parse_bool("True"), Some(true));
        assert_eq!(parse_bool("yes"), None);
    }
}
