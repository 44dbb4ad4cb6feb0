SUMMARY = "A gateway: read-only root, the edge runtime, and its state on a partition of its own"
DESCRIPTION = "The root file system is never written; what must survive lies in EDGE_STATE_DIR."
LICENSE = "Apache-2.0"

inherit core-image

COMPATIBLE_HOST = "(aarch64|x86_64).*-linux"

IMAGE_FEATURES += "read-only-rootfs"
IMAGE_INSTALL += "packagegroup-edge-runtime"

# Where the state partition is mounted, and its size; the node's `paths.state-dir` must lie in it.
EDGE_STATE_DIR ?= "/var/lib/edge-runtime"
EDGE_STATE_SIZE ?= "512M"
WICVARS:append = " EDGE_STATE_DIR EDGE_STATE_SIZE"

edge_state_mount_point() {
    install -d -m 0755 ${IMAGE_ROOTFS}${EDGE_STATE_DIR}
}
ROOTFS_POSTPROCESS_COMMAND += "edge_state_mount_point"
