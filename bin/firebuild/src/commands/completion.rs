//! Completion scripts that know the VMs: what clap generates, and the names that `firebuild ls` gives when a key is pressed.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Cli;

/// Commands for VMs that run; the others with VMs in their arguments take ended ones, too.
const RUNNING: [&str; 11] = [
    "attach", "cp", "exec", "kill", "mmds", "pause", "restart", "stats", "stop", "top", "unpause",
];
/// The names stand in the last column.
const NAMES: &str = "2>/dev/null | awk 'NR > 1 { print $NF }'";

/// The script of a shell.
pub(super) fn script(shell: Shell) -> String {
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "firebuild", &mut bytes);
    let script = String::from_utf8_lossy(&bytes).into_owned();
    match shell {
        Shell::Bash => bash(script),
        Shell::Zsh => zsh(&script),
        Shell::Fish => fish(script),
        _ => script,
    }
}

/// Commands with VMs in their arguments: those that run, and any.
fn commands() -> (Vec<String>, Vec<String>) {
    let command = Cli::command();
    let of_vms = command.get_subcommands().filter(|command| {
        let names = ["cp", "mmds"].contains(&command.get_name());
        let mut arguments = command.get_positionals();
        names || arguments.any(|argument| ["vm", "vms"].contains(&argument.get_id().as_str()))
    });
    of_vms
        .map(|command| command.get_name().to_owned())
        .partition(|name| RUNNING.contains(&name.as_str()))
}

/// The function of clap, and one around it.
fn bash(mut script: String) -> String {
    let (running, all) = commands();
    script.push_str(&format!(
        r#"
_firebuild_and_vms() {{
    _firebuild "$@"
    local cur="${{COMP_WORDS[COMP_CWORD]}}" word which= after=
    [[ $cur == -* ]] && return
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$word" in
            {running}) which=running ;;
            {all}) which=all ;;
            *) continue ;;
        esac
        [[ $word == cp ]] && after=: && compopt -o nospace 2>/dev/null
        break
    done
    case "$which" in
        running) which=$(firebuild ls {NAMES}) ;;
        all) which=$(firebuild ls -a {NAMES}) ;;
        *) return ;;
    esac
    COMPREPLY+=($(compgen -S "$after" -W "$which" -- "$cur"))
}}
complete -F _firebuild_and_vms -o bashdefault -o default firebuild
"#,
        running = running.join("|"),
        all = all.join("|"),
    ));
    script
}

/// The arguments for VMs get a function of their own.
fn zsh(script: &str) -> String {
    let vms = format!(
        "\n_firebuild_vms() {{\n    local -a vms\n    vms=(${{(f)\"$(firebuild ls -a {NAMES})\"}})\n    \
         _describe vm vms\n}}\n"
    );
    let mut with_vms = String::new();
    for line in script.lines() {
        let is_vm = ["':vm --", "'::vm --", "'*::vms --", "'::vms --", "':vms --"]
            .iter()
            .any(|start| line.starts_with(start));
        if is_vm && line.contains(":_default'") {
            with_vms.push_str(&line.replace(":_default'", ":_firebuild_vms'"));
        } else {
            with_vms.push_str(line);
        }
        with_vms.push('\n');
        if line.starts_with("autoload") {
            with_vms.push_str(&vms);
        }
    }
    with_vms
}

fn fish(mut script: String) -> String {
    let (running, all) = commands();
    for (commands, flag) in [(running, ""), (all, "-a ")] {
        script.push_str(&format!(
            "complete -c firebuild -n '__fish_seen_subcommand_from {}' -f -a \"(firebuild ls {flag}2>/dev/null | awk 'NR > 1 {{ \
             print \\$NF }}')\"\n",
            commands.join(" ")
        ));
    }
    script
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use clap_complete::Shell;

    use super::{commands, script};

    #[test]
    fn commands_of_vms_are_found() {
        let (running, all) = commands();
        for name in super::RUNNING {
            assert!(running.contains(&name.to_owned()), "{name} in {running:?}");
        }
        for name in ["inspect", "logs", "rm", "start", "wait"] {
            assert!(all.contains(&name.to_owned()), "{name} in {all:?}");
        }
        assert!(!all.contains(&"rootfs".to_owned()));
    }

    #[test]
    fn bash_offers_the_names_of_vms() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("firebuild.bash");
        fs_err::write(&file, script(Shell::Bash)).unwrap();
        let ask = |words: &str| {
            let text = format!(
                "firebuild() {{ printf 'ID NAME\\n1 web\\n2 db\\n'; [ \"$2\" = -a ] && echo '3 wended'; }}\n\
                 . {}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
                 _firebuild_and_vms firebuild \"${{COMP_WORDS[COMP_CWORD]}}\"; echo \"${{COMPREPLY[@]}}\"",
                file.display()
            );
            let done = Command::new("bash").args(["-c", &text]).output().unwrap();
            let words = String::from_utf8(done.stdout).unwrap();
            let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
            words
        };
        let offers = |words: &str, name: &str| ask(words).contains(&name.to_owned());
        assert!(offers("firebuild exec w", "web"));
        assert!(!offers("firebuild exec w", "db") && !offers("firebuild exec w", "wended"));
        assert!(offers("firebuild --home /x logs w", "wended"));
        assert!(offers("firebuild cp w", "web:"));
        assert!(!offers("firebuild image w", "web"));
        assert!(!offers("firebuild exec --w", "web") && offers("firebuild exec --w", "--workdir"));
    }

    #[test]
    fn other_shells_ask_for_the_names_too() {
        let zsh = script(Shell::Zsh);
        assert!(zsh.matches(":_firebuild_vms'").count() >= 10, "{zsh}");
        assert!(zsh.contains("_firebuild_vms() {"));
        let fish = script(Shell::Fish);
        assert!(
            fish.contains("__fish_seen_subcommand_from mmds exec attach")
                && fish.contains("print \\$NF")
        );
    }
}
