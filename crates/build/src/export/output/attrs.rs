//! The `key=value` fields of an output.

use firebuild_dockerfile::nearest;

/// The fields, each taken once by who knows it.
pub(super) struct Attrs {
    fields: Vec<(String, String)>,
    /// Keys that were asked for: what may stand there.
    known: Vec<&'static str>,
}

impl Attrs {
    /// The fields of one line of CSV. Keys are in lower case but for what comes behind the first dot, which is the name
    /// of an annotation.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut fields: Vec<(String, String)> = Vec::new();
        for field in csv(text)? {
            let Some((key, value)) = field.split_once('=') else {
                return Err(format!("{field:?} is not key=value"));
            };
            let key = match key.trim().split_once('.') {
                Some((first, rest)) if first.to_ascii_lowercase().starts_with("annotation") => {
                    format!("{}.{rest}", first.to_ascii_lowercase())
                }
                _ => key.trim().to_ascii_lowercase(),
            };
            if fields.iter().any(|(known, _)| *known == key) {
                return Err(format!("{key}= stands there twice"));
            }
            fields.push((key, value.to_owned()));
        }
        Ok(Self {
            fields,
            known: Vec::new(),
        })
    }

    /// The value of a key, under any of its names; it is taken out.
    pub(super) fn take(&mut self, names: &[&'static str]) -> Option<String> {
        self.known.extend(names);
        let at = self
            .fields
            .iter()
            .position(|(key, _)| names.contains(&key.as_str()))?;
        Some(self.fields.remove(at).1)
    }

    /// A truth value; a key without one says yes.
    pub(super) fn flag(&mut self, name: &'static str) -> Result<Option<bool>, String> {
        self.take(&[name])
            .map(|value| match value.as_str() {
                "" => Ok(true),
                value => truth(value).map_err(|why| format!("{name}=: {why}")),
            })
            .transpose()
    }

    /// All fields whose key begins so, with the rest of their key.
    pub(super) fn take_prefixed(&mut self, prefix: &str) -> Vec<(String, String)> {
        let (found, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.fields)
            .into_iter()
            .partition(|(key, _)| key.starts_with(prefix));
        self.fields = rest;
        found
            .into_iter()
            .map(|(key, value)| (key[prefix.len()..].to_owned(), value))
            .collect()
    }

    /// Expects that nothing is left.
    pub(super) fn finish(self, word: &str) -> Result<(), String> {
        let Some((key, _)) = self.fields.first() else {
            return Ok(());
        };
        let hint = match nearest(key, self.known.iter().copied()) {
            Some(near) => format!("did you mean {near}=?"),
            None => {
                let mut known = self.known;
                known.sort_unstable();
                known.dedup();
                format!("it takes {}", known.join(", "))
            }
        };
        Err(format!("type={word} has no attribute {key:?} ({hint})"))
    }
}

pub(crate) fn truth(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "t" => Ok(true),
        "false" | "0" | "f" => Ok(false),
        _ => Err(format!("{value:?} is neither true nor false")),
    }
}

/// The fields of one line of CSV; quotes stand around a whole field and are doubled inside.
pub(crate) fn csv(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    if quoted {
        return Err("a quote is not closed".to_owned());
    }
    fields.push(field);
    Ok(fields)
}
