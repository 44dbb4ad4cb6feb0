# Only in a distribution that asks for it, so that adding the layer alone changes nothing.
require ${@bb.utils.contains('DISTRO_FEATURES', 'edge-runtime', 'rauc-edge-runtime.inc', '', d)}
