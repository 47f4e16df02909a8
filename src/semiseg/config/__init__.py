"""From config files to objects: composition, checks, building."""
