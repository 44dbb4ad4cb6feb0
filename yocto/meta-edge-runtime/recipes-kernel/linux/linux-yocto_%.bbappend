# Only in a distribution that asks for it, so that adding the layer alone changes no kernel.
FILESEXTRAPATHS:prepend := "${THISDIR}/files:"
SRC_URI:append = "${@bb.utils.contains('DISTRO_FEATURES', 'edge-runtime', ' file://edge-runtime.cfg', '', d)}"
