# Only in a distribution that asks for it.
require ${@bb.utils.contains('DISTRO_FEATURES', 'edge-runtime', 'rauc-conf-edge-runtime.inc', '', d)}
