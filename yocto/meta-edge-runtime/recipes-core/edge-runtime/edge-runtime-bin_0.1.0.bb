require edge-runtime.inc

# The archive is made by `cargo xtask dist`: its executable is static and needs neither a Rust toolchain nor libraries
# from the image.
EDGE_RUNTIME_TRIPLE = "unsupported"
EDGE_RUNTIME_TRIPLE:aarch64 = "aarch64-unknown-linux-gnu"
EDGE_RUNTIME_TRIPLE:x86-64 = "x86_64-unknown-linux-gnu"
EDGE_RUNTIME_ARCHIVE = "edge-runtime-${PV}-${EDGE_RUNTIME_TRIPLE}"
S = "${UNPACKDIR}/${EDGE_RUNTIME_ARCHIVE}"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0755 ${S}/edge-runtime ${D}${bindir}/edge-runtime
    edge_runtime_install_system
}

RCONFLICTS:${PN} = "edge-runtime"

# Already stripped; and there is nothing to share with the image's own libraries.
INSANE_SKIP:${PN} += "already-stripped"
INHIBIT_PACKAGE_STRIP = "1"
INHIBIT_SYSROOT_STRIP = "1"
INHIBIT_PACKAGE_DEBUG_SPLIT = "1"
