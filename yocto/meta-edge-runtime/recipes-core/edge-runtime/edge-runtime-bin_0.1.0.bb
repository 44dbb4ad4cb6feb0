require edge-runtime.inc

# The archive is made by `cargo xtask dist`, a tree as it lies below the root: its executable is static and needs neither a Rust
# toolchain nor libraries from the image.
LIC_FILES_CHKSUM = "file://usr/share/doc/edge-runtime/copyright;md5=3b83ef96387f14655fc854ddc3c6bd57"

EDGE_RUNTIME_TRIPLE = "unsupported"
EDGE_RUNTIME_TRIPLE:aarch64 = "aarch64-unknown-linux-gnu"
EDGE_RUNTIME_TRIPLE:x86-64 = "x86_64-unknown-linux-gnu"
EDGE_RUNTIME_ARCHIVE = "edge-runtime-${PV}-${EDGE_RUNTIME_TRIPLE}.tar.zst"
SRC_URI += "file://${EDGE_RUNTIME_ARCHIVE};subdir=edge-runtime-${PV}"
S = "${UNPACKDIR}/edge-runtime-${PV}"

inherit bash-completion

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0755 ${S}/usr/bin/edge-runtime ${D}${bindir}/edge-runtime
    install -D -m 0644 ${S}/etc/edge-runtime/config.toml ${D}${sysconfdir}/edge-runtime/config.toml
    install -d -m 0755 ${D}${docdir}/${PN} ${D}${mandir}/man1 ${D}${datadir}/bash-completion/completions
    install -m 0644 ${S}/usr/share/doc/edge-runtime/* ${D}${docdir}/${PN}/
    install -m 0644 ${S}/usr/share/man/man1/edge-runtime.1.gz ${D}${mandir}/man1/
    install -m 0644 ${S}/usr/share/bash-completion/completions/edge-runtime ${D}${datadir}/bash-completion/completions/
    edge_runtime_install_system
}

CONFFILES:${PN} = "${sysconfdir}/edge-runtime/config.toml"
RCONFLICTS:${PN} = "edge-runtime"

# Already stripped; and there is nothing to share with the image's own libraries.
INSANE_SKIP:${PN} += "already-stripped"
INHIBIT_PACKAGE_STRIP = "1"
INHIBIT_SYSROOT_STRIP = "1"
INHIBIT_PACKAGE_DEBUG_SPLIT = "1"
