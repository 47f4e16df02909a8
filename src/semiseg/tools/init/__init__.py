"""``semiseg init``: looks at a folder of own images and masks, and writes its dataset config."""
