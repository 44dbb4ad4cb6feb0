require edge-runtime.inc

# The archive is made by `git archive` (see the layer's README); the crates are fetched before, so that compiling needs no
# network. It wants Rust 1.94: wrynose has it.
LIC_FILES_CHKSUM = "file://LICENSE;md5=3b83ef96387f14655fc854ddc3c6bd57"
EDGE_RUNTIME_ARCHIVE = "edge-runtime-${PV}.tar.gz"
SRC_URI += "file://${EDGE_RUNTIME_ARCHIVE}"
S = "${UNPACKDIR}/edge-runtime-${PV}"

inherit cargo cargo-update-recipe-crates

require edge-runtime-crates.inc

CARGO_BUILD_FLAGS:append = " --package edge-runtime --bin edge-runtime"

do_install() {
    install -D -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/edge-runtime ${D}${bindir}/edge-runtime
    edge_runtime_install_system
}

RCONFLICTS:${PN} = "edge-runtime-bin"
