//! The instructions that change the configuration.

use std::time::Duration;

use firebuild_dockerfile::{
    ArgDefinition, Command, HealthTest, Healthcheck, Pair, Rule, Word, expand_words, looks_secret,
    nearest_signal, signal_number,
};
use firebuild_oci::Healthcheck as HealthcheckConfig;

use super::env::expansion_error;
use super::expose;
use super::stage::{Stepper, join_dir};
use super::text::{duration, plain_list, quoted_list};
use super::{LowerError, LowerErrorKind, OutlineArg};
use crate::graph::{MkdirOp, Op};

/// The shell of the shell form unless SHELL says otherwise.
pub(super) const DEFAULT_SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Ports that one image may list.
const MAX_PORTS: usize = 200_000;

impl Stepper<'_, '_> {
    pub(super) fn env(&mut self, pairs: &[Pair]) -> Result<(), LowerError> {
        self.warn_of_legacy(pairs);
        let pairs = self.expand_pairs("ENV", pairs)?;
        let mut text = "ENV".to_owned();
        for (name, value) in &pairs {
            self.warn_of_secret("ENV", name);
            text += &format!(" {name}={value}");
            self.env.set(name, value)?;
            self.config.config.set_env(name, value);
        }
        self.commit(text, false);
        Ok(())
    }

    pub(super) fn label(&mut self, pairs: &[Pair]) -> Result<(), LowerError> {
        self.warn_of_legacy(pairs);
        let mut text = "LABEL".to_owned();
        for (name, value) in self.expand_pairs("LABEL", pairs)? {
            text += &format!(" {name}={value}");
            self.config.config.labels.insert(name, value);
        }
        self.commit(text, false);
        Ok(())
    }

    fn warn_of_legacy(&mut self, pairs: &[Pair]) {
        if pairs.iter().any(|pair| pair.legacy) {
            let keyword = self.now.keyword;
            let message = format!(
                "\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format"
            );
            self.warn(Rule::LegacyKeyValueFormat, message);
        }
    }

    fn warn_of_secret(&mut self, what: &str, name: &str) {
        if looks_secret(name) {
            let message =
                format!("Do not use ARG or ENV instructions for sensitive data ({what} {name:?})");
            self.warn(Rule::SecretsUsedInArgOrEnv, message);
        }
    }

