//! What people who log in find: the run's variables in their shells, and their keys in place.

use std::fmt::Write as _;
use std::path::Path;

use firebuild_guest_proto::{EnvVar, RunConfig};

use crate::files::replace;
use crate::journal::Journal;
use crate::keys;
use crate::mounts::make_directory;

/// Where login shells look.
const DIRECTORY: &str = "/etc/profile.d";
/// The original firebuild's name for the file.
const RUN_ENV: &str = "/etc/profile.d/run-env.sh";

/// Makes all of it. What cannot be made is told; the application starts all the same.
pub(crate) fn prepare(config: &RunConfig, journal: &mut Journal) {
    if !config.login_env.is_empty() {
        write_run_env(config, journal);
    }
    for account in &config.accounts {
        if let Err(problem) = keys::install(account) {
            journal.warning(&problem);
        }
    }
}

fn write_run_env(config: &RunConfig, journal: &mut Journal) {
    let (text, left_out) = run_env(&config.env, &config.login_env);
    for name in left_out {
        journal.warning(&format!(
            "{name} is no name that a shell knows, so it is not in {RUN_ENV}; the application has it"
        ));
    }
    let written = make_directory(DIRECTORY, 0o755)
        .map_err(|error| error.chain())
        .and_then(|()| {
            replace(Path::new(RUN_ENV), text.as_bytes()).map_err(|error| error.to_string())
        });
    if let Err(problem) = written {
        journal.warning(&format!("cannot write {RUN_ENV}: {problem}"));
    }
}

/// The file, and the names that cannot stand in it. Between single quotes a shell evaluates nothing.
fn run_env<'a>(env: &[EnvVar], names: &'a [String]) -> (String, Vec<&'a str>) {
    let mut text = "# The variables of this run (--env, --env-file).\n".to_owned();
    let mut left_out = Vec::new();
    for name in names {
        let Some(variable) = env.iter().find(|variable| variable.name == *name) else {
            continue;
        };
        if is_shell_name(name) {
            // Writing to a String does not fail.
            let _ = writeln!(
                text,
                "export {name}='{}'",
                variable.value.replace('\'', r"'\''")
            );
        } else {
            left_out.push(name.as_str());
        }
    }
    (text, left_out)
}

fn is_shell_name(name: &str) -> bool {
    name.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use firebuild_guest_proto::EnvVar;

    use super::run_env;

    #[test]
    fn no_value_is_evaluated() {
        let values = [
            "plain",
            "",
            "$(touch /tmp/evil) `id` $HOME \\ \"",
            "it's 'quoted'",
            "two\nlines ; exit 9",
            "é, and a tab\t",
        ];
        let env: Vec<EnvVar> = values
            .iter()
            .enumerate()
            .map(|(index, value)| EnvVar {
                name: format!("V{index}"),
                value: (*value).to_owned(),
            })
            .chain([
                EnvVar::parse("a.b=x").unwrap(),
                EnvVar::parse("ALSO=x").unwrap(),
            ])
            .collect();
        let names: Vec<String> = (0..values.len())
            .map(|index| format!("V{index}"))
            .chain(["a.b".to_owned(), "absent".to_owned()])
            .collect();
        let (text, left_out) = run_env(&env, &names);
        assert_eq!(left_out, ["a.b"]);
        assert!(!text.contains("ALSO"));
        for (index, value) in values.iter().enumerate() {
            let script = format!("{text}\nprintf %s \"$V{index}\"");
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert!(output.status.success(), "{script}");
            assert_eq!(String::from_utf8(output.stdout).unwrap(), *value);
        }
    }
}
