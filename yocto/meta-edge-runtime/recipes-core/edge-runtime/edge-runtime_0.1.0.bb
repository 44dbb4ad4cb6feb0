require edge-runtime.inc

# The archive is made by `git archive` (see the layer's README); the crates are fetched before, so that compiling needs no
# network. It wants Rust 1.94: wrynose has it.
EDGE_RUNTIME_ARCHIVE = "edge-runtime-${PV}"
SRC_URI += "file://run-ptest"
S = "${UNPACKDIR}/${EDGE_RUNTIME_ARCHIVE}"

inherit cargo cargo-update-recipe-crates ptest

require edge-runtime-crates.inc

CARGO_BUILD_FLAGS:append = " --package edge-runtime --bin edge-runtime"

do_install() {
    install -D -m 0755 ${B}/target/${CARGO_TARGET_SUBDIR}/edge-runtime ${D}${bindir}/edge-runtime
    edge_runtime_install_system
}

RCONFLICTS:${PN} = "edge-runtime-bin"
