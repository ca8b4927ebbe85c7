"""Linear heads on frozen features, one public file each: `probes/group_balanced.py` holds the head `group-balanced`."""
