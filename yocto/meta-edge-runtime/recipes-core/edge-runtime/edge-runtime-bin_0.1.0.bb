SUMMARY = "A Linux gateway as a complete edge node in one static binary"
DESCRIPTION = "Runs containers, an MQTT broker and field protocols, and brings readings to the cloud in order."
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"

# The archive is made by `cargo xtask dist` and laid into the folder that EDGE_RUNTIME_DIST names: the executable is static
# and needs neither a Rust toolchain nor libraries from the image.
EDGE_RUNTIME_DIST ?= "${THISDIR}/files"
EDGE_RUNTIME_TRIPLE:aarch64 = "aarch64-unknown-linux-gnu"
EDGE_RUNTIME_TRIPLE:x86-64 = "x86_64-unknown-linux-gnu"
FILESEXTRAPATHS:prepend := "${EDGE_RUNTIME_DIST}:"
SRC_URI = "file://edge-runtime-${PV}-${EDGE_RUNTIME_TRIPLE}.tar.gz"
S = "${UNPACKDIR}/edge-runtime-${PV}-${EDGE_RUNTIME_TRIPLE}"

COMPATIBLE_HOST = "(aarch64|x86_64).*-linux"

inherit systemd

PROVIDES = "edge-runtime"
RPROVIDES:${PN} = "edge-runtime"
SYSTEMD_SERVICE:${PN} = "edge-runtime.service"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0755 ${S}/edge-runtime ${D}${bindir}/edge-runtime
    install -D -m 0644 ${S}/edge-runtime.service ${D}${systemd_system_unitdir}/edge-runtime.service
    install -d -m 0755 ${D}${sysconfdir}/edge-runtime/manifests
}

# Already stripped; and there is nothing to share with the image's own libraries.
INSANE_SKIP:${PN} += "already-stripped"
INHIBIT_PACKAGE_STRIP = "1"
INHIBIT_SYSROOT_STRIP = "1"
INHIBIT_PACKAGE_DEBUG_SPLIT = "1"
