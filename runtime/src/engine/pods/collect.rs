//! Removes images that no pod uses when the disk gets full, and says so.

use std::sync::Arc;
use std::time::Duration;

use edge_model::event::Reference as About;
use edge_model::{Key, Kind};
use tokio_util::sync::CancellationToken;

use super::Context;
use super::launch::chain;
use crate::images::{Image, Reference, Room, Version};
use crate::store::Store;

/// How often the disk is looked at: one system call while there is room.
const LOOK: Duration = Duration::from_secs(60);

/// Looks at the disk until `stop`.
pub async fn collect(ctx: &Arc<Context>, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Told once, not at every look.
    let mut short = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        short = once(ctx, short).await;
    }
}

/// Looks once; whether the disk is fuller than wanted and nothing more may go. `told` is whether that has been told.
async fn once(ctx: &Arc<Context>, told: bool) -> bool {
    let store = ctx.store.clone();
    let Room { before, after, removed, bytes, short } =
        match ctx.images.make_room(move |image| is_used(&store, image)).await {
            Ok(room) => room,
            Err(error) => {
                tracing::warn!(error = chain(&error), "no room can be made on the disk");
                return told;
            }
        };
    let node = ctx.store.get(&Key::new(Kind::Node, "", &ctx.settings.node_name));
    if let Some(node) = node {
        let about = About::to(&node);
        if !removed.is_empty() {
            let names = removed.join(", ");
            let message = format!("disk {before} % full, now {after} %: removed unused images {names} ({bytes} bytes)");
            ctx.events.normal(about.clone(), "ImageGCRemoved", message);
        }
        if short && !told {
            let message = format!("disk {after} % full, and no image that could be removed");
            ctx.events.warning(about, "FreeDiskSpaceFailed", message);
        }
    }
    short
}

/// Whether some pod has this image in its spec, or runs it.
fn is_used(store: &Store, image: &Image) -> bool {
    let (pods, _) = store.list(Kind::Pod, None);
    let lists = ["containers", "initContainers"];
    let containers = pods.iter().flat_map(|p| lists.iter().filter_map(|l| p.spec().get(*l)?.as_array())).flatten();
    let mut names = containers.filter_map(|c| c.get("image")?.as_str());
    names.any(|name| match name.parse::<Reference>() {
        Ok(Reference { version: Version::Digest(digest), .. }) => digest == image.digest,
        Ok(reference) => image.references.contains(&reference.to_string()),
        Err(_) => false,
    })
}
