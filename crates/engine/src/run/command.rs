//! What is executed: ENTRYPOINT, CMD, `--entrypoint` and the arguments of `run`, by Docker's rules.
//!
//! * Arguments replace CMD.
//! * `--entrypoint` replaces ENTRYPOINT and drops the image's CMD; empty, it leaves no entrypoint.
//! * The program is ENTRYPOINT followed by CMD. No shell is involved: the image's shell form is already
//!   `["/bin/sh", "-c", …]` in its config.
//!
//! Source: moby `daemon/commit.go` (`merge`) and `daemon/create.go`.

use firebuild_oci::ContainerConfig;

/// The words to execute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argv {
    /// Program and arguments; never empty.
    pub words: Vec<String>,
    /// How many of them are the entrypoint's.
    pub entrypoint_words: usize,
}

/// Puts the words together; `None` when nothing says what to run.
pub fn argv(
    image: &ContainerConfig,
    entrypoint: Option<&str>,
    arguments: &[String],
) -> Option<Argv> {
    let of_image = image.entrypoint.clone().unwrap_or_default();
    let mut words = match entrypoint {
        None => of_image,
        Some("") => Vec::new(),
        Some(program) => vec![program.to_owned()],
    };
    let entrypoint_words = words.len();
    if !arguments.is_empty() {
        words.extend_from_slice(arguments);
    } else if entrypoint.is_none() {
        words.extend(image.cmd.clone().unwrap_or_default());
    }
    let named = words.first().is_some_and(|program| !program.is_empty());
    named.then_some(Argv {
        words,
        entrypoint_words,
    })
}

#[cfg(test)]
mod tests {
    use firebuild_oci::ContainerConfig;

    use super::argv;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn dockers_table() {
        let both = (Some(&["ep", "e1"][..]), Some(&["cmd", "c1"][..]));
        let cmd = (None, Some(&["cmd", "c1"][..]));
        let entry = (Some(&["ep"][..]), None);
        let none = (None, None);
        let cases: [(_, Option<&str>, &[&str], &[&str]); 10] = [
            (both, None, &[], &["ep", "e1", "cmd", "c1"]),
            (both, None, &["x"], &["ep", "e1", "x"]),
            (both, Some("new"), &[], &["new"]),
            (both, Some("new"), &["x", "y"], &["new", "x", "y"]),
            (both, Some(""), &["x"], &["x"]),
            (both, Some(""), &[], &[]),
            (cmd, None, &[], &["cmd", "c1"]),
            (cmd, None, &["-x"], &["-x"]),
            (entry, None, &[], &["ep"]),
            (none, None, &[], &[]),
        ];
        for ((entrypoint, cmd), flag, arguments, expected) in cases {
            let image = ContainerConfig {
                entrypoint: entrypoint.map(words),
                cmd: cmd.map(words),
                ..ContainerConfig::default()
            };
            let argv = argv(&image, flag, &words(arguments));
            let got = argv.map(|argv| argv.words).unwrap_or_default();
            assert_eq!(got, words(expected), "{flag:?} {arguments:?}");
        }
    }

    #[test]
    fn an_empty_word_names_no_program() {
        assert_eq!(
            argv(&ContainerConfig::default(), None, &words(&["", "x"])),
            None
        );
    }
}
