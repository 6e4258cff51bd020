//! Starting steps and nothing else.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use firebuild_build::cancel::Cancel;
use firebuild_build::chain::{Chain, ChainLayer};
use firebuild_build::content::{StoreContents, store_layer};
use firebuild_build::exec::{Executor, Exit, Step};
use firebuild_build::sandbox::Sandbox;
use firebuild_rootfs::layer::Layer;
use firebuild_rootfs::walk::{DirContents, WalkOptions, open_root, walk};
use firebuild_store::Store;

use crate::Fallible;

/// What is timed: `step-start STORE ROOTFS COUNT`. The first call fills the store.
pub(crate) fn starts(args: &[&str]) -> Fallible<()> {
    let [store, rootfs, count] = args else {
        return Err("step-start STORE ROOTFS COUNT".into());
    };
    let store = Store::open(store)?;
    let chain = base(&store, Path::new(rootfs))?;
    let sandbox = Sandbox::new(&store);
    let step = Step {
        // Fails, so that nobody looks for what it has changed.
        argv: vec!["/bin/busybox".to_owned(), "false".to_owned()],
        ..Step::default()
    };
    let cancel = Cancel::new()?;
    for _ in 0..count.parse()? {
        let done = sandbox.run(&chain, &step, &mut |_, _| {}, &cancel)?;
        if done.status != Exit::Code(1) {
            return Err(format!("the step ended with {:?}", done.status).into());
        }
    }
    Ok(())
}

fn base(store: &Store, rootfs: &Path) -> Fallible<Arc<Chain>> {
    let root = open_root(rootfs)?;
    let options = WalkOptions {
        owner: Some((0, 0)),
        ..WalkOptions::default()
    };
    let tree = walk(root.as_fd(), options)?;
    let files = DirContents::new(root);
    let stored = store_layer(
        store,
        &Layer::of_tree(&tree),
        &StoreContents::with_paths(store, &files),
    )?;
    Ok(Chain::scratch().push(ChainLayer {
        diff_id: stored.diff_id,
        created: None,
    }))
}
