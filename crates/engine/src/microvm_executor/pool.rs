//! The VMs of a build: one for most, more where stages have other images or other networks, as far as memory goes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use firebuild_build::cancel::Cancel;
use firebuild_build::chain::{Chain, ChainLayer};
use firebuild_build::exec::{ExecError, ExecErrorKind, Step};
use firebuild_build::export::{InUse, disk};
use firebuild_build::graph::NetworkMode;
use firebuild_store::Store;

use super::launch::Wanted;
use super::vm::Vm;
use super::{MicroVmOptions, host, layers};
use crate::images::attached;
use crate::paths::Paths;

/// So many bytes of layers are sent rather than put on a disk.
const SENT: u64 = 32 << 20;

/// The VMs.
#[derive(Debug)]
pub(super) struct Pool {
    paths: Paths,
    options: MicroVmOptions,
    vms: Mutex<Vec<Arc<Vm>>>,
}

impl Pool {
    pub(super) fn new(paths: Paths, options: MicroVmOptions) -> Self {
        Self {
            paths,
            options,
            vms: Mutex::default(),
        }
    }

    /// A VM for a step on this chain: one whose disk the chain begins with, else one to which little has to be sent, else
    /// a new one.
    pub(super) fn vm_for(
        &self,
        store: &Store,
        chain: &Arc<Chain>,
        step: &Step,
        cancel: &Cancel,
    ) -> Result<Arc<Vm>, ExecError> {
        let network = step.network != NetworkMode::None;
        let layers = chain.layers();
        let ids = layers::ids(&layers);
        // Held while a VM starts: whoever waits here wants that one, most likely.
        let mut vms = self.vms.lock().unwrap_or_else(PoisonError::into_inner);
        vms.retain(|vm| !vm.is_dead());
        let usable = || vms.iter().filter(|vm| vm.network == network);
        let fits = |vm: &&Arc<Vm>| vm.image.is_some_and(|image| ids.contains(&image));
        let sent = |begin: usize| size(store, &layers[begin..]);
        if let Some(vm) = usable().find(fits) {
            return Ok(Arc::clone(vm));
        }
        if let Some(vm) = usable().next()
            && (sent(0) <= SENT || !self.has_room(vms.len()))
        {
            return Ok(Arc::clone(vm));
        }
        let image = prefix(&layers, sent);
        let on_disk = self.start(store, &layers[..image], network, cancel)?;
        vms.push(Arc::clone(&on_disk));
        Ok(on_disk)
    }

    fn start(
        &self,
        store: &Store,
        layers: &[ChainLayer],
        network: bool,
        cancel: &Cancel,
    ) -> Result<Arc<Vm>, ExecError> {
        let mut chain = Chain::scratch();
        for layer in layers {
            chain = chain.push(layer.clone());
        }
        let (image, id) = if layers.is_empty() {
            (None, None)
        } else {
            (Some(self.image(store, &chain, cancel)?), Some(*chain.id()))
        };
        let scratch = store
            .temporary()
            .map_err(|error| host("cannot name the scratch disk of a VM", error))?;
        let wanted = Wanted {
            paths: self.paths.clone(),
            options: self.options.clone(),
            image,
            scratch,
            network,
        };
        Vm::start(wanted, id, cancel).map(Arc::new)
    }

    fn image(&self, store: &Store, chain: &Chain, cancel: &Cancel) -> Result<PathBuf, ExecError> {
        disk(
            store,
            chain,
            None,
            InUse::of(&attached(&self.paths)),
            cancel,
        )
        .map_err(|error| {
            ExecError::caused(
                ExecErrorKind::Base,
                "cannot make the disk of the build's VM",
                error,
            )
        })
    }

    /// Whether the host has memory for one VM more: no more than half of what is free now is taken.
    fn has_room(&self, running: usize) -> bool {
        let text = fs_err::read_to_string("/proc/meminfo").unwrap_or_default();
        let free = text
            .lines()
            .find_map(|line| line.strip_prefix("MemAvailable:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok())
            .map_or(u64::MAX, |kib| kib / 1024);
        running < 8 && u64::from(self.options.memory_mib) <= free / 2
    }
}

/// How many layers the disk of a new VM has: those of the image, and more while too much would have to be sent.
fn prefix(layers: &[ChainLayer], sent: impl Fn(usize) -> u64) -> usize {
    let image = layers
        .iter()
        .take_while(|layer| layer.created.is_none())
        .count();
    (image..layers.len())
        .find(|begin| sent(*begin) <= SENT)
        .unwrap_or(layers.len())
}

/// Bytes of layers; what is not there is told by whoever needs it.
fn size(store: &Store, layers: &[ChainLayer]) -> u64 {
    layers
        .iter()
        .filter_map(|layer| store.blob_size(&layer.diff_id).ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::{ChainLayer, SENT, prefix};
    use firebuild_oci::Digest;

    #[test]
    fn a_disk_has_the_image_and_what_is_large() {
        let layer = |created| ChainLayer {
            diff_id: Digest::of(b"x"),
            created,
        };
        let layers = [layer(None), layer(None), layer(Some(1)), layer(Some(2))];
        assert_eq!(prefix(&layers, |_| 0), 2);
        assert_eq!(
            prefix(&layers, |begin| if begin < 3 { SENT + 1 } else { 1 }),
            3
        );
        assert_eq!(prefix(&layers, |_| SENT + 1), 4);
        assert_eq!(prefix(&[], |_| 0), 0);
    }
}
