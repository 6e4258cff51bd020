//! What the types of a configuration do not say.

use std::fmt;

use super::{
    Channel, ConfigError, DiskRef, MAX_HOSTNAME_BYTES, RUN_CONFIG_VERSION, RootLayout, RunConfig,
};
use crate::metadata::fits;

impl RunConfig {
    /// Checks what the types do not say.
    ///
    /// # Errors
    /// The first field that the guest could not use.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check(
            self.version == RUN_CONFIG_VERSION,
            "version",
            "is not one that this build knows",
        )?;
        check(
            self.argv.first().is_some_and(|program| !program.is_empty()),
            "argv",
            "names no program",
        )?;
        for (index, argument) in self.argv.iter().enumerate() {
            check(
                no_nul(argument),
                format_args!("argv[{index}]"),
                "holds a NUL byte",
            )?;
        }
        if let Some(system) = &self.system {
            check(
                system.argv.iter().all(|argument| no_nul(argument)),
                "system.argv",
                "holds a NUL byte",
            )?;
        }
        for variable in &self.env {
            let field = format_args!("env {}", variable.name);
            check(!variable.name.is_empty(), field, "has no name")?;
            check(!variable.name.contains('='), field, "has '=' in its name")?;
            check(
                no_nul(&variable.name) && no_nul(&variable.value),
                field,
                "holds a NUL byte",
            )?;
        }
        check(
            self.cwd.is_empty() || self.cwd.starts_with('/'),
            "cwd",
            "is not an absolute path",
        )?;
        check(no_nul(&self.cwd), "cwd", "holds a NUL byte")?;
        check(one_line(&self.user), "user", "holds a control character")?;
        check(
            is_word(&self.hostname),
            "hostname",
            "is empty or holds a space",
        )?;
        check(
            self.hostname.len() <= MAX_HOSTNAME_BYTES,
            "hostname",
            "is longer than 64 bytes",
        )?;
        for (index, host) in self.hosts.iter().enumerate() {
            let sound = !host.names.is_empty() && host.names.iter().all(|name| is_word(name));
            check(
                sound,
                format_args!("hosts[{index}]"),
                "has no name, or one with a space",
            )?;
        }
        if let Some(resolver) = &self.resolver {
            check(
                resolver.search.iter().all(|word| is_word(word)),
                "resolver.search",
                "has an empty word or a space",
            )?;
            check(
                resolver.options.iter().all(|word| is_word(word)),
                "resolver.options",
                "has an empty word or a space",
            )?;
        }
        check(
            self.metadata
                .as_ref()
                .is_none_or(|metadata| fits(&metadata.document)),
            "metadata",
            "is larger than 51,200 bytes",
        )?;
        for (index, account) in self.accounts.iter().enumerate() {
            let sound = is_word(&account.name) && account.keys.iter().all(|key| one_line(key));
            check(
                sound,
                format_args!("accounts[{index}]"),
                "has a bad name, or a key of several lines",
            )?;
        }
        for (index, interface) in self.interfaces.iter().enumerate() {
            if let crate::InterfaceRef::Name(name) = &interface.select {
                // IFNAMSIZ, with the final NUL.
                let sound = is_word(name) && name.len() < 16 && !name.contains('/');
                check(
                    sound,
                    format_args!("interfaces[{index}].select"),
                    "is no name of an interface",
                )?;
            }
        }
        self.validate_devices()
    }

    fn validate_devices(&self) -> Result<(), ConfigError> {
        let all = self.modules.iter().enumerate();
        let all = all.map(|(index, module)| ("modules", index, module));
        let spare = self.metadata.iter().flat_map(|metadata| &metadata.modules);
        let spare = spare.enumerate();
        let spare = spare.map(|(index, module)| ("metadata.modules", index, module));
        for (field, index, module) in all.chain(spare) {
            let sound = module.starts_with('/')
                && no_nul(module)
                && module.split('/').all(|part| part != "..");
            check(
                sound,
                format_args!("{field}[{index}]"),
                "is not an absolute path in the initrd",
            )?;
        }
        let (disks, filesystem) = match &self.root {
            RootLayout::Overlay {
                image,
                filesystem,
                scratch,
            } => (vec![image, scratch], Some(filesystem)),
            RootLayout::Private { disk, filesystem } => (vec![disk], Some(filesystem)),
            RootLayout::Initrd => (Vec::new(), None),
            RootLayout::Steps { image, scratch } => (image.iter().chain([scratch]).collect(), None),
        };
        for disk in disks {
            let sound = match disk {
                DiskRef::Serial(serial) => is_word(serial) && serial.len() <= 20,
                DiskRef::Index(index) => *index < 26,
            };
            check(
                sound,
                "root",
                "names a disk by a bad serial number or index",
            )?;
        }
        check(
            filesystem.is_none_or(|name| is_word(name)),
            "root.filesystem",
            "is no name of a file system",
        )?;
        match &self.channel {
            Channel::VirtioSerial { name } => {
                check(is_word(name), "channel.name", "is empty or holds a space")
            }
            Channel::Vsock { port } => check(*port != u32::MAX, "channel.port", "is no port"),
        }
    }
}

fn check(holds: bool, field: impl fmt::Display, problem: &'static str) -> Result<(), ConfigError> {
    if holds {
        Ok(())
    } else {
        Err(ConfigError::Field {
            field: field.to_string(),
            problem,
        })
    }
}

fn no_nul(text: &str) -> bool {
    !text.contains('\0')
}

fn one_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}
