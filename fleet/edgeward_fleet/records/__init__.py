"""Records of devices: taken in once, found again."""
