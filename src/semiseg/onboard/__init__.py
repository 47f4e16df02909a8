"""Own folders of pictures turned into datasets."""
