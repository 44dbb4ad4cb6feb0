SUMMARY = "Lets Mender commit an image only when the node on it is healthy"
DESCRIPTION = "A state script that goes into the Mender artifact: when it fails, Mender rolls back."
SECTION = "base"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

COMPATIBLE_HOST = "(aarch64|x86_64).*-linux"

SRC_URI = "file://health-gate"
S = "${UNPACKDIR}"

inherit mender-state-scripts

# The script goes into the artifact, and the package, by which an image asks for it, is empty.
ALLOW_EMPTY:${PN} = "1"

do_compile() {
    install -D -m 0755 ${UNPACKDIR}/health-gate ${MENDER_STATE_SCRIPTS_DIR}/ArtifactCommit_Enter_50_edge-runtime
}
