SUMMARY = "A gateway: read-only root, edge runtime, state on its own partition"
DESCRIPTION = "The root file system is never written; what must survive lies on the partition at EDGE_STATE_DIR."
LICENSE = "Apache-2.0"

inherit core-image

COMPATIBLE_HOST = "(aarch64|x86_64).*-linux"

IMAGE_FEATURES += "read-only-rootfs"
IMAGE_INSTALL += "packagegroup-edge-runtime"

# Where the partition with the label edge-state is mounted. It must not lie below /var/lib, over which a read-only root binds
# a volatile folder. Empty: no such partition, and the state is lost with each boot (QEMU).
EDGE_STATE_DIR ?= "/data"
# Its least size, and that of each root file system where there are two, as wic takes them.
EDGE_STATE_SIZE ?= "512M"
EDGE_ROOT_SIZE ?= "1024M"
WICVARS:append = " EDGE_STATE_SIZE EDGE_ROOT_SIZE"

# Written into the image and not by wic, so that updates of the root file system have it, too.
edge_state() {
    echo "${IMAGE_NAME}" > ${IMAGE_ROOTFS}${sysconfdir}/edge-image
    if [ -n "${EDGE_STATE_DIR}" ]; then
        install -d -m 0755 ${IMAGE_ROOTFS}${EDGE_STATE_DIR} ${IMAGE_ROOTFS}${sysconfdir}/edge-runtime/conf.d
        echo "LABEL=edge-state ${EDGE_STATE_DIR} ext4 noatime,nofail 0 2" >> ${IMAGE_ROOTFS}${sysconfdir}/fstab
        printf '[paths]\nstate-dir = "%s"\n' "${EDGE_STATE_DIR}/edge-runtime" \
            > ${IMAGE_ROOTFS}${sysconfdir}/edge-runtime/conf.d/10-image.toml
        install -d -m 0755 ${IMAGE_ROOTFS}${sysconfdir}/systemd/system/edge-runtime.service.d
        printf '[Unit]\nRequiresMountsFor=%s\n' "${EDGE_STATE_DIR}" \
            > ${IMAGE_ROOTFS}${sysconfdir}/systemd/system/edge-runtime.service.d/10-state.conf
    fi
}
edge_state[vardepsexclude] += "IMAGE_NAME"
ROOTFS_POSTPROCESS_COMMAND += "edge_state"
