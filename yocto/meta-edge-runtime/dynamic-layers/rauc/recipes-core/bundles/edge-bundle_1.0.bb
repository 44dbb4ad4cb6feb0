SUMMARY = "The gateway's image as a RAUC bundle"
DESCRIPTION = "Signed with RAUC_KEY_FILE and RAUC_CERT_FILE; installed into the root that is not in use."
LICENSE = "Apache-2.0"

inherit bundle

COMPATIBLE_HOST = "(aarch64|x86_64).*-linux"

# Everything in it is built.
SRC_URI = ""

RAUC_BUNDLE_COMPATIBLE = "edge-runtime-${MACHINE}"
RAUC_BUNDLE_FORMAT = "verity"
RAUC_BUNDLE_SLOTS = "rootfs"
RAUC_SLOT_rootfs = "edge-image"
RAUC_SLOT_rootfs[fstype] = "ext4"