    /// All of one instruction see the state before it.
    fn expand_pairs(
        &mut self,
        what: &str,
        pairs: &[Pair],
    ) -> Result<Vec<(String, String)>, LowerError> {
        let mut expanded = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let name = self.expand(&pair.name)?;
            // A variable in the name may have left nothing of it.
            if name.is_empty() || name.contains('\0') || (what == "ENV" && name.contains('=')) {
                let message = format!(
                    "{what} names can not be blank or hold a '=': {:?} gives {name:?}",
                    pair.name.text
                );
                return Err(LowerError::new(LowerErrorKind::Value, message).at(pair.name.span));
            }
            expanded.push((name, self.expand(&pair.value)?));
        }
        Ok(expanded)
    }

    /// Unlike elsewhere, each default sees the names before it in the same instruction.
    pub(super) fn arg(&mut self, args: &[ArgDefinition]) -> Result<(), LowerError> {
        let mut texts = Vec::with_capacity(args.len());
        for arg in args {
            let name = &arg.name.text;
            self.warn_of_secret("ARG", name);
            self.output.declared.insert(name.clone());
            let value = match (self.plan.build_args.get(name), &arg.default) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(default)) => Some(self.expand(default)?),
                (None, None) => self.plan.globals.get(name).map(str::to_owned),
            };
            let inherited = arg.default.is_none() && !self.plan.build_args.contains_key(name);
            let global = inherited.then(|| self.plan.global_arg(name)).flatten();
            // Automatic arguments are nobody's to give.
            if global.is_some() || !inherited || value.is_none() {
                self.output
                    .outline
                    .arg(global.unwrap_or_else(|| OutlineArg {
                        name: name.clone(),
                        value: value.clone(),
                        description: arg.doc.clone(),
                        span: self.now.span,
                    }));
            }
            if let Some(value) = &value
                && !matches!(
                    name.as_str(),
                    "BUILDKIT_SBOM_SCAN_CONTEXT" | "BUILDKIT_SBOM_SCAN_STAGE"
                )
            {
                self.env.set(name, value)?;
            }
            texts.push(match &value {
                Some(value) => format!("{name}={value}"),
                None => name.clone(),
            });
            self.args.push((name.clone(), value));
        }
        self.commit(format!("ARG {}", texts.join(" ")), false);
        Ok(())
    }

    pub(super) fn workdir(&mut self, word: &Word) -> Result<(), LowerError> {
        let path = self.expand(word)?;
        if !self.workdir_set && !path.starts_with('/') {
            let message = format!(
                "Relative workdir {path:?} can have unexpected results if the base image changes"
            );
            self.warn(Rule::WorkdirRelativePath, message);
        }
        self.workdir_set = true;
        // What begins at the root is kept as it is written.
        let kept = path.starts_with('/').then(|| path.clone());
        let path = join_dir(self.directory(), &path);
        let kept = kept.unwrap_or_else(|| path.clone());
        self.config.config.working_dir.clone_from(&kept);
        let has_layer = path != "/";
        if has_layer {
            let shown = self.shown_expanded();
            let name = self.named(&shown);
            let op = MkdirOp {
                path: path.clone(),
                user: self.config.config.user.clone(),
            };
            let below = self.vertex;
            self.vertex = self.push(Op::Mkdir(op), vec![below], name);
        }
        self.commit(format!("WORKDIR {kept}"), has_layer);
        Ok(())
    }

    /// The argv of a command: as it is, or the shell with the text as its last argument.
    pub(super) fn argv(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.iter().map(|word| word.text.clone()).collect(),
            Command::Shell(word) => self.shell_argv(&word.text),
        }
    }

    pub(super) fn shell_argv(&self, text: &str) -> Vec<String> {
        let mut argv = match &self.config.config.shell {
            Some(shell) if !shell.is_empty() => shell.clone(),
            _ => DEFAULT_SHELL.map(str::to_owned).to_vec(),
        };
        argv.push(text.to_owned());
        argv
    }

    fn recommend_json(&mut self, command: &Command) {
        let has_shell = self
            .config
            .config
            .shell
            .as_ref()
            .is_some_and(|shell| !shell.is_empty());
        if matches!(command, Command::Shell(_)) && !has_shell {
            self.warn(
                Rule::JSONArgsRecommended,
                format!("JSON arguments recommended for {} to prevent unintended behavior related to OS signals", self.now.keyword),
            );
        }
    }

    pub(super) fn cmd(&mut self, command: &Command) -> Result<(), LowerError> {
        self.used_once(0);
        self.recommend_json(command);
        let argv = self.argv(command);
        let text = format!("CMD {}", quoted_list(&argv));
        self.config.config.cmd = (!argv.is_empty()).then_some(argv);
        self.config.config.args_escaped = true;
        self.cmd_set = true;
        self.commit(text, false);
        Ok(())
    }

    /// Clears a CMD that was inherited, not one of this stage.
    pub(super) fn entrypoint(&mut self, command: &Command) -> Result<(), LowerError> {
        self.used_once(1);
        self.recommend_json(command);
        let argv = self.argv(command);
        let text = format!("ENTRYPOINT {}", quoted_list(&argv));
        self.config.config.entrypoint = (!argv.is_empty()).then_some(argv);
        if !self.cmd_set {
            self.config.config.cmd = None;
        }
        self.commit(text, false);
        Ok(())
    }

    pub(super) fn expose(&mut self, words: &[Word]) -> Result<(), LowerError> {
        let mut words: Vec<&Word> = words.iter().collect();
        words.sort_by(|a, b| a.text.cmp(&b.text));
        let mut ports = Vec::new();
        for word in words {
            let expanded = expand_words(&word.text, self.plan.file.escape(), |name| {
                self.env.get(name)
            })
            .map_err(|error| expansion_error(word, error))?;
            self.report_unset(&expanded.unset);
            for part in &expanded.words {
                let exposed = expose::parse(part).map_err(|message| {
                    LowerError::new(LowerErrorKind::Value, message).at(word.span)
                })?;
                if exposed.has_capitals {
                    let message = format!(
                        "Defined protocol '{part}' in EXPOSE instruction should be lowercase"
                    );
                    self.warn(Rule::ExposeProtoCasing, message);
                }
                if exposed.has_host {
                    let message = format!(
                        "EXPOSE instruction should not define an IP address or host-port mapping, found '{part}'"
                    );
                    self.warn(Rule::ExposeInvalidFormat, message);
                }
                ports.extend(exposed.ports);
                if ports.len() > MAX_PORTS {
                    let message = format!("EXPOSE lists more than {MAX_PORTS} ports");
                    return Err(LowerError::new(LowerErrorKind::TooLarge, message).at(word.span));
                }
            }
        }
        self.commit(format!("EXPOSE {}", plain_list(&ports)), false);
        self.config.config.exposed_ports.extend(ports);
        Ok(())
    }

    pub(super) fn volume(&mut self, words: &[Word]) -> Result<(), LowerError> {
        let mut paths = Vec::with_capacity(words.len());
        for word in words {
            let path = self.expand(word)?;
            if path.is_empty() {
                let message = "VOLUME specified can not be an empty string";
                return Err(LowerError::new(LowerErrorKind::Value, message).at(word.span));
            }
            paths.push(path);
        }
        self.commit(format!("VOLUME {}", plain_list(&paths)), false);
        self.config.config.volumes.extend(paths);
        Ok(())
    }

    pub(super) fn user(&mut self, word: &Word) -> Result<(), LowerError> {
        let user = self.expand(word)?;
        self.commit(format!("USER {user}"), false);
        self.config.config.user = user;
        Ok(())
    }

    pub(super) fn shell_instruction(&mut self, words: &[Word]) -> Result<(), LowerError> {
        let shell: Vec<String> = words.iter().map(|word| word.text.clone()).collect();
        self.commit(format!("SHELL {}", plain_list(&shell)), false);
        self.config.config.shell = Some(shell);
        Ok(())
    }

    pub(super) fn stop_signal(&mut self, word: &Word) -> Result<(), LowerError> {
        let signal = self.expand(word)?;
        // A number is taken as it is, whether or not there is such a signal.
        let number = signal.parse::<i64>().is_ok_and(|number| number != 0);
        if !number && signal_number(&signal).is_none() {
            let near = nearest_signal(&signal)
                .map(|near| format!(" (did you mean {near}?)"))
                .unwrap_or_default();
            let message = format!("invalid signal: {signal}{near}");
            return Err(LowerError::new(LowerErrorKind::Value, message).at(word.span));
        }
        self.commit(format!("STOPSIGNAL {signal}"), false);
        self.config.config.stop_signal = Some(signal);
        Ok(())
    }

    pub(super) fn healthcheck(&mut self, check: &Healthcheck) -> Result<(), LowerError> {
        self.used_once(2);
        let test = match &check.test {
            HealthTest::None => vec!["NONE".to_owned()],
            // Not the shell of SHELL: the runtime chooses its own.
            HealthTest::Command(Command::Shell(word)) => {
                vec!["CMD-SHELL".to_owned(), word.text.clone()]
            }
            HealthTest::Command(Command::Exec(words)) => {
                let mut test = vec!["CMD".to_owned()];
                test.extend(words.iter().map(|word| word.text.clone()));
                test
            }
        };
        let config = HealthcheckConfig {
            test,
            interval: nanos(check.interval),
            timeout: nanos(check.timeout),
            start_period: nanos(check.start_period),
            start_interval: nanos(check.start_interval),
            retries: check.retries.map_or(0, i64::from),
            ..HealthcheckConfig::default()
        };
        self.commit(
            format!(
                "HEALTHCHECK {{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
                plain_list(&config.test),
                duration(config.interval),
                duration(config.timeout),
                duration(config.start_period),
                duration(config.start_interval),
                config.retries
            ),
            false,
        );
        self.config.config.healthcheck = Some(config);
        Ok(())
    }
}

/// Nanoseconds; the parser has bounded them.
fn nanos(value: Option<Duration>) -> i64 {
    value.map_or(0, |value| {
        i64::try_from(value.as_nanos()).unwrap_or(i64::MAX)
    })
}
