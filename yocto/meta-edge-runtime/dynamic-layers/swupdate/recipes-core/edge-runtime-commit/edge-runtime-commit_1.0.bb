SUMMARY = "Keeps an image that SWUpdate has installed once the node on it is healthy"
DESCRIPTION = "Clears U-Boot's upgrade_available; an image that is not healthy is booted again until U-Boot goes back."
SECTION = "base"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

COMPATIBLE_HOST = "(aarch64|x86_64).*-linux"

SRC_URI = "file://edge-runtime-commit.service"
S = "${UNPACKDIR}"

inherit systemd features_check

REQUIRED_DISTRO_FEATURES = "systemd"

SYSTEMD_SERVICE:${PN} = "edge-runtime-commit.service"

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -D -m 0644 ${UNPACKDIR}/edge-runtime-commit.service ${D}${systemd_system_unitdir}/edge-runtime-commit.service
}

RDEPENDS:${PN} = "libubootenv-bin"
