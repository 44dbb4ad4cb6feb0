SUMMARY = "The gateway's image as a SWUpdate archive"
DESCRIPTION = "Installed into the root that is not in use: swupdate -i FILE -e stable,copy1 or stable,copy2."
LICENSE = "Apache-2.0"

inherit swupdate

COMPATIBLE_HOST = "(aarch64|x86_64).*-linux"

SRC_URI = "file://sw-description"

IMAGE_DEPENDS = "edge-image"
SWUPDATE_IMAGES = "edge-image"
SWUPDATE_IMAGES_FSTYPES[edge-image] = ".ext4.gz"
