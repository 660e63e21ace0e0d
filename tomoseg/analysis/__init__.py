"""What is found in voxels and made of it: functions of arrays; no file, no network, no cluster."""
