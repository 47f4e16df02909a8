"""Labels from and to the files of labeling tools."""
