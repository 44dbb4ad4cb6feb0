SUMMARY = "What a gateway with the edge runtime needs"
DESCRIPTION = "The edge runtime, Bluetooth where the distribution has it, and certificates."

# The package depends on the machine through the runtime's COMPATIBLE_HOST.
PACKAGE_ARCH = "${MACHINE_ARCH}"
inherit packagegroup

COMPATIBLE_HOST = "(aarch64|x86_64).*-linux"

# edge-runtime (from source) or edge-runtime-bin (prebuilt).
EDGE_RUNTIME_PACKAGE ??= "edge-runtime"

RDEPENDS:${PN} = " \
    ${EDGE_RUNTIME_PACKAGE} \
    ca-certificates \
    ${@bb.utils.contains('DISTRO_FEATURES', 'bluetooth', 'bluez5', '', d)} \
"
RRECOMMENDS:${PN} = "kernel-modules"
